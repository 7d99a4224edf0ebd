"""The fused update of Adam, compared with that of Keras."""

from __future__ import annotations

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfp_bnn.variational.fused_adam import fused_adam

FEW_ROWS = tf.IndexedSlices(tf.constant([[0.5, -0.2]]), tf.constant([1]), tf.constant([3, 2]))


def trained(optimizer, context, sparse):
    """The values of two weights and of the optimizer after three steps."""
    variables = [keras.Variable([1.0, -2.0]), keras.Variable(np.ones((3, 2), np.float32))]
    optimizer.build(variables)
    for step in (1.0, -2.0, 0.5):
        gradients = [step * tf.constant([0.3, -1.0]), FEW_ROWS if sparse else step * tf.ones((3, 2))]
        with context(optimizer):
            optimizer.apply_gradients(zip(gradients, variables, strict=True))
    return [np.asarray(variable) for variable in (*variables, *optimizer.variables)]


@pytest.mark.parametrize(
    ("make", "sparse"),
    [
        (lambda: keras.optimizers.Adam(0.1, beta_1=0.8, beta_2=0.9, epsilon=1e-3), False),
        (lambda: keras.optimizers.AdamW(0.1, clipnorm=0.5, use_ema=True), False),
        (lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.1), initial_scale=2.0), False),
        (lambda: keras.optimizers.Adam(0.1), True),
        (lambda: keras.optimizers.Adam(0.1, amsgrad=True), False),
        (lambda: keras.optimizers.SGD(0.1, momentum=0.9), False),
    ],
    ids=["adam", "adamw", "scaled loss", "sparse", "amsgrad", "another optimizer"],
)
def test_steps_are_those_of_keras(make, sparse):
    expected, found = (trained(make(), context, sparse) for context in (contextlib.nullcontext, fused_adam))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=5e-5)


def test_each_variable_takes_one_operation_and_only_in_the_context():
    optimizer, variable = keras.optimizers.Adam(), keras.Variable([1.0])
    optimizer.build([variable])

    @tf.function(autograph=False)
    def step():
        with fused_adam(optimizer):
            optimizer.apply_gradients([(tf.constant([1.0]), variable)])

    kinds = [operation.type for operation in step.get_concrete_function().graph.get_operations()]
    assert kinds.count("ResourceApplyAdam") == 1
    assert "Sqrt" not in kinds
    assert "update_step" not in vars(optimizer)

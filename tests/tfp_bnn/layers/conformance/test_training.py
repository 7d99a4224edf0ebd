"""Eager, compiled and fed by `tf.data`: the same outputs, and one training step that moves everything."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfp_bnn.layers.noise import Noise, noise_scope

from .cases import CASES, LAYER_CASES, Case, for_each_case, operation_of
from .reference import randomize

OPERATION_CASES = list({operation_of(case.layer): case for case in LAYER_CASES}.values())


@for_each_case
def test_compiled_outputs_are_the_eager_ones(case):
    layer = case.build()
    randomize(layer)

    def call(inputs):
        with noise_scope({id(layer): Noise(tf.constant([1, 2]))}):
            return layer(inputs, training=True), layer(inputs, training=False), layer.kl()

    inputs = tf.nest.map_structure(tf.constant, case.inputs())
    for eager, compiled in zip(call(inputs), tf.function(call)(inputs), strict=True):
        np.testing.assert_allclose(compiled, eager, rtol=1e-5, atol=1e-5)


# Tracing a training step takes a second: once for each operation.
@pytest.mark.parametrize(
    ("case", "run_eagerly"),
    [*((case, True) for case in CASES), *((case, False) for case in OPERATION_CASES)],
    ids=lambda value: str(value) if isinstance(value, Case) else "eager" if value else "compiled",
)
def test_one_training_step_on_a_dataset_moves_every_parameter(case, run_eagerly):
    keras.utils.set_random_seed(0)
    learned = case.of_all_weights("prior", {"name": "normal", "empirical_bayes": True})
    layer = case.make(**learned)
    model = case.model(layer)
    model.compile(keras.optimizers.Adam(0.01), run_eagerly=run_eagerly)
    inputs = case.inputs(batch=4)
    targets = np.ones((4, *model.output_shape[1:]), np.float32)
    dataset = tf.data.Dataset.from_tensor_slices((tuple(inputs) if isinstance(inputs, list) else inputs, targets))
    before = [np.asarray(variable) for variable in model.trainable_variables]
    history = model.fit(dataset.batch(4), verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert history["kl"][0] > 0
    assert int(model.optimizer.iterations) == 1
    assert {id(variable) for variable in layer.trainable_variables} <= {id(v) for v in model.trainable_variables}
    for variable, old in zip(model.trainable_variables, before, strict=True):
        assert (np.asarray(variable) != old).all(), variable.path

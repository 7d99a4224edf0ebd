"""One training step on a `tf.data.Dataset`, eager and compiled, moves everything."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from .cases import LAYER_CASES, for_each_costly_case, operation_of

# Tracing a training step takes a second or two: one case of each operation, and every day those that are not compiled
# by the same code as another.
TRACED = {operation_of(case.layer): case for case in LAYER_CASES}
COST = {
    "Dense": (),
    **dict.fromkeys(["Convolution2D", "LSTM", "MultiHeadAttention", "LayerNormalization"], pytest.mark.slow),
}


@for_each_costly_case
def test_one_eager_training_step_on_a_dataset_moves_every_parameter(case):
    assert_a_step_moves_every_parameter(case, run_eagerly=True)


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=COST.get(name, pytest.mark.thorough)) for name, case in TRACED.items()],
    ids=str,
)
def test_one_compiled_training_step_on_a_dataset_moves_every_parameter(case):
    assert_a_step_moves_every_parameter(case, run_eagerly=False)


def assert_a_step_moves_every_parameter(case, **how):
    keras.utils.set_random_seed(0)
    # Not at the scale 1, which is the best one for gains that start at 1.
    learned = case.of_all_weights("prior", {"name": "normal", "scale": 0.7, "empirical_bayes": True})
    layer = case.make(**learned)
    model = case.model(layer)
    model.compile(keras.optimizers.Adam(0.01), **how)
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

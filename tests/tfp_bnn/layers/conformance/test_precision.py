"""Half precision is for the outputs only: parameters and KL stay in float32."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfp_bnn.core.noise import noise_scope
from tfp_bnn.layers import DenseFlipout, LSTMFlipout

from .cases import LAYER_CASES, for_each_costly_case
from .reference import randomize

# The spacing of the numbers above 1.
EPS = {"bfloat16": 2.0**-7, "float16": 2.0**-10}
LOCAL = [case for case in LAYER_CASES if case.estimator == "local reparameterization"]


@pytest.mark.parametrize("policy", ["mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.thorough)])
@for_each_costly_case
def test_half_precision_agrees_with_float32(case, policy, injected_noise):
    """To 4 units in the last place of the largest output, with the same noise."""
    assert_half_precision_agrees(case, policy, injected_noise)


@pytest.mark.parametrize("case", [case for case in LAYER_CASES if case.layer in (DenseFlipout, LSTMFlipout)], ids=str)
def test_parameters_stay_in_float32_under_a_policy_of_half_precision_alone(case, injected_noise):
    assert_half_precision_agrees(case, "bfloat16", injected_noise)


def assert_half_precision_agrees(case, policy, noise):
    compute_dtype = policy.removeprefix("mixed_")
    full, half = case.build(kl_weight=1.0), case.build(kl_weight=1.0, dtype=policy)
    randomize(full)
    half.set_weights(full.get_weights())
    assert {variable.dtype for variable in half.variables} == {"float32"}
    # Plain reparameterization is the same in training and evaluation.
    for training in (True,) if case.estimator == "reparameterization" else (True, False):
        noise.drawn.clear()
        outputs = []
        for layer in (full, half):
            with noise_scope({id(layer): noise}), tf.GradientTape() as tape:
                outputs.append(layer(case.inputs(), training=training))
                loss = tf.reduce_sum(tf.cast(outputs[-1], tf.float32) ** 2) + layer.losses[0]
        assert outputs[0].dtype == tf.float32
        assert outputs[1].dtype == compute_dtype
        atol = 4 * EPS[compute_dtype] * np.abs(outputs[0]).max()
        np.testing.assert_allclose(tf.cast(outputs[1], tf.float32), outputs[0], atol=atol)
        # To the last bit: within `call` the parameters are not read in half precision either.
        np.testing.assert_array_equal(half.losses[0], full.losses[0])
        assert half.kl().dtype == half.losses[0].dtype == tf.float32
        for variable, gradient in zip(half.trainable_variables, tape.gradient(loss, values_of(half)), strict=True):
            assert gradient.dtype == tf.float32, variable.name
            assert np.isfinite(tf.convert_to_tensor(gradient)).all(), variable.name


def values_of(layer):
    return [variable.value for variable in layer.trainable_variables]


@pytest.mark.parametrize("compute_dtype", EPS)
@pytest.mark.parametrize("case", LOCAL, ids=str)
def test_local_reparameterization_takes_large_inputs_in_half_precision(case, compute_dtype, injected_noise):
    # Their squares, up to 1e6, overflow in float16.
    layer = case.build(dtype=f"mixed_{compute_dtype}")
    randomize(layer)
    inputs = 1000 * np.clip(case.inputs(), -1, 1)
    assert np.abs(inputs).max() == 1000
    twin = case.build()
    twin.set_weights(layer.get_weights())
    outputs = []
    for each in (twin, layer):
        with noise_scope({id(each): injected_noise}), tf.GradientTape() as tape:
            outputs.append(tf.cast(each(inputs, training=True), tf.float32))
            loss = tf.reduce_mean(outputs[-1])
        for gradient in tape.gradient(loss, values_of(each)):
            assert np.isfinite(gradient).all()
    np.testing.assert_allclose(outputs[1], outputs[0], atol=4 * EPS[compute_dtype] * np.abs(outputs[0]).max())

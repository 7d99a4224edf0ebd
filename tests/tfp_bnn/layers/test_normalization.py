"""Bayesian normalizations against their deterministic twins; draws and KL are those of the conformance suite."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tfp_bnn import layers as ours
from tfp_bnn.core.noise import NoNoise, noise_scope

from .conformance.reference import randomize

INPUTS = np.random.default_rng(0).normal(2.0, 3.0, size=(2, 3, 4, 6)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("LayerNormalization", {}),
        ("LayerNormalization", {"axis": 1, "center": False}),
        ("LayerNormalization", {"axis": [1, -1]}),
        ("GroupNormalization", {"groups": 3}),
        ("GroupNormalization", {"groups": 2, "axis": 2, "epsilon": 0.1}),
        ("GroupNormalization", {"groups": -1, "center": False}),
        ("FilterResponseNormalization", {}),
        ("FilterResponseNormalization", {"axis": 1, "threshold": False, "epsilon": 0.1}),
    ],
)
def test_without_noise_it_is_the_deterministic_layer(name, arguments):
    layer = getattr(ours, f"{name}Reparameterization")(**arguments)
    twin = getattr(ours, name, None) or getattr(keras.layers, name)
    twin = twin(**arguments)
    layer.build(INPUTS.shape)
    twin.build(INPUTS.shape)
    randomize(layer)
    for weight in twin.weights:
        weight.assign(getattr(layer, weight.name))
    with noise_scope({id(layer): NoNoise()}):
        np.testing.assert_allclose(layer(INPUTS, training=True), twin(INPUTS), atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_filter_response_normalization_is_that_of_the_paper(dtype):
    layer = ours.FilterResponseNormalization(tau_initializer=keras.initializers.Constant(-0.5), dtype=dtype)
    outputs = np.asarray(layer(INPUTS - 2.0))
    x = INPUTS.astype(np.float64) - 2.0
    normalized = x / np.sqrt((x**2).mean(axis=(1, 2), keepdims=True) + 1e-6)
    np.testing.assert_allclose(outputs, np.maximum(normalized, -0.5), atol=1e-5)
    assert (outputs == -0.5).any()
    # The examples of a batch do not depend on one another.
    np.testing.assert_allclose(layer(INPUTS[:1] - 2.0), outputs[:1], atol=1e-6)


@pytest.mark.parametrize(("axis", "shape"), [(-1, (None, 1, None, 4)), (-1, (None, 1, 2, 4)), (1, (None, 1, 1, 4))])
def test_filter_response_normalization_needs_one_axis_of_several_positions(axis, shape):
    layer = ours.FilterResponseNormalization(axis=axis)
    layer.build(shape)
    assert layer.gamma.shape == (shape[axis],)


def test_filter_response_normalization_survives_its_config():
    layer = ours.FilterResponseNormalization(axis=1, epsilon=0.1, threshold=False, beta_regularizer="l2", name="mine")
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer), safe_mode=True)
    assert copy.get_config() == layer.get_config()
    assert copy.name == "mine"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ours.LayerNormalizationReparameterization(scale=False), "scale=False"),
        (lambda: ours.GroupNormalizationReparameterization(scale=False), "scale=False"),
        (lambda: ours.LayerNormalizationReparameterization(rms_scaling=True), "rms_scaling=True"),
        (
            lambda: ours.LayerNormalizationReparameterization(center=False, beta_posterior="mean_field_normal"),
            "with center=False",
        ),
        (lambda: ours.FilterResponseNormalization(epsilon=0.0), "`epsilon` of `FilterResponseNormalization`"),
        (lambda: ours.FilterResponseNormalization().build((None, 4)), r"rank 3 or more, but got \(None, 4\)"),
        (
            lambda: ours.FilterResponseNormalization().build((None, 1, 1, 4)),
            r"more than one position, but got \(None, 1, 1, 4\).* its sign. Put the layer before the last pooling",
        ),
        (
            lambda: ours.FilterResponseNormalization(axis=-2).build((None, 4, 1)),
            "with axis=-2 .* more than one position",
        ),
        (lambda: ours.FilterResponseNormalization().build((None, 4, None)), "number of channels"),
        (lambda: ours.FilterResponseNormalization(axis=0).build((None, 4, 2)), "axis=0"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()

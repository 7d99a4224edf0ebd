"""The Bayesian GRU: against its Keras twin, and under known noise. What it shares with the LSTM is tested there."""

from __future__ import annotations

import inspect
import re

import keras
import numpy as np
import pytest
import scipy.special

from tfp_bnn.core.noise import NoNoise, noise_scope
from tfp_bnn.layers import GRUFlipout

from .conformance.reference import randomize

UNITS, STEPS, FEATURES = 3, 5, 2
BAYESIAN_BIASES = {"bias_posterior": "mean_field_normal", "recurrent_bias_posterior": "mean_field_normal"}
VARIANTS = {
    "default": {},
    "reset_before": {"reset_after": False},
    "sequences_and_state": {"return_sequences": True, "return_state": True},
    "backwards": {"return_sequences": True, "go_backwards": True},
    "unrolled": {"return_sequences": True, "unroll": True},
    "no_bias": {"use_bias": False},
    "bayesian_biases": BAYESIAN_BIASES,
    "activations": {"activation": "relu", "recurrent_activation": "hard_sigmoid"},
}


def inputs_of(batch=4):
    return np.random.default_rng(1).normal(size=(batch, STEPS, FEATURES)).astype(np.float32)


def make(**kwargs):
    layer = GRUFlipout(UNITS, **kwargs)
    layer.build((None, STEPS, FEATURES))
    return layer, randomize(layer)


def twin_of(layer):
    config = {key: value for key, value in layer.get_config().items() if key in keras.layers.GRU(1).get_config()}
    twin = keras.layers.GRU.from_config({**config, "seed": None})
    twin.build((None, STEPS, FEATURES))
    bias = [layer.bias] if layer.recurrent_bias is None else [np.stack([layer.bias, layer.recurrent_bias])]
    twin.set_weights([np.asarray(w) for w in (layer.kernel, layer.recurrent_kernel, *bias) if w is not None])
    return twin


@pytest.mark.parametrize("masked", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_without_noise_it_is_the_keras_twin(variant, masked):
    layer, _ = make(**VARIANTS[variant])
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 1, 0, 1, 1], [1, 0, 0, 0, 1]], bool) if masked else None
    expected = keras.tree.flatten(twin_of(layer)(inputs_of(), mask=mask))
    for training in (False, True):
        with noise_scope({id(layer): NoNoise()}):
            outputs = keras.tree.flatten(layer(inputs_of(), mask=mask, training=training))
        assert len(outputs) == len(expected)
        for ours, theirs in zip(outputs, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_a_reset_gate_before_the_product_uses_the_same_draw_of_the_kernel(training, injected_noise):
    layer, parameters = make(reset_after=False, bias_posterior="mean_field_normal")
    with noise_scope({id(layer): injected_noise}):
        outputs = layer(inputs_of(), training=training)
    drawn = injected_noise.drawn
    for n, example in enumerate(inputs_of().astype(np.float64)):
        weights = {}
        for name, p in parameters.items():
            step = p["scale"] * drawn[name]
            if training:
                of_kernel = "recurrent_kernel_" if name == "recurrent_kernel" else ""
                step = step * drawn[f"{of_kernel}output_signs"][n].ravel()
                if name != "bias":
                    step = step * drawn[f"{of_kernel}input_signs"][n].ravel()[:, None]
            weights[name] = p["loc"] + step
        h = np.zeros(UNITS)
        for x in example @ weights["kernel"] + weights["bias"]:
            of_update, of_reset, of_candidate = np.split(x, 3)
            kernels = np.split(weights["recurrent_kernel"], 3, axis=1)
            z, r = scipy.special.expit(of_update + h @ kernels[0]), scipy.special.expit(of_reset + h @ kernels[1])
            h = z * h + (1 - z) * np.tanh(of_candidate + (r * h) @ kernels[2])
        np.testing.assert_allclose(outputs[n], h, atol=1e-5)


def test_arguments_are_those_of_the_twin():
    of_twin = inspect.signature(keras.layers.GRU.__init__).parameters
    ours = inspect.signature(GRUFlipout.__init__).parameters
    assert set(of_twin) - set(ours) == {"use_cudnn"}
    for name in (set(of_twin) & set(ours)) - {"self", "kwargs"}:
        assert ours[name].default == of_twin[name].default, name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dropout": 0.5}, "Got dropout=0.5, but this layer has a distribution over its weights instead."),
        ({"reset_after": False, **BAYESIAN_BIASES}, "Got recurrent_bias_posterior="),
        ({"reset_after": False, **BAYESIAN_BIASES}, "with reset_after=False. Remove one of them."),
        ({"use_bias": False, "recurrent_bias_posterior": "mean_field_normal"}, "with use_bias=False"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        GRUFlipout(UNITS, **arguments)


def test_an_initial_state_of_another_shape_is_refused():
    layer, _ = make(name="gru")
    with pytest.raises(ValueError, match=r"state of the layer 'gru' must be a tensor h of shape \(batch, 3\), but got"):
        layer(inputs_of(), initial_state=[np.zeros((4, UNITS + 1), np.float32)])

"""Bayesian multi-head attention against its Keras twin; draws, KL and files are those of the conformance suite."""

from __future__ import annotations

import inspect

import keras
import numpy as np
import pytest

import tfp_bnn
from tfp_bnn.core.noise import NoNoise, noise_scope
from tfp_bnn.layers import EmbeddingReparameterization, MultiHeadAttentionFlipout
from tfp_bnn.transfer.twins import assign_means

from .conformance.reference import randomize


def array_of(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


QUERY, VALUE, KEY = array_of(2, 4, 5), array_of(2, 3, 6, seed=1), array_of(2, 3, 7, seed=2)
PAIRS = np.random.default_rng(3).random((2, 4, 3)) < 0.7
PAIRS[..., 0] = True

VARIANTS = {
    "default": ({}, {}),
    "sizes": ({"value_dim": 4, "output_shape": (2, 3), "use_bias": False}, {}),
    "gate": ({"use_gate": True}, {}),
    "scores": ({}, {"return_attention_scores": True}),
    "pairs": ({}, {"attention_mask": PAIRS}),
    "causal": ({}, {"use_causal_mask": True}),
    "causal_pairs": ({}, {"use_causal_mask": True, "attention_mask": PAIRS, "return_attention_scores": True}),
    "window": ({"sliding_window": 2}, {}),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_without_noise_it_is_the_keras_twin(variant, training):
    arguments, of_call = VARIANTS[variant]
    layer, twin = (cls(2, 3, **arguments) for cls in (MultiHeadAttentionFlipout, keras.layers.MultiHeadAttention))
    for each in (layer, twin):
        each.build(QUERY.shape, VALUE.shape, KEY.shape)
    randomize(layer)
    assign_means(twin, layer)
    with noise_scope({id(layer): NoNoise()}):
        outputs = keras.tree.flatten(layer(QUERY, VALUE, KEY, training=training, **of_call))
    expected = keras.tree.flatten(twin(QUERY, VALUE, KEY, **of_call))
    assert len(outputs) == len(expected)
    for ours, theirs in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_attention_over_one_of_two_axes_is_that_of_the_twin():
    x = array_of(2, 3, 4, 5)
    layer, twin = (cls(2, 3, attention_axes=2) for cls in (MultiHeadAttentionFlipout, keras.layers.MultiHeadAttention))
    layer.build(x.shape)
    twin.build(x.shape, x.shape)
    randomize(layer)
    assign_means(twin, layer)
    with noise_scope({id(layer): NoNoise()}):
        np.testing.assert_allclose(layer(x), twin(x, x), atol=1e-5)


def test_the_mask_of_an_embedding_hides_the_padding_and_is_passed_on():
    ids = keras.Input((4,), dtype="int32")
    h = EmbeddingReparameterization(9, 5, mask_zero=True)(ids)
    h = MultiHeadAttentionFlipout(2, 3, name="attention")(h)
    model = tfp_bnn.VariationalModel(ids, keras.layers.GlobalAveragePooling1D()(h), likelihood="normal", seed=0)
    # The vector of the padding has no influence, neither as a key nor in the mean.
    padded = np.array([[1, 2, 3, 0]])
    before = np.asarray(model.call_with_noise(padded, NoNoise()))
    table = np.asarray(model.layers[1].embeddings).copy()
    table[0] += 10.0
    model.layers[1].embeddings.assign(table)
    np.testing.assert_allclose(model.call_with_noise(padded, NoNoise()), before, atol=1e-6)


def test_weights_start_like_those_of_the_twin():
    # One seed gives the kernels of each projection the same numbers in both.
    initial = {"kernel_initializer": keras.initializers.GlorotUniform(seed=3)}
    layer, twin = (cls(2, 3, **initial) for cls in (MultiHeadAttentionFlipout, keras.layers.MultiHeadAttention))
    layer.build(QUERY.shape)
    twin.build(QUERY.shape, QUERY.shape)
    for name in ("query", "key", "value", "output"):
        np.testing.assert_allclose(getattr(layer, f"{name}_kernel"), getattr(twin, f"{name}_dense").kernel, rtol=1e-6)


def test_arguments_are_those_of_the_twin():
    of_twin = inspect.signature(keras.layers.MultiHeadAttention.__init__).parameters
    ours = inspect.signature(MultiHeadAttentionFlipout.__init__).parameters
    assert set(of_twin) <= set(ours)
    for name in set(of_twin) - {"self", "kwargs"}:
        assert ours[name].default == of_twin[name].default, name


def test_dropout_drops_scores_in_training_only():
    layer = MultiHeadAttentionFlipout(2, 3, dropout=0.5)
    layer.build(QUERY.shape)
    with noise_scope({id(layer): NoNoise()}):
        plain, again, training = (np.asarray(layer(QUERY, training=flag)) for flag in (False, False, True))
    np.testing.assert_array_equal(plain, again)
    assert np.abs(training - plain).max() > 1e-3


def test_inputs_that_do_not_fit_are_refused_with_their_shapes():
    layer = MultiHeadAttentionFlipout(2, 3, name="mine")
    layer.build(QUERY.shape, VALUE.shape, KEY.shape)
    for wrong in ((QUERY, VALUE, KEY[:, :2]), (QUERY, VALUE[..., 0], KEY), (VALUE, VALUE, KEY)):
        with pytest.raises(ValueError, match=r"incompatible with the layer 'mine'(.|\n)*key \(2, "):
            layer(*wrong)
    with pytest.raises(ValueError, match=r"Got gate_posterior=.* with use_gate=False"):
        MultiHeadAttentionFlipout(2, 3, gate_posterior="mean_field_normal")

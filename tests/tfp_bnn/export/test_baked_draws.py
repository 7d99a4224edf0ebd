"""Draws as constants: the same functions, with nothing random in their graphs."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_bnn
from tfp_bnn.core.draws import FiniteDraws
from tfp_bnn.export.baked_draws import baked_draws
from tfp_bnn.export.input_signature import input_specs
from tfp_bnn.layers import DenseFlipout, DenseReparameterization, MCDropout

X = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)


def network(**kwargs):
    x = keras.Input((4,))
    y = MCDropout(0.5)(DenseFlipout(6, activation="tanh", bias_posterior="mean_field_normal")(x))
    return tfp_bnn.VariationalModel(x, keras.layers.Dense(2)(y), seed=0, **kwargs)


def point_network():
    x = keras.Input((4,))
    layer = DenseReparameterization(2, kernel_posterior="delta")
    model = tfp_bnn.VariationalModel(x, layer(x), likelihood="normal", seed=0)
    model.num_examples = len(X)
    return model


def ensemble():
    return tfp_bnn.inference.ensemble([network(name="a"), network(name="b")], draws_per_member=2)


def laplace():
    return tfp_bnn.inference.laplace(point_network(), X, X[:, :2], prior_precision=1.0)


def mean_field():
    prior = {"name": "normal", "scale": 1.0}
    return tfp_bnn.inference.mean_field(point_network(), X, X[:, :2], num_steps=1, plain_prior=prior, verbose=0)


@pytest.mark.parametrize(
    "make", [network, point_network, ensemble, laplace, pytest.param(mean_field, marks=pytest.mark.slow)]
)
def test_a_draw_is_the_same_function_without_random_operations(make):
    model = make()
    draws, specs = model.draws(3), input_specs(model)
    baked = baked_draws(draws, 3, specs)
    assert baked.num_draws == min(3, draws.num_draws or 3)
    for index in range(baked.num_draws):
        assert baked.likelihood_weights(index) == draws.likelihood_weights(index)
        traced = tf.function(baked(index), [specs], autograph=False).get_concrete_function()
        np.testing.assert_allclose(traced(tf.constant(X)), draws(index)(tf.constant(X)), rtol=1e-6, atol=1e-6)
        graph = traced.graph.as_graph_def()
        nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
        assert not {node.op for node in nodes if node.op.startswith("StatelessRandom")}
        # Nothing but variables is read from outside.
        assert {outside.dtype for outside, _ in traced.graph.captures} <= {tf.resource}


# A draw takes 32 bytes.
@pytest.mark.parametrize(
    ("sampled", "most_bytes", "advice"),
    [
        (False, 64, r"Use num_samples=2 or fewer, or format='tf_saved_model', which has no such limit\."),
        (False, 31, r"Use format='tf_saved_model', which has no such limit\."),
        (True, 64, r"Use num_samples=2 or fewer\."),
        (True, 31, r"Use a smaller network\."),
    ],
)
def test_draws_that_are_too_large_are_refused_with_what_can_be_done(sampled, most_bytes, advice, monkeypatch):
    """One draw can be too large already, and the states of a Markov chain have no SavedModel."""
    monkeypatch.setattr("tfp_bnn.export.baked_draws.MOST_BYTES", most_bytes)
    kernel = np.arange(8, dtype=np.float32).reshape(4, 2)
    draws = FiniteDraws([lambda x: x @ kernel] * 3, sampled=sampled)
    with pytest.raises(ValueError, match=f"3 draws take .* are written. {advice}$"):
        baked_draws(draws, 5, tf.TensorSpec((None, 4), tf.float32, name="x"))


def test_weights_without_a_distribution_are_shared_by_the_draws():
    model = network()
    baked = baked_draws(model.draws(0), 2, input_specs(model))
    both = tf.function(lambda x: [baked(0)(x), baked(1)(x)], [input_specs(model)], autograph=False)
    assert len(both.get_concrete_function().captured_inputs) == len(model.layers[-1].variables)

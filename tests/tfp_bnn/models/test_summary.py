"""What `model.summary()` says about the Bayesian weights."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest

import tfp_bnn
from tfp_bnn.layers import Convolution2DFlipout, DenseFlipout, DenseReparameterization
from tfp_bnn.models.summary import print_bayesian_summary
from tfp_bnn.models.training_state import training_state
from tfp_bnn.models.weight_record import weight_distributions


@pytest.fixture(autouse=True)
def _global_seed():
    keras.utils.set_random_seed(0)


def partly_bayesian():
    """A deterministic convolution, a deterministic dense layer and three Bayesian weights."""
    x = keras.Input((6, 6, 1))
    h = keras.layers.Conv2D(2, 3, activation="relu", name="features")(x)
    h = keras.layers.Flatten(name="flatten")(h)
    h = DenseFlipout(5, kernel_prior={"name": "normal", "empirical_bayes": True}, name="hidden")(h)
    h = keras.layers.Dense(4, name="middle")(h)
    top = DenseReparameterization(
        3, kernel_prior="laplace", kernel_posterior="radial", bias_posterior="mean_field_normal", name="top"
    )
    return tfp_bnn.VariationalModel(x, top(h), seed=0)


def summary_of(model, **kwargs):
    lines = []
    model.summary(print_fn=lambda text, **_: lines.append(text), **kwargs)
    return "\n".join(lines)


def row(text, *cells):
    """The last cell of the row that starts with these."""
    pattern = "[│ ]+".join(map(re.escape, cells))
    (line,) = [line for line in text.splitlines() if re.match(rf"[│ ]+{pattern}", line)]
    return line.rstrip("│ ").rpartition(" ")[2]


def test_it_tells_which_layers_are_bayesian_their_weights_and_kl():
    model = partly_bayesian()
    text = summary_of(model)
    assert "Total params" in text
    weights = model.variational_layers[0].variational_weights
    expected = float(weights["kernel"].kl(None))
    found = row(text, "hidden", "kernel", "(32, 5)", "mean_field_normal", "normal, learned scale 1")
    assert found == f"{expected:.1f}"
    assert row(text, "top", "kernel", "(4, 3)", "radial", "laplace").startswith("~")
    assert not row(text, "top", "bias", "(3,)", "mean_field_normal", "normal").startswith("~")
    assert re.search(r"2 Bayesian layers, 175 Bayesian weights, KL [\d.]+ nats", text)
    assert "Deterministic layers with weights: features, middle." in text


def test_the_kls_add_up():
    text = summary_of(partly_bayesian())
    parts = [row(text, "hidden", "kernel"), row(text, "top", "kernel"), row(text, "top", "bias")]
    total = float(re.search(r"KL ([\d.]+) nats", text)[1])
    np.testing.assert_allclose(sum(float(part.lstrip("~")) for part in parts), total, atol=0.2)


def test_it_changes_nothing_and_says_the_same_twice():
    model = partly_bayesian()
    model.compile("adam")
    before = training_state(model)
    noise = [np.asarray(v) for layer in model.stochastic_layers for v in layer._noise_streams.variables.values()]
    assert summary_of(model) == summary_of(model)
    for name, value in training_state(model).items():
        np.testing.assert_array_equal(value, before[name])
    after = [np.asarray(v) for layer in model.stochastic_layers for v in layer._noise_streams.variables.values()]
    np.testing.assert_array_equal(noise, after)


def test_a_shared_prior_has_a_row_of_its_own():
    prior = {"name": "normal", "hyperprior": "log_normal", "shared": "all"}
    layers = [DenseFlipout(4, kernel_prior=prior, name="first"), DenseFlipout(2, kernel_prior=prior, name="second")]
    text = summary_of(tfp_bnn.VariationalSequential([keras.Input((3,)), *layers]))
    assert row(text, "first", "kernel", "(3, 4)", "mean_field_normal", "normal, shared as 'all'").startswith("~")
    assert row(text, "prior/all").startswith("~")


def test_it_prints_without_a_function_and_before_the_model_is_built(capsys):
    model = tfp_bnn.VariationalSequential([DenseFlipout(2, name="only")])
    model.summary()
    assert "Bayesian weights" not in capsys.readouterr().out
    model(np.zeros((1, 3), np.float32))
    model.summary()
    assert row(capsys.readouterr().out, "only", "kernel", "(3, 2)") == f"{float(model.kl()):.1f}"


def test_in_a_notebook_the_table_still_goes_to_the_function(monkeypatch):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    model = tfp_bnn.VariationalSequential([keras.Input((3,)), DenseFlipout(2, name="only")])
    lines = []
    print_bayesian_summary(model, lines.append)
    assert row("\n".join(lines), "only", "kernel", "(3, 2)")


def test_a_model_without_bayesian_layers_says_so():
    text = summary_of(tfp_bnn.VariationalSequential([keras.Input((3,)), keras.layers.Dense(2, name="plain")]))
    assert "0 Bayesian layers, 0 Bayesian weights, KL 0.0 nats." in text
    assert "Deterministic layers with weights: plain." in text


@pytest.mark.slow
def test_a_network_may_be_partly_bayesian():
    model = partly_bayesian()
    model.compile(keras.optimizers.Adam(0.01), run_eagerly=True)
    x = np.random.default_rng(0).normal(size=(16, 6, 6, 1)).astype(np.float32)
    before = weight_distributions(model)
    model.fit(x, np.arange(16) % 3, verbose=0)
    after = weight_distributions(model)
    assert list(model.kl_by_layer()) == ["hidden", "top"]
    assert all((before[name] != after[name]).any() for name in before)


def test_layers_of_nested_models_are_listed():
    inner = keras.Sequential([keras.Input((6, 6, 1)), Convolution2DFlipout(2, 3, name="conv"), keras.layers.Flatten()])
    x = keras.Input((6, 6, 1))
    text = summary_of(tfp_bnn.VariationalModel(x, DenseFlipout(2, name="top")(inner(x))))
    assert row(text, "conv", "kernel", "(3, 3, 1, 2)")
    assert "2 Bayesian layers, 82 Bayesian weights" in text


def test_weights_of_nested_models_and_wrapped_layers_are_not_left_out():
    backbone = keras.Sequential([keras.Input((4, 3)), keras.layers.Dense(2, name="inner")], name="backbone")
    wrapped = keras.layers.TimeDistributed(keras.layers.Dense(2, name="each"))
    layers = [keras.Input((4, 3)), backbone, wrapped, keras.layers.Flatten(), DenseFlipout(1, name="head")]
    model = tfp_bnn.VariationalSequential(layers, seed=0)
    assert "Deterministic layers with weights: inner, each." in summary_of(model)

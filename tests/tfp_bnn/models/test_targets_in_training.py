"""Missing targets, several labels, class weights and final activations, where Keras would decide by shape."""

from __future__ import annotations

import re
import warnings
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_bnn
from tfp_bnn.layers import DenseFlipout, DenseReparameterization

RNG = np.random.default_rng(0)
N = 64
X = RNG.normal(size=(N, 4)).astype(np.float32)
NUMBERS = X[:, :2].copy()
GONE = np.zeros((N, 2), bool)
GONE[::2, 1] = True
LABELS = (X[:, :3] > 0).astype(np.float32)


def network(channels, likelihood, activation=None, **kwargs):
    """A network whose weights are known to six digits and stay what they are."""
    posterior = {"name": "mean_field_normal", "initial_scale": 1e-6}
    layer = DenseReparameterization(
        channels,
        kernel_posterior=posterior,
        kernel_initializer=keras.initializers.GlorotUniform(seed=1),
        activation=activation,
    )
    model = tfp_bnn.VariationalSequential([keras.Input((4,)), layer], likelihood=likelihood, seed=0)
    model.compile(keras.optimizers.SGD(0.0), **{"run_eagerly": True, **kwargs})
    model.num_examples = N
    return model


# === Missing targets ===


@pytest.mark.parametrize(("missing", "compiled"), [("nan", True), (-5.0, False)])
def test_missing_numbers_are_left_out_of_loss_and_metrics(missing, compiled):
    y = np.where(GONE, np.float32(missing), NUMBERS)
    model = network(2, {"name": "normal", "scale": 1.0, "missing": missing}, metrics=["mae"], run_eagerly=not compiled)
    history = model.fit(X, y, batch_size=24, verbose=0).history
    means = model.plug_in_predictive(X).mean()
    errors = np.where(GONE, 0.0, means - NUMBERS)
    nll = (np.where(GONE, 0.0, 0.5 * np.log(2 * np.pi)) + errors**2 / 2).sum() / N
    assert history["nll"][0] == pytest.approx(nll, rel=1e-4)
    assert history["mae"][0] == pytest.approx(np.abs(errors).sum() / (~GONE).sum(), rel=1e-4)
    tfp_bnn.calibrate(model, X, y, num_samples=2)


def test_missing_labels_are_left_out_of_loss_and_metrics():
    y = np.where(GONE, -1, NUMBERS > 0)
    model = network(2, {"name": "bernoulli", "missing": -1}, metrics=["accuracy"])
    logs = model.evaluate(X, y, return_dict=True, verbose=0)
    correct = (model.plug_in_predictive(X).mean() > 0.5) == (NUMBERS > 0)
    assert logs["accuracy"] == pytest.approx(correct[~GONE].mean(), rel=1e-5)


def test_a_weight_of_0_for_each_missing_target_does_the_same():
    found = network(2, {"name": "normal", "missing": "nan"}).evaluate(
        X, np.where(GONE, np.nan, NUMBERS), return_dict=True, verbose=0
    )
    weights = (~GONE).astype(np.float32)
    expected = network(2, "normal").evaluate(X, NUMBERS, sample_weight=weights, return_dict=True, verbose=0)
    assert found["nll"] == pytest.approx(expected["nll"], rel=1e-4)


def test_without_a_marker_nan_stays_an_error():
    with pytest.raises(ValueError, match="`y` has 32 values that are NaN or infinite"):
        network(2, "normal").fit(X, np.where(GONE, np.nan, NUMBERS), verbose=0)
    infinite = np.where(GONE, np.inf, NUMBERS)
    with pytest.raises(ValueError, match="`y` has 32 values that are NaN or infinite"):
        network(2, {"name": "normal", "missing": "nan"}).fit(X, infinite, verbose=0)


@pytest.mark.parametrize("compiled", [True, False])
def test_a_batch_of_which_no_target_is_left_is_refused(compiled):
    y = NUMBERS.copy()
    y[32:] = np.nan
    model = network(2, {"name": "normal", "missing": "nan"}, run_eagerly=not compiled)
    with pytest.raises(ValueError, match="No target is left: all targets of a batch are missing"):
        model.fit(X, y, batch_size=32, shuffle=False, verbose=0)
    with pytest.raises(ValueError, match=r"No target is left: all targets of `y`, of shape \(64, 2\)"):
        model.fit(X, np.full((N, 2), np.nan), verbose=0)


@pytest.mark.parametrize("rows", [3, 0])
def test_one_replica_of_several_may_have_no_target(rows, monkeypatch):
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: SimpleNamespace(num_replicas_in_sync=2))
    likelihood = tfp_bnn.likelihoods.Categorical(missing=-1)
    terms = likelihood.log_likelihood(np.full(rows, -1), tf.zeros((rows, 2)), {})
    np.testing.assert_array_equal(terms, np.zeros(rows))


def test_metrics_that_would_count_missing_targets_are_refused():
    likelihood = {"name": "bernoulli", "missing": -1}
    y = np.where(GONE[:, 1:], -1, LABELS[:, :1])
    with pytest.raises(ValueError, match="cannot skip missing targets"):
        network(1, likelihood, metrics=[keras.metrics.AUC()]).fit(X, y, verbose=0)
    model = network(1, likelihood, weighted_metrics=[keras.metrics.AUC(name="auc")])
    logs = model.evaluate(X, y, return_dict=True, verbose=0)
    reference = keras.metrics.AUC()
    there = ~GONE[:, 1]
    reference.update_state(LABELS[there, 0], model.plug_in_predictive(X).mean()[there, 0])
    assert logs["auc"] == pytest.approx(float(reference.result()), rel=1e-5)


def test_a_saved_model_knows_what_is_missing(tmp_path):
    model = network(2, {"name": "normal", "missing": "nan"})
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.likelihood == model.likelihood
    assert loaded.likelihood.missing == "nan"


# === Several labels ===


@pytest.mark.parametrize(("name", "compiled"), [("accuracy", True), ("acc", False)])
def test_the_accuracy_of_several_labels_is_that_of_the_labels(name, compiled):
    model = network(3, "bernoulli", metrics=[name, "binary_accuracy"], run_eagerly=not compiled)
    logs = model.fit(X, LABELS, verbose=0).history
    correct = (model.plug_in_predictive(X).mean() > 0.5) == LABELS
    assert logs[name][0] == logs["binary_accuracy"][0] == pytest.approx(correct.mean(), rel=1e-5)


@pytest.mark.slow
def test_a_loaded_model_measures_the_same_accuracy(tmp_path):
    model = network(3, "bernoulli", metrics=["accuracy"], run_eagerly=False)
    expected = model.fit(X, LABELS, verbose=0).history["accuracy"][0]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.evaluate(X, LABELS, return_dict=True, verbose=0)["accuracy"] == pytest.approx(expected)


# === Class weights ===


@pytest.mark.parametrize(
    ("channels", "likelihood", "y", "message"),
    [
        (3, "bernoulli", LABELS, "each example has 3 labels"),
        (1, "normal", LABELS[:, :1], "are numbers"),
    ],
)
def test_class_weights_are_refused_where_there_are_no_classes(channels, likelihood, y, message):
    model = network(channels, likelihood)
    for train in (model.fit, model.train_on_batch):
        with pytest.raises(ValueError, match=message):
            train(X, y, class_weight={0: 1.0, 1: 10.0})
    with pytest.raises(ValueError, match=message):
        model.train_on_batch(X, y, None, {0: 1.0, 1: 10.0})


def test_class_weights_of_positions_are_refused():
    x = keras.Input((5, 3))
    model = tfp_bnn.VariationalModel(x, DenseFlipout(2)(x))
    model.compile("adam")
    with pytest.raises(ValueError, match=re.escape("the outputs have the shape (None, 5, 2), with a class at each")):
        model.fit(np.zeros((4, 5, 3)), np.zeros((4, 5)), class_weight={0: 2.0}, verbose=0)


@pytest.mark.parametrize(("channels", "likelihood"), [(1, "bernoulli"), (2, "categorical")])
def test_class_weights_of_one_class_are_those_of_samples(channels, likelihood):
    y = LABELS[:, 0]
    weighted = network(channels, likelihood).fit(X, y, class_weight={0: 1.0, 1: 3.0}, verbose=0).history
    expected = network(channels, likelihood).fit(X, y, sample_weight=np.where(y == 1, 3.0, 1.0), verbose=0).history
    assert weighted["nll"] == pytest.approx(expected["nll"], rel=1e-5)


# === Final activations ===


@pytest.mark.parametrize(
    ("likelihood", "activation"), [("categorical", "softmax"), ("bernoulli", "sigmoid"), ("categorical", "sigmoid")]
)
def test_probabilities_in_place_of_logits_are_warned_of(likelihood, activation):
    with pytest.warns(UserWarning, match=f"ends in the {activation} of"):
        network(3, likelihood, activation=activation)
    x = keras.Input((4,))
    inner = keras.Sequential([keras.Input((4,)), DenseFlipout(3), keras.layers.Activation(activation)])
    with pytest.warns(UserWarning, match=f"ends in the {activation} of"):
        tfp_bnn.VariationalModel(x, inner(x), likelihood=likelihood)


def test_other_activations_are_not_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network(3, "normal", activation="sigmoid")
        network(3, "categorical", activation="tanh")

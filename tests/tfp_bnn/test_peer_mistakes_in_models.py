"""Mistakes of other libraries for Bayesian networks, which must not be made here: predictions, noise, Keras."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

import tfp_bnn
from tfp_bnn.layers import (
    Convolution2DFlipout,
    Convolution2DLocalReparameterization,
    Convolution2DReparameterization,
    DenseFlipout,
    DenseLocalReparameterization,
    DenseReparameterization,
)
from tfp_bnn.likelihoods import LIKELIHOODS
from tfp_bnn.metrics import nll
from tfp_bnn.predictive import PosteriorPredictive

from .peers import STANDARD, N, X, Y, closed_form_kl, stack, train

TERMS = {"loss", "nll", "kl", "elbo", "beta", "accuracy"}
ESTIMATORS = {
    "flipout": (Convolution2DFlipout, DenseFlipout),
    "reparameterization": (Convolution2DReparameterization, DenseReparameterization),
    "local reparameterization": (Convolution2DLocalReparameterization, DenseLocalReparameterization),
}


@pytest.fixture(autouse=True)
def _global_seed():
    keras.utils.set_random_seed(0)


@pytest.fixture
def rng():
    return np.random.default_rng(1)


# === Predictions ===


def test_held_out_nats_are_taken_at_the_label_not_averaged_over_all_classes(rng):
    logits = (3 * rng.normal(size=(5, N, 3)) + 2 * np.eye(3)[Y]).astype(np.float32)
    predictive = PosteriorPredictive(LIKELIHOODS.get("categorical"), {}, logits, {}, logits.shape)
    probabilities = scipy.special.softmax(logits.astype(np.float64), axis=-1).mean(axis=0)
    nats = -np.log(probabilities[np.arange(N), Y])
    np.testing.assert_allclose(-predictive.log_prob(Y), nats, rtol=1e-4, atol=1e-5)
    assert nll(Y, predictive.mean()) == pytest.approx(nats.mean(), rel=1e-5)
    over_all_classes = [-np.log(probabilities).mean(), -np.sum(np.eye(3)[Y] * np.log(probabilities)) / (3 * N)]
    assert min(abs(wrong - nats.mean()) for wrong in over_all_classes) > 0.1


def test_held_out_nats_of_an_evaluation_are_taken_at_the_label():
    layer = DenseReparameterization(3, kernel_posterior="delta")
    model = stack(layer)
    log_probabilities = scipy.special.log_softmax(X.astype(np.float64) @ np.asarray(layer.kernel), axis=-1)
    expected = -log_probabilities[np.arange(N), Y].mean()
    assert train(model)["nll"] == pytest.approx(expected, rel=1e-5)
    assert model.evaluate(X, Y, return_dict=True, verbose=0)["nll"] == pytest.approx(expected, rel=1e-5)


def test_probabilities_are_averaged_not_logits():
    model = stack(
        DenseFlipout(3, **{**STANDARD, "kernel_posterior": {"name": "mean_field_normal", "initial_scale": 5}})
    )
    kept = model.posterior_predictive(X, num_samples=20)
    logits = np.log(kept.samples.astype(np.float64))
    averaged = scipy.special.softmax(logits, axis=-1).mean(axis=0)
    assert np.abs(averaged - scipy.special.softmax(logits.mean(axis=0), axis=-1)).max() > 0.1
    np.testing.assert_allclose(kept.mean(), averaged, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(kept.distribution().prob(Y), averaged[np.arange(N), Y], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.exp(kept.log_prob(Y)), averaged[np.arange(N), Y], rtol=1e-4, atol=1e-6)
    streamed = model.posterior_predictive(X, num_samples=20, max_bytes=1)
    np.testing.assert_allclose(streamed.mean(), averaged, rtol=1e-4, atol=1e-6)


# === Noise ===


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_samples_of_a_list_do_not_share_their_noise(estimator, training):
    _, dense = ESTIMATORS[estimator]
    model, alone = stack(dense(3)), dense(3)
    alone.build((None, 4))

    @tf.function(autograph=False)
    def samples():
        return [[sampled(X, training=training) for _ in range(2)] for sampled in (model, alone)]

    first, second = samples(), samples()
    for draws in zip(first, second, strict=True):
        for one, other in itertools.combinations([*draws[0], *draws[1]], 2):
            assert not np.array_equal(one, other)
    # Nor do the draws of the predictive, rows of which may be in different batches.
    predicted = model.posterior_predictive(X, num_samples=4, batch_size=5).samples
    for one, other in itertools.combinations(predicted, 2):
        assert not np.isclose(one, other).all(axis=-1).any()


@pytest.mark.slow
def test_a_resumed_run_does_not_replay_its_early_noise(tmp_path):
    def make():
        return stack(DenseFlipout(8), keras.layers.Dropout(0.5, seed=1), DenseFlipout(3))

    # One step an epoch, of rate 0: only the noise differs.
    whole = make().fit(X, Y, batch_size=N, epochs=4, shuffle=False, verbose=0).history["nll"]
    assert len(set(whole)) == 4
    keras.utils.set_random_seed(0)
    stopped = make()
    stopped.fit(X, Y, batch_size=N, epochs=2, shuffle=False, verbose=0)
    stopped.save(tmp_path / "model.keras")
    resumed = keras.models.load_model(tmp_path / "model.keras")
    rest = resumed.fit(X, Y, batch_size=N, epochs=2, shuffle=False, verbose=0).history["nll"]
    assert rest == pytest.approx(whole[2:], rel=1e-6)


def test_a_layer_of_a_plain_model_does_not_replay_its_early_noise(tmp_path):
    model = keras.Sequential([keras.Input((4,)), DenseFlipout(3)])
    early = [model(X, training=training).numpy() for training in (True, True, False, False)]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for training in (True, False):
        expected, found = (m(X, training=training).numpy() for m in (model, loaded))
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        assert not any(np.allclose(found, outputs) for outputs in early)


# === Keras ===


@pytest.mark.slow
def test_the_kl_can_be_read_after_fit_and_evaluate():
    layer = DenseFlipout(3)
    model = stack(layer, learning_rate=0.1, eagerly=False)
    before = float(model.kl())
    for run in (lambda: model.fit(X, Y, verbose=0), lambda: model.evaluate(X, Y, verbose=0)):
        run()
        kl = closed_form_kl(layer)
        assert [float(model.kl()), float(layer.kl())] == pytest.approx([kl, kl], rel=1e-5)
        assert {name: float(value) for name, value in model.kl_by_layer().items()} == pytest.approx({layer.name: kl})
    assert float(model.kl()) != before


def test_the_kl_of_a_plain_model_can_be_read_after_fit_and_evaluate():
    layer = DenseFlipout(3, kl_weight=1 / N)
    model = keras.Sequential([keras.Input((4,)), layer])
    model.compile("sgd", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for run in (lambda: model.fit(X, Y, verbose=0), lambda: model.evaluate(X, Y, verbose=0)):
        run()
        assert float(layer.kl()) == pytest.approx(closed_form_kl(layer), rel=1e-5)


class AddsALoss(keras.layers.Layer):
    """A layer of the user's, with a loss of its own."""

    def call(self, inputs):
        self.add_loss(keras.ops.mean(inputs**2))
        return inputs


def test_metrics_do_not_vanish_when_a_loss_is_added():
    layer = DenseReparameterization(3, kernel_posterior="delta", kernel_regularizer="l2", activity_regularizer="l2")
    model = stack(AddsALoss(), layer)
    w = np.asarray(layer.kernel, np.float64)
    logits = X @ w
    nats = -scipy.special.log_softmax(logits, axis=-1)[np.arange(N), Y].mean()
    kl = -scipy.stats.norm.logpdf(w).sum()
    added = np.mean(X**2) + 0.01 * np.sum(w**2) + 0.01 * np.sum(logits**2) / N
    terms = {"loss": nats + kl / N + added, "nll": nats, "kl": kl, "elbo": -nats - kl / N, "beta": 1.0}
    expected = {**terms, "accuracy": np.mean(logits.argmax(axis=-1) == Y)}
    for logs in (train(model), model.evaluate(X, Y, return_dict=True, verbose=0)):
        assert logs == pytest.approx(expected, rel=1e-5)


def test_metrics_do_not_vanish_when_a_loss_is_given_to_compile():
    # Keras would drop the terms of the ELBO; ours does not train then.
    model = stack(DenseFlipout(3))
    model.compile("sgd", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    for run in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match="The model was compiled with loss='sparse_categorical_crossentropy'"):
            run(X, Y, verbose=0)


def test_metrics_of_a_plain_model_do_not_vanish_when_the_kl_is_added():
    layer = DenseReparameterization(3, kernel_posterior="delta", kl_weight=1 / N)
    model = keras.Sequential([keras.Input((4,)), layer])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, name="cross_entropy")
    model.compile(keras.optimizers.SGD(0.0), loss=loss, metrics=["accuracy", loss], run_eagerly=True)
    logs = train(model)
    assert set(logs) == {"loss", "accuracy", "cross_entropy"}
    assert logs["loss"] == pytest.approx(logs["cross_entropy"] + float(layer.kl()) / N, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_layers_do_not_fail_under_mixed_precision(estimator, policy, rng):
    convolution, dense = ESTIMATORS[estimator]
    layers = [
        keras.Input((4, 4, 1)),
        convolution(2, 3, activation="relu", dtype=policy),
        keras.layers.Flatten(dtype=policy),
        dense(3, bias_posterior="mean_field_normal", dtype=policy),
    ]
    model = tfp_bnn.VariationalSequential(layers, seed=0)
    model.compile(keras.optimizers.SGD(0.1), metrics=["accuracy"], run_eagerly=True)
    images = rng.normal(size=(N, 4, 4, 1)).astype(np.float32)
    before = [
        weight.parameters() for layer in model.variational_layers for weight in layer.variational_weights.values()
    ]
    logs = model.fit(images, Y, epochs=2, verbose=0).history
    assert set(logs) == TERMS
    assert np.isfinite(list(logs.values())).all()
    after = [weight.parameters() for layer in model.variational_layers for weight in layer.variational_weights.values()]
    for old, new in zip(before, after, strict=True):
        for name in ("loc", "scale"):
            assert not np.array_equal(old[name], new[name])
    for training in (True, False):
        assert model(images, training=training).dtype == policy.removeprefix("mixed_")
    assert np.isfinite(model.posterior_predictive(images, num_samples=2).mean()).all()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_parameters_and_the_kl_stay_in_float32_under_mixed_precision(estimator, policy, randomize):
    _, dense = ESTIMATORS[estimator]
    layer = dense(3, bias_posterior="mean_field_normal", kl_weight=1.0, dtype=policy)
    layer.build((None, 4))
    randomize(layer)
    assert {variable.dtype for variable in layer.variables} == {"float32"}
    outputs = layer(X, training=True)
    assert outputs.dtype == policy.removeprefix("mixed_")
    # Within `call`, where Keras casts, as well as outside.
    (within,) = layer.losses
    for kl in (within, layer.kl()):
        assert kl.dtype == tf.float32
        assert float(kl) == pytest.approx(closed_form_kl(layer), rel=1e-6)

"""Mistakes that other libraries of Bayesian networks make, or once made: one test each, named after the mistake.

The list was gathered by reading the peers' own files and papers. The mistake of parameter counts typed by hand is
tested with the zoo, which states the counts.
"""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

import tfp_bnn
from tfp_bnn.core.noise import noise_scope
from tfp_bnn.layers import (
    Convolution2DFlipout,
    Convolution2DLocalReparameterization,
    Convolution2DReparameterization,
    Convolution2DTransposeFlipout,
    DenseFlipout,
    DenseLocalReparameterization,
    DenseReparameterization,
    DepthwiseConvolution2DFlipout,
)
from tfp_bnn.likelihoods import LIKELIHOODS
from tfp_bnn.metrics import nll
from tfp_bnn.predictive import PosteriorPredictive

N = 24
X = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 0)
TERMS = {"loss", "nll", "kl", "elbo", "beta", "accuracy"}
# One weight of this is N(0, 1).
STANDARD = {
    "kernel_initializer": "zeros",
    "kernel_posterior": {"name": "mean_field_normal", "initial_scale": 1.0},
    "use_bias": False,
}
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


def stack(*layers, learning_rate=0.0, eagerly=True, **kwargs):
    """A compiled model of 4 inputs, which a learning rate of 0 leaves as it is."""
    model = tfp_bnn.VariationalSequential([keras.Input((4,)), *layers], seed=0, **kwargs)
    metrics = ["accuracy"] if model.likelihood.task == "classification" else []
    model.compile(keras.optimizers.SGD(learning_rate), metrics=metrics, run_eagerly=eagerly)
    return model


def train(model, batch_size=N):
    """The logs of an epoch."""
    history = model.fit(X, Y, batch_size=batch_size, verbose=0).history
    return {name: value for name, (value,) in history.items()}


def closed_form_kl(layer, prior_loc=0.0, prior_scale=1.0):
    """KL(N(loc, scale) || N(prior_loc, prior_scale)) of the weights of a layer, in nats, summed, in float64."""
    total = 0.0
    for weight in layer.variational_weights.values():
        loc, scale = (weight.parameters()[key].astype(np.float64) for key in ("loc", "scale"))
        squares = (scale**2 + (loc - prior_loc) ** 2) / np.float64(prior_scale) ** 2
        total += np.sum(np.log(prior_scale / scale) + squares / 2 - 0.5)
    return total


# === Flipout ===


@pytest.mark.parametrize(
    ("cls", "sizes", "shape"),
    [
        (DenseFlipout, (1,), (64, 1)),
        (Convolution2DFlipout, (1, 1), (64, 1, 1, 1)),
        (Convolution2DTransposeFlipout, (1, 1), (64, 1, 1, 1)),
    ],
)
def test_flipout_signs_are_exactly_plus_or_minus_one_not_from_an_interval(cls, sizes, shape):
    # With one weight w ~ N(0, 1), and inputs of 1, the outputs are +w and -w.
    layer = cls(*sizes, **STANDARD)
    outputs = layer(np.ones(shape, np.float32), training=True).numpy()
    assert np.unique(np.abs(outputs)).size == 1
    assert outputs.min() < 0 < outputs.max()


@pytest.mark.parametrize(
    ("cls", "twin_class", "sizes", "shape"),
    [
        (DenseFlipout, keras.layers.Dense, (3,), (5, 4)),
        (Convolution2DFlipout, keras.layers.Conv2D, (3, 2), (2, 4, 4, 2)),
        (Convolution2DTransposeFlipout, keras.layers.Conv2DTranspose, (3, 2), (2, 4, 4, 2)),
        (DepthwiseConvolution2DFlipout, keras.layers.DepthwiseConv2D, (2,), (2, 4, 4, 2)),
    ],
)
def test_flipout_does_not_perturb_the_mean_as_well(cls, twin_class, sizes, shape, injected_noise, rng):
    class WithOutputSigns:
        def __init__(self, sign):
            self.sign = sign
            self.normal = injected_noise.normal

        def signs(self, name, shape):
            return tf.fill(shape, self.sign) if name == "output_signs" else injected_noise.signs(name, shape)

    x = rng.normal(size=shape).astype(np.float32)
    layer, twin = cls(*sizes), twin_class(*sizes)
    layer.build(shape)
    twin.build(shape)
    twin.set_weights([layer.kernel, layer.bias])
    outputs = []
    for sign in (1.0, -1.0):
        with noise_scope({id(layer): WithOutputSigns(sign)}):
            outputs.append(layer(x, training=True).numpy())
    assert np.abs(outputs[0] - outputs[1]).max() > 0.01
    # What does not change its sign with the perturbation is the mean, and nothing else.
    np.testing.assert_allclose(np.mean(outputs, axis=0), twin(x), rtol=1e-5, atol=1e-6)


def test_tiling_one_batch_under_flipout_is_not_taken_for_independent_draws():
    layer = DenseFlipout(1, **STANDARD)
    model = tfp_bnn.VariationalSequential([keras.Input((1,)), layer], likelihood="normal", seed=0)
    samples = model.posterior_predictive(np.array([[1.0], [1.0], [2.0]]), num_samples=200).samples[..., 0]
    # The copies of a batch would share one perturbation, but for its sign.
    assert np.unique(np.abs(samples[:, 0])).size == 200
    # Each is a draw of the weights, used for every x.
    np.testing.assert_array_equal(samples[:, 1], samples[:, 0])
    np.testing.assert_allclose(samples[:, 2], 2 * samples[:, 0], rtol=1e-6)


# === The scale of the KL ===


def test_the_kl_is_summed_over_the_weights_not_averaged(randomize):
    layers = [DenseFlipout(5, bias_posterior="mean_field_normal"), DenseReparameterization(3)]
    model = stack(*layers)
    for seed, layer in enumerate(layers):
        randomize(layer, seed)
        assert float(layer.kl()) == pytest.approx(closed_form_kl(layer), rel=1e-5)
    total = sum(closed_form_kl(layer) for layer in layers)
    assert float(model.kl()) == pytest.approx(total, rel=1e-5)
    assert train(model)["kl"] == pytest.approx(total, rel=1e-5)


def test_an_estimated_kl_is_summed_over_the_weights_not_averaged(randomize, injected_noise):
    layer = DenseReparameterization(5, kernel_prior={"name": "laplace", "scale": 0.7})
    layer.build((None, 4))
    p = randomize(layer)
    with noise_scope({id(layer): injected_noise}):
        kl = float(layer.kl())
    w = p["kernel_loc"] + p["kernel_scale"] * injected_noise.drawn["kernel"]
    log_ratio = scipy.stats.norm.logpdf(w, p["kernel_loc"], p["kernel_scale"]) - scipy.stats.laplace.logpdf(w, 0, 0.7)
    assert kl == pytest.approx(log_ratio.sum(), rel=1e-5)


@pytest.mark.parametrize("batch_size", [2, 8, N])
def test_the_kl_is_not_divided_by_the_batch_size(batch_size):
    layer = DenseFlipout(3)
    logs = train(stack(layer), batch_size)
    assert logs["kl"] == pytest.approx(closed_form_kl(layer), rel=1e-5)
    # It enters the loss, which is per example, divided by N.
    assert logs["loss"] - logs["nll"] == pytest.approx(closed_form_kl(layer) / N, rel=1e-5)
    assert -logs["elbo"] - logs["nll"] == pytest.approx(closed_form_kl(layer) / N, rel=1e-5)


@pytest.mark.parametrize("number", [1, 2, 4])
def test_the_kl_is_not_divided_by_the_number_of_layers(number):
    layers = [DenseFlipout(4) for _ in range(number)]
    model = stack(*layers)
    for layer in layers:
        layer.set_weights(layers[0].get_weights())
    kl = number * closed_form_kl(layers[0])
    assert float(model.kl()) == pytest.approx(kl, rel=1e-5)
    logs = train(model)
    assert logs["kl"] == pytest.approx(kl, rel=1e-5)
    assert logs["loss"] - logs["nll"] == pytest.approx(kl / N, rel=1e-5)


# A mixture of equals is a normal whose KL is estimated.
@pytest.mark.parametrize("prior", ["normal", {"name": "scale_mixture", "scale_1": 1.0, "scale_2": 1.0}])
@pytest.mark.parametrize("units", [3, 500])
def test_no_constant_is_added_to_the_kl_for_each_weight(units, prior):
    layer = DenseReparameterization(units, kernel_prior=prior, **STANDARD)
    model = stack(layer)
    # The posterior is the prior. What is left is rounding.
    rounding = 1e-6 * layer.kernel.shape[0] * units
    assert float(model.kl()) == pytest.approx(0.0, abs=rounding)
    logs = train(model)
    assert logs["kl"] == pytest.approx(0.0, abs=rounding)
    assert logs["loss"] == pytest.approx(logs["nll"], rel=1e-5)


# === Priors that are given ===


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_an_informed_prior_is_not_kept_outside_of_the_saved_state(suffix, tmp_path, rng):
    layer = DenseReparameterization(3, kernel_prior="informed", name="layer")
    model, path = stack(layer), tmp_path / f"model{suffix}"
    prior = {"prior_loc": rng.normal(size=(4, 3)), "prior_scale": rng.uniform(0.1, 2.0, (4, 3))}
    prior = {name: value.astype(np.float32) for name, value in prior.items()}
    weight = layer.variational_weights["kernel"]
    weight.assign_parameters({**weight.parameters(), **prior})
    if suffix == ".keras":
        model.save(path)
        loaded = keras.models.load_model(path)
    else:
        model.save_weights(path)
        loaded = stack(DenseReparameterization(3, kernel_prior="informed", name="layer"))
        assert float(loaded.kl()) != float(model.kl())
        loaded.load_weights(path)
    (found,) = loaded.variational_layers
    np.testing.assert_array_equal(found.kernel_prior.mean(), prior["prior_loc"])
    np.testing.assert_array_equal(found.kernel_prior.stddev(), prior["prior_scale"])
    assert float(loaded.kl()) == float(model.kl())
    assert float(model.kl()) == pytest.approx(closed_form_kl(layer, *prior.values()), rel=1e-5)


def test_a_prior_that_is_promised_to_be_set_is_set(rng):
    layer = DenseReparameterization(3, kernel_prior="informed")
    layer.build((None, 4))
    weight = layer.variational_weights["kernel"]

    @tf.function
    def kl_and_gradient():
        with tf.GradientTape() as tape:
            kl = layer.kl()
        return kl, tape.gradient(kl, layer.kernel.value)

    # The second time the function that uses it has been compiled.
    for _ in range(2):
        loc, scale = rng.normal(size=(4, 3)).astype(np.float32), rng.uniform(0.1, 2.0, (4, 3)).astype(np.float32)
        weight.assign_parameters({**weight.parameters(), "prior_loc": loc, "prior_scale": scale})
        np.testing.assert_array_equal(layer.kernel_prior.mean(), loc)
        np.testing.assert_array_equal(layer.kernel_prior.stddev(), scale)
        kl, gradient = kl_and_gradient()
        assert float(kl) == pytest.approx(closed_form_kl(layer, loc, scale), rel=1e-5)
        np.testing.assert_allclose(gradient, (weight.parameters()["loc"] - loc) / scale**2, rtol=1e-4, atol=1e-5)


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

    @tf.function
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
def test_the_replicas_of_a_distributed_step_do_not_share_their_noise(two_replicas):
    drawn = two_replicas["drawn"]
    for name in ("kernel", "bias", "input_signs", "output_signs", "prior_scale"):
        of_first, of_second = ([value for replica, n, value in drawn if (replica, n) == (r, name)] for r in (0, 1))
        assert len(of_first) == len(of_second) >= 2
        for one, other in itertools.product(of_first, of_second):
            assert not np.array_equal(one, other), name


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

"""Segmentation, image to image, and labels or numbers at each time step: trained, judged and predicted."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

import tfp_bnn
from tfp_bnn.inference.ensemble import Ensemble
from tfp_bnn.layers import Convolution2DFlipout, DenseFlipout, DenseReparameterization, LSTMFlipout

RNG = np.random.default_rng(0)
N = 16
IMAGES = RNG.normal(size=(N, 4, 4, 1)).astype(np.float32)
SERIES = RNG.normal(size=(N, 5, 3)).astype(np.float32)
CLASSES = RNG.integers(3, size=(N, 5))


def on_images(channels):
    x = keras.Input((4, 4, 1))
    return x, Convolution2DFlipout(channels, 3, padding="same")(x)


def on_series(channels):
    x = keras.Input((5, 3))
    return x, DenseFlipout(channels)(LSTMFlipout(4, return_sequences=True)(x))


def known(channels, likelihood, **kwargs):
    """A network whose weights are known to six digits and stay what they are."""
    posterior = {"name": "mean_field_normal", "initial_scale": 1e-6}
    x = keras.Input((5, 3))
    model = tfp_bnn.VariationalModel(
        x, DenseReparameterization(channels, kernel_posterior=posterior)(x), likelihood=likelihood, seed=0
    )
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True, **kwargs)
    model.num_examples = N
    return model, model.plug_in_predictive(SERIES).samples[0]


CASES = {
    "segmentation": (on_images, 3, "categorical", IMAGES, RNG.integers(3, size=(N, 4, 4)), ["accuracy"]),
    "binary mask": (on_images, 1, "bernoulli", IMAGES, (IMAGES > 0).astype(np.float32), ["accuracy"]),
    "denoising": (on_images, 1, "normal", IMAGES, IMAGES[..., 0], ["mae"]),
    "tagging": (on_series, 3, "categorical", SERIES, CLASSES, ["accuracy"]),
    "labels at each step": (on_series, 3, "bernoulli", SERIES, (SERIES > 0).astype(np.float32), ["accuracy"]),
    "forecast at each step": (on_series, 1, "normal", SERIES, SERIES[..., :1], ["mae"]),
}


@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_target_is_trained_predicted_and_scored(name):
    network, channels, likelihood, x, y, chosen = CASES[name]
    model = tfp_bnn.VariationalModel(*network(channels), likelihood=likelihood, seed=0)
    model.compile("adam", metrics=chosen, run_eagerly=True)
    history = model.fit(x, y, verbose=0).history
    assert {"nll", *chosen} <= history.keys()
    assert model.num_examples == N
    predictive = model.posterior_predictive(x, num_samples=3)
    assert predictive.mean().shape == (N, *y.shape[1 : x.ndim - 1], channels)
    assert np.isfinite(list(tfp_bnn.predictive.score(predictive, y).values())).all()


def test_a_calibration_is_fitted_to_all_positions():
    x = keras.Input((5, 3))
    outputs = DenseFlipout(1, kernel_initializer="zeros")(x)
    model = tfp_bnn.VariationalModel(x, outputs, likelihood={"name": "normal", "scale": 0.1}, seed=0)
    calibration = tfp_bnn.calibrate(model, np.zeros_like(SERIES), SERIES[..., 0], num_samples=2)
    assert calibration.scale * 0.1 == pytest.approx(np.sqrt(np.mean(SERIES[..., 0] ** 2)), rel=1e-3)


def test_the_nll_is_that_of_examples_and_weights_are_for_positions():
    model, probabilities = known(3, "categorical")
    terms = np.log(np.take_along_axis(probabilities, CLASSES[..., np.newaxis], axis=-1))[..., 0]
    weights = RNG.uniform(size=(N, 5)).astype(np.float32)
    for weight in (None, weights, weights[:, 0]):
        factor = 1.0 if weight is None else weight.reshape(N, -1)
        logs = model.evaluate(SERIES, CLASSES, sample_weight=weight, return_dict=True, verbose=0)
        assert logs["nll"] == pytest.approx(-(factor * terms).sum() / N, rel=1e-4)
    history = model.fit(SERIES, CLASSES, batch_size=6, verbose=0).history
    # The mean over batches of an epoch counts examples too: the last batch has 4.
    assert history["nll"][0] == pytest.approx(-terms.sum() / N, rel=1e-4)
    assert model.rows_seen == N


def test_metrics_see_every_position():
    ece = tfp_bnn.metrics.ExpectedCalibrationError(name="ece")
    model, probabilities = known(3, "categorical", metrics=["accuracy", ece])
    logs = model.evaluate(SERIES, CLASSES, return_dict=True, verbose=0)
    assert logs["accuracy"] == pytest.approx((probabilities.argmax(-1) == CLASSES).mean(), rel=1e-5)
    expected = tfp_bnn.metrics.expected_calibration_error(CLASSES.reshape(-1), probabilities.reshape(-1, 3))
    assert logs["ece"] == pytest.approx(expected, rel=1e-4)


def test_weighted_metrics_take_the_weights_of_positions_and_examples():
    weights = RNG.uniform(size=(N, 5)).astype(np.float32)
    for weight in (weights, weights[:, 0]):
        model, means = known(2, "normal", weighted_metrics=["mae"])
        errors = np.abs(means - SERIES[..., :2]).mean(-1)
        logs = model.evaluate(SERIES, SERIES[..., :2], sample_weight=weight, return_dict=True, verbose=0)
        factor = np.broadcast_to(weight.reshape(N, -1), errors.shape)
        assert logs["mae"] == pytest.approx((factor * errors).sum() / factor.sum(), rel=1e-4)


def test_sequences_may_differ_in_length_from_batch_to_batch():
    def batches():
        for steps in (3, 5):
            yield SERIES[:, :steps], CLASSES[:, :steps]

    signature = tf.TensorSpec((N, None, 3), tf.float32), tf.TensorSpec((N, None), tf.int64)
    data = tf.data.Dataset.from_generator(batches, output_signature=signature)
    x = keras.Input((None, 3))
    model = tfp_bnn.VariationalModel(x, DenseFlipout(3)(x), likelihood="categorical", seed=0)
    model.compile("adam", metrics=["accuracy"])
    history = model.fit(data, num_examples=2 * N, steps_per_epoch=2, verbose=0)
    assert np.isfinite(history.history["nll"]).all()
    assert model.posterior_predictive(SERIES, num_samples=2).mean().shape == (N, 5, 3)


@pytest.mark.slow
def test_the_step_compiles_under_xla():
    y = SERIES[..., :2].copy()
    y[::2, 1, 0] = np.nan
    x = keras.Input((5, 3))
    model = tfp_bnn.VariationalModel(x, DenseFlipout(2)(x), likelihood={"name": "normal", "missing": "nan"}, seed=0)
    model.compile("adam", metrics=["mae"], jit_compile=True)
    assert np.isfinite(model.fit(SERIES, y, verbose=0).history["mae"]).all()


def test_positions_that_keras_masked_do_not_count():
    words = RNG.integers(1, 7, size=(N, 5))
    words[:, 3:] = 0
    x = keras.Input((5,))
    h = keras.layers.Embedding(7, 3, mask_zero=True)(x)
    model = tfp_bnn.VariationalModel(x, DenseFlipout(3)(h), likelihood="categorical", seed=0)
    model.compile("adam", metrics=["accuracy"], run_eagerly=True)
    model.num_examples = N
    found = []
    for tags in (np.where(words == 0, 0, CLASSES), np.where(words == 0, 2, CLASSES)):
        for counter in model.noise_variables.values():
            counter.assign(keras.ops.zeros_like(counter))
        logs = model.evaluate(words, tags, return_dict=True, verbose=0)
        found.append((logs["nll"], logs["accuracy"]))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("y", "weight", "message"),
    [
        (CLASSES[:, :4], None, r"Targets of shape \(16, 4\) do not fit outputs with the positions \(5,\)"),
        (CLASSES[:, 0], None, r"Targets of shape \(16,\) do not fit outputs with the positions \(5,\)"),
        (
            CLASSES,
            np.ones((N, 4)),
            r"`sample_weight` of shape \((16|None), 4\) does not fit targets of shape",
        ),
    ],
)
@pytest.mark.parametrize("compiled", [True, False])
def test_shapes_that_do_not_fit_are_refused(y, weight, message, compiled):
    model = tfp_bnn.VariationalModel(*on_series(3), likelihood="categorical")
    model.compile("adam", run_eagerly=not compiled)
    with pytest.raises(ValueError, match=message):
        model.fit(SERIES, y, sample_weight=weight, verbose=0)


@pytest.mark.slow
def test_callbacks_measure_positions(tmp_path):
    y = CLASSES.astype(np.float32)
    y[::2, 1] = np.nan
    model = tfp_bnn.VariationalModel(*on_series(3), likelihood={"name": "categorical", "missing": "nan"}, seed=0)
    model.compile("adam", run_eagerly=True)
    callbacks = [
        tfp_bnn.callbacks.BayesianTensorBoard(tmp_path, validation_data=(SERIES, y), ood_data=SERIES, num_samples=2),
        tfp_bnn.callbacks.CalibrationEarlyStopping((SERIES, y), monitor="ece", num_samples=2),
        tfp_bnn.callbacks.PosteriorDoctor(validation_data=(SERIES, y), num_samples=2, tolerance=10.0),
    ]
    history = model.fit(SERIES, y, epochs=1, verbose=0, callbacks=callbacks).history
    score = tfp_bnn.predictive.score(model.posterior_predictive(SERIES, num_samples=2), y)
    assert history["val_mc_ece"][-1] == pytest.approx(score["ece"], rel=1e-5)


def test_an_ensemble_predicts_positions():
    members = [tfp_bnn.VariationalModel(*on_series(2), likelihood="normal", seed=seed) for seed in range(2)]
    members[1].likelihood_weights["log_scale"].assign(1.0)
    ensemble = Ensemble(members)
    y = SERIES[..., :2]
    predictive = ensemble.posterior_predictive(SERIES, num_samples=4)
    scales = np.exp([0.0, 1.0]).reshape(2, 1, 1, 1)
    by_member = scipy.stats.norm.logpdf(y, predictive.samples, scales).sum((-1, -2))
    expected = scipy.special.logsumexp(by_member, axis=0) - np.log(2)
    np.testing.assert_allclose(predictive.log_prob(y), expected, rtol=1e-4)

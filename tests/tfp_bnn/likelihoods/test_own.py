"""A likelihood of the user: `distribution` alone gives everything else."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from tensorflow_probability import distributions as tfd

import tfp_bnn
from tfp_bnn.callbacks import BayesianTensorBoard, CalibrationEarlyStopping, PosteriorDoctor
from tfp_bnn.likelihoods import LIKELIHOODS, ClassLikelihood, Likelihood
from tfp_bnn.predictive import PosteriorPredictive, score, standard_errors

from .own_likelihoods import Hurdle, JointNormal

ROWS = 2000


@LIKELIHOODS.register("own_gamma")
class OwnGamma(Likelihood):
    """Positive numbers; two outputs."""

    def distribution(self, outputs, weights):
        return tfd.Gamma(concentration=0.2 + tf.nn.softplus(outputs[..., 0]), log_rate=outputs[..., 1])


@LIKELIHOODS.register("own_negative_binomial")
class OwnNegativeBinomial(Likelihood):
    """Counts with a learned dispersion; one output for each target."""

    def add_weights(self, add_weight):
        return {"log_count": add_weight(name="log_count", shape=(), initializer="zeros")}

    def distribution(self, outputs, weights):
        count = tf.exp(tf.convert_to_tensor(weights["log_count"]))
        return tfd.Independent(tfd.NegativeBinomial(total_count=count, logits=outputs), 1)


@LIKELIHOODS.register("own_ordinal")
class OwnOrdinal(ClassLikelihood):
    """Four ordered classes of one output."""

    def num_classes(self, num_outputs):
        return 4

    def distribution(self, outputs, weights):
        return tfd.OrderedLogistic(cutpoints=[-1.0, 0.0, 1.0], loc=outputs[..., 0])


class Inputs(tfp_bnn.VariationalMixin, keras.Model):
    """A sure network whose outputs are its inputs."""

    def call(self, inputs, training=None):
        return inputs


def predictive_of(likelihood, num_outputs, draws=3, rows=ROWS, weights=None):
    """A predictive whose draws disagree, and targets drawn from it: each row from a draw of its own."""
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(1, rows, num_outputs)) + 0.3 * rng.normal(size=(draws, rows, num_outputs))
    predictive = PosteriorPredictive(likelihood, weights or {}, outputs.astype(np.float32), {}, outputs.shape)
    drawn = predictive.sample(draws, seed=1)
    return predictive, drawn[rng.integers(draws, size=rows), np.arange(rows)]


CASES = {
    "gamma": (OwnGamma(), 2, {}),
    "negative_binomial": (OwnNegativeBinomial(), 1, {"log_count": np.float32(0.7)}),
    "joint_normal": (JointNormal(), 2, {}),
    "hurdle": (Hurdle(), 1, {}),
}


@pytest.fixture(scope="module", params=CASES)
def each(request):
    likelihood, num_outputs, weights = CASES[request.param]
    return predictive_of(likelihood, num_outputs, rows=300, weights=weights)


# === Intervals, against the distribution ===


@pytest.mark.statistical
@pytest.mark.slow
def test_the_90_percent_interval_of_a_gamma_covers_90_percent():
    # Of 4,000 targets, 3 points are 6.3 standard errors: by chance 3e-10. The Kolmogorov-Smirnov test: 1e-6.
    predictive, y = predictive_of(OwnGamma(), 2, rows=4000)
    lower, upper = predictive.interval(0.9)
    assert np.mean((lower <= y) & (y <= upper)) == pytest.approx(0.9, abs=0.03)
    assert scipy.stats.kstest(predictive.pit(y)[:, 0], "uniform").pvalue > 1e-6


@pytest.mark.statistical
def test_the_interval_of_a_negative_binomial_covers_what_that_of_the_true_distribution_does():
    # Both shares are of the same 2,000 targets and differ in a few rows only; the seed is fixed.
    likelihood, _, weights = CASES["negative_binomial"]
    predictive, y = predictive_of(likelihood, 1, draws=1, weights=weights)
    success = 1.0 - 1.0 / (1.0 + np.exp(-predictive.distribution().components_distribution.distribution.logits[:, 0]))
    true = scipy.stats.nbinom(np.exp(0.7), success)
    expected = np.mean((true.ppf(0.05) <= y) & (y <= true.ppf(0.95)))
    lower, upper = predictive.interval(0.9)
    assert 0.9 <= expected
    assert np.mean((lower <= y) & (y <= upper)) == pytest.approx(expected, abs=0.03)
    assert np.mean((lower == true.ppf(0.05)) & (upper == true.ppf(0.95))) > 0.999
    # The Kolmogorov-Smirnov test of 2,000 randomized values fails by chance at 1e-6.
    assert scipy.stats.kstest(predictive.pit(y)[:, 0], "uniform").pvalue > 1e-6


@pytest.mark.statistical
def test_the_probability_integral_transform_is_uniform(each):
    # A Kolmogorov-Smirnov test of 300 values for each target fails by chance at 1e-6.
    predictive, y = each
    transformed = predictive.pit(y, seed=3)
    assert transformed.shape == predictive.mean().shape
    for column in transformed.T:
        assert scipy.stats.kstest(column, "uniform").pvalue > 1e-6
    np.testing.assert_array_equal(transformed, predictive.pit(y, seed=3))


def test_quantiles_are_those_of_the_mixture_and_not_of_the_means(each):
    predictive, y = each
    levels = [0.05, 0.3, 0.5, 0.95]
    found = predictive.quantiles(levels)
    drawn = predictive.sample(300, seed=5)
    for level, quantile in zip(levels, found, strict=True):
        # Shares of 300 x 300 draws have a standard error of 0.0017.
        assert np.mean(drawn <= quantile) > level - 0.01
        assert np.mean(drawn < quantile) < level + 0.01
    assert (np.diff(found, axis=0) >= 0).all()
    of_means = np.quantile(predictive.samples, 0.95, axis=0)
    assert (found[-1] > of_means).mean() > 0.9
    assert y.shape == found.shape[1:]


def test_quantiles_of_one_gamma_equal_scipy():
    outputs = np.array([[[0.3, -0.5], [2.0, 1.0]]], np.float32)
    predictive = PosteriorPredictive(OwnGamma(), {}, outputs, {}, outputs.shape)
    concentration, rate = 0.2 + np.logaddexp(0.0, outputs[0, :, 0]), np.exp(outputs[0, :, 1])
    true = scipy.stats.gamma(concentration, scale=1.0 / rate)
    for level in (0.0, 0.01, 0.5, 0.99, 1.0):
        np.testing.assert_allclose(predictive.quantiles(level)[:, 0], true.ppf(level), rtol=2e-4)
    np.testing.assert_allclose(predictive.mean()[:, 0], true.mean(), rtol=1e-4)
    np.testing.assert_allclose(predictive.aleatoric()[:, 0], true.var(), rtol=1e-4)
    # 1,000 points of a quantile function that ends in a pole.
    np.testing.assert_allclose(predictive.entropy()[:, 0], true.entropy(), atol=0.02)
    np.testing.assert_allclose(predictive.log_prob([1.0, 2.0]), true.logpdf([1.0, 2.0]), rtol=1e-4)


def test_the_zeros_of_a_hurdle_are_in_their_interval():
    predictive, y = predictive_of(Hurdle(), 1, rows=200)
    lower, _ = predictive.interval(0.9)
    np.testing.assert_array_equal(lower, 0.0)
    assert 0.3 < np.mean(y == 0.0) < 0.7


def test_uncertainty_follows_the_law_of_total_variance(each):
    predictive, _ = each
    drawn = predictive.sample(600, seed=2)
    total = predictive.aleatoric() + predictive.epistemic()
    assert total.shape == predictive.mean().shape
    np.testing.assert_allclose(np.median(drawn.var(axis=0) / total), 1.0, atol=0.1)
    assert np.isfinite(predictive.entropy()).all()


@pytest.mark.slow
def test_scores_and_their_standard_errors_have_the_same_names(each):
    predictive, y = each
    found, errors = score(predictive, y), standard_errors(predictive, y)
    assert set(found) == set(errors) == set(predictive.likelihood.score_names(predictive.num_outputs))
    assert np.isfinite(list(found.values())).all()
    assert np.isfinite(list(errors.values())).all()
    without = predictive.scores_without_each_draw(y)
    outputs = np.delete(predictive._outputs, 0, axis=0)
    others = PosteriorPredictive(predictive.likelihood, predictive._weights, outputs, {}, outputs.shape)
    by_hand = score(others, y)
    for name in ("rmse", "nll", "aleatoric_std", "epistemic_std"):
        # Sampled moments aside, to the rounding of float32.
        assert without[0][name] == pytest.approx(by_hand[name], rel=1e-3), name
    assert without[0]["coverage_90"] == pytest.approx(by_hand["coverage_90"], abs=0.02)


def test_the_log_probability_of_all_draws_is_that_of_each(each):
    predictive, y = each
    likelihood, outputs, weights = predictive.likelihood, predictive._outputs, predictive._weights
    by_draw = [likelihood.log_prob(y, draw, weights) for draw in outputs]
    np.testing.assert_allclose(likelihood.log_prob(y, outputs, weights), by_draw, rtol=1e-6)


# === Targets and shapes ===


@pytest.mark.parametrize(
    ("likelihood", "num_outputs", "y", "message"),
    [
        (OwnGamma(), 2, [1.0, -1.0], r"OwnGamma\(\) expects numbers > 0, but 1 of 2 .* first is -1.0 in row 1"),
        (OwnGamma(), 2, np.ones((2, 2)), r"Targets of shape \(2, 2\) do not fit a model with 1 target"),
        (OwnNegativeBinomial(), 1, [1.0, 0.5], "expects whole numbers >= 0, but 1 of 2"),
        (OwnNegativeBinomial(), 1, [1.0, -1.0], "expects whole numbers >= 0"),
        (OwnOrdinal(), 1, [0, 4], "expected integers from 0 to 3"),
        (OwnOrdinal(), 1, np.ones((2, 3)), r"Labels of shape \(2, 3\) do not fit"),
    ],
)
def test_targets_that_cannot_be_are_refused(likelihood, num_outputs, y, message):
    with pytest.raises(ValueError, match=message):
        likelihood.check_targets(np.asarray(y), num_outputs)


def test_targets_of_a_pipeline_are_checked_in_the_step():
    model = Inputs(likelihood=OwnGamma(), num_examples=2)
    model.compile("sgd")
    data = tf.data.Dataset.from_tensors((np.zeros((2, 2), np.float32), np.array([1.0, -1.0], np.float32)))
    with pytest.raises(ValueError, match=r"OwnGamma\(\) expects numbers > 0"):
        model.evaluate(data, verbose=0)


@LIKELIHOODS.register("own_without_independent")
class WithoutIndependent(Likelihood):
    """Forgets that the last axis is of targets."""

    def distribution(self, outputs, weights):
        return tfd.Poisson(log_rate=outputs)


@LIKELIHOODS.register("own_of_two")
class OfTwo(Likelihood):
    """Takes two outputs, or fails."""

    def distribution(self, outputs, weights):
        loc, scale = tf.unstack(outputs, num=2, axis=-1)
        return tfd.Normal(loc, tf.exp(scale))


@LIKELIHOODS.register("own_of_no_distribution")
class NoDistribution(Likelihood):
    """Gives a tensor."""

    def distribution(self, outputs, weights):
        return outputs


@pytest.mark.parametrize(
    ("likelihood", "message"),
    [
        (WithoutIndependent(), "The likelihood WithoutIndependent() gave a distribution of batch shape (2, 3, 3) for"),
        (OfTwo(), "The likelihood OfTwo() cannot take outputs of shape ('batch', 3)"),
        (NoDistribution(), "`distribution` of the likelihood NoDistribution() gave a"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("pipeline", [False, True])
def test_a_distribution_of_another_shape_is_refused_before_training(likelihood, message, pipeline):
    x = keras.Input((1,))
    model = tfp_bnn.VariationalModel(x, keras.layers.Dense(3)(x), likelihood=likelihood, num_examples=4)
    model.compile("sgd")
    before = [weight.numpy() for weight in model.weights]
    data = (np.zeros((4, 1), np.float32), np.zeros((4, 3), np.float32))
    message = message if not pipeline or "batch shape" not in message else "gave a distribution of batch shape"
    with pytest.raises(ValueError, match=re.escape(message)):
        model.fit(*([tf.data.Dataset.from_tensors(data)] if pipeline else data), verbose=0)
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


@pytest.mark.parametrize(
    ("likelihood", "columns", "num_outputs"),
    [(OwnGamma(), 1, 2), (OwnNegativeBinomial(), 3, 3), (OfTwo(), 1, 2)],
)
def test_the_number_of_outputs_follows_from_the_targets(likelihood, columns, num_outputs):
    assert likelihood.num_outputs_for(np.ones((5, columns))) == num_outputs
    assert likelihood.num_targets(num_outputs) == columns


# === In a model ===


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "num_outputs", "y"),
    [
        ("own_gamma", 2, lambda rng, x: rng.gamma(2.0, np.exp(x[:, 0]))),
        ("own_negative_binomial", 1, lambda rng, x: rng.poisson(np.exp(x[:, 0]))),
        ("own_ordinal", 1, lambda rng, x: np.clip(np.round(x[:, 0] + 1.5), 0, 3).astype(int)),
    ],
)
def test_a_model_with_an_own_likelihood_is_trained_watched_judged_saved_and_loaded(name, num_outputs, y, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 2)).astype(np.float32)
    y = np.asarray(y(rng, x), np.float32)
    model = tfp_bnn.VariationalSequential(
        [keras.Input((2,)), tfp_bnn.layers.DenseFlipout(num_outputs)], likelihood=name, seed=0
    )
    model.compile(keras.optimizers.Adam(0.05), metrics=model.likelihood.training_metrics(num_outputs))
    watching = [
        BayesianTensorBoard(tmp_path / "board", (x, y), x[:5], num_samples=2),
        PosteriorDoctor((x, y), num_samples=2, tolerance=100.0),
        CalibrationEarlyStopping((x, y), num_samples=2),
    ]
    history = model.fit(x, y, epochs=2, verbose=0, callbacks=watching).history
    assert np.isfinite(history["val_mc_nll"]).all()
    predictive = model.posterior_predictive(x, num_samples=3)
    assert np.isfinite(list(score(predictive, y).values())).all()
    with pytest.raises(ValueError, match=r"There is no calibration for the likelihood Own.*`calibrator`"):
        tfp_bnn.calibrate(model, x, y, num_samples=2)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.likelihood == model.likelihood
    for role, weight in model.likelihood_weights.items():
        np.testing.assert_array_equal(loaded.likelihood_weights[role], weight)
    np.testing.assert_array_equal(loaded.posterior_predictive(x, num_samples=3).mean(), predictive.mean())


def test_classes_of_an_own_distribution_have_probabilities():
    predictive, labels = predictive_of(OwnOrdinal(), 1, rows=50)
    loc = predictive._outputs[..., 0]
    below = 1.0 / (1.0 + np.exp(loc[..., None] - np.array([-1.0, 0.0, 1.0])))
    expected = np.diff(below, axis=-1, prepend=0.0, append=1.0)
    np.testing.assert_allclose(predictive.samples, expected, atol=1e-5)
    assert labels.dtype == np.int64
    assert set(labels) <= {0, 1, 2, 3}
    np.testing.assert_allclose(
        predictive.log_prob(labels), np.log(predictive.mean()[np.arange(50), labels]), rtol=1e-3, atol=1e-5
    )
    with pytest.raises(ValueError, match="have no order"):
        predictive.pit(labels)


def test_a_mean_that_takes_no_weights_is_understood():
    class Older(OwnNegativeBinomial):
        def mean(self, outputs):
            return tf.exp(outputs)

    found = Older().mean(tf.zeros((2, 1)), {"log_count": 0.0})
    np.testing.assert_array_equal(found, np.ones((2, 1)))


@pytest.mark.parametrize("value", [0, -1, 2.0, None])
def test_bad_arguments_of_sample_and_pit_are_refused(value):
    predictive, y = predictive_of(OwnGamma(), 2, rows=3)
    with pytest.raises(ValueError, match="`num_draws` must be an integer >= 1"):
        predictive.sample(value)
    with pytest.raises(ValueError, match="`seed` must be an integer"):
        predictive.pit(y, seed="0")

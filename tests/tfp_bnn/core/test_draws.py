"""Draws: any sequence of functions gives a predictive, and all are used if there are few."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

import tfp_bnn
from tfp_bnn.calibration import Scale, Temperature
from tfp_bnn.core.draws import FiniteDraws
from tfp_bnn.likelihoods import Categorical, Normal
from tfp_bnn.predictive import score, standard_errors

X = np.random.default_rng(0).normal(size=(7, 2)).astype(np.float32)
FACTORS = (0.5, 1.0, 3.0)


def scaled(factor):
    return lambda x: factor * x


@pytest.fixture
def draws():
    return FiniteDraws([scaled(factor) for factor in FACTORS])


@pytest.fixture
def noisy_draws():
    """Draws of which each has learned noise of its own."""
    weights = [{"log_scale": np.float32(np.log(scale))} for scale in (0.1, 0.5, 2.0)]
    return FiniteDraws([scaled(factor) for factor in FACTORS], weights)


class Endless:
    """Draw k multiplies the inputs by k."""

    num_draws = None

    def __call__(self, index):
        return scaled(float(index))

    def likelihood_weights(self, index):
        return {}


def test_a_list_of_functions_gives_a_predictive(draws):
    predictive = tfp_bnn.PosteriorPredictive.from_draws(draws, X, Normal(scale=1.0))
    outputs = np.stack([factor * X for factor in FACTORS])
    np.testing.assert_allclose(predictive.samples, outputs, rtol=1e-6)
    np.testing.assert_allclose(predictive.mean(), outputs.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(predictive.epistemic(), outputs.var(axis=0), rtol=1e-5)
    assert predictive.likelihood == Normal(scale=1.0)
    assert len(predictive) == len(X)


@pytest.mark.parametrize(("asked", "used", "exhaustive"), [(2, 2, False), (3, 3, True), (100, 3, True)])
def test_all_draws_are_used_where_more_were_asked_for(draws, asked, used, exhaustive):
    predictive = tfp_bnn.PosteriorPredictive.from_draws(draws, X, Categorical(), num_samples=asked)
    assert predictive.num_samples == used
    assert predictive.samples.shape == (used, *X.shape)
    assert predictive.exhaustive is exhaustive


def test_as_many_draws_as_asked_for_are_taken_where_there_is_no_end():
    predictive = tfp_bnn.PosteriorPredictive.from_draws(Endless(), X, Normal(scale=1.0), num_samples=5)
    np.testing.assert_allclose(predictive.mean(), 2.0 * X, rtol=1e-6)
    assert not predictive.exhaustive


def test_the_predictive_does_not_depend_on_the_batches_or_the_memory(draws):
    whole = tfp_bnn.PosteriorPredictive.from_draws(draws, X, Categorical())
    for options in ({"batch_size": 3}, {"max_bytes": 0}, {"batch_size": 2, "max_bytes": 0}):
        other = tfp_bnn.PosteriorPredictive.from_draws(draws, X, Categorical(), **options)
        for name in ("mean", "entropy", "aleatoric", "epistemic"):
            np.testing.assert_allclose(getattr(other, name)(), getattr(whole, name)(), atol=1e-6)


def test_a_calibration_is_applied_and_one_for_other_likelihoods_refused(draws):
    raw = tfp_bnn.PosteriorPredictive.from_draws(draws, X, Categorical())
    calibrated = tfp_bnn.PosteriorPredictive.from_draws(draws, X, Categorical(), calibration=Temperature(2.0))
    np.testing.assert_allclose(calibrated.mean(), raw.calibrated_by(Temperature(2.0)).mean(), rtol=1e-6)
    with pytest.raises(ValueError, match="does not fit the likelihood"):
        tfp_bnn.PosteriorPredictive.from_draws(draws, X, Categorical(), calibration=Scale(2.0))


def test_noise_that_differs_between_draws_stays_with_each_of_them(noisy_draws):
    """Everything against the mixture in NumPy and SciPy."""
    x, y = X[:, :1], X[:, 1:]
    predictive = tfp_bnn.PosteriorPredictive.from_draws(noisy_draws, x, Normal())
    scales = np.array([0.1, 0.5, 2.0])[:, None, None]
    locs = np.stack([factor * x for factor in FACTORS])
    log_density = np.log(scipy.stats.norm.pdf(y, locs, scales).mean(axis=0))[:, 0]
    np.testing.assert_allclose(predictive.log_prob(y), log_density, rtol=1e-4)
    np.testing.assert_allclose(predictive.distribution().log_prob(y), log_density, rtol=1e-4)
    np.testing.assert_allclose(predictive.aleatoric(), np.full(x.shape, (scales**2).mean()), rtol=1e-5)
    lower = predictive.quantiles(0.05)
    np.testing.assert_allclose(scipy.stats.norm.cdf(lower, locs, scales).mean(axis=0), 0.05, atol=1e-4)
    assert np.isfinite(predictive.entropy()).all()
    moments_only = tfp_bnn.PosteriorPredictive.from_draws(noisy_draws, x, Normal(), max_bytes=0, batch_size=2)
    np.testing.assert_allclose(moments_only.aleatoric(), predictive.aleatoric(), rtol=1e-6)


def test_calibration_widens_the_noise_of_each_draw(noisy_draws):
    predictive = tfp_bnn.PosteriorPredictive.from_draws(noisy_draws, X[:, :1], Normal())
    wider = predictive.calibrated_by(Scale(3.0))
    np.testing.assert_allclose(wider.aleatoric(), 9.0 * predictive.aleatoric(), rtol=1e-5)
    np.testing.assert_allclose(wider.mean(), predictive.mean(), atol=1e-5)
    np.testing.assert_allclose(wider.distribution().stddev(), 3.0 * predictive.distribution().stddev(), rtol=1e-4)


def test_scores_have_no_monte_carlo_error_where_all_draws_were_used(draws, noisy_draws):
    labels = np.arange(len(X)) % 2
    some = tfp_bnn.PosteriorPredictive.from_draws(draws, X, Categorical(), num_samples=2)
    every = tfp_bnn.PosteriorPredictive.from_draws(draws, X, Categorical())
    assert set(standard_errors(some, labels)) == set(score(some, labels))
    assert standard_errors(every, labels) == {}
    regression = tfp_bnn.PosteriorPredictive.from_draws(noisy_draws, X[:, :1], Normal(), num_samples=2)
    assert np.isfinite(list(standard_errors(regression, X[:, 1:]).values())).all()


def test_bad_draws_are_refused():
    with pytest.raises(ValueError, match="There are no functions to draw from"):
        FiniteDraws([])
    with pytest.raises(ValueError, match="Got 1 functions but 2 sets of likelihood weights"):
        FiniteDraws([scaled(1.0)], [{}, {}])
    with pytest.raises(ValueError, match="`x` is empty"):
        tfp_bnn.PosteriorPredictive.from_draws(FiniteDraws([scaled(1.0)]), X[:0], Normal())
    with pytest.raises(ValueError, match="`num_samples` must be an integer >= 1, but got 0"):
        tfp_bnn.PosteriorPredictive.from_draws(FiniteDraws([scaled(1.0)]), X, Categorical(), num_samples=0)

"""Likelihoods of numbers against SciPy: densities, moments, quantiles and refusals."""

from __future__ import annotations

import re

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
import tensorflow as tf

import tfp_bnn
from tfp_bnn.likelihoods import (
    LIKELIHOODS,
    Laplace,
    Likelihood,
    MixtureNormal,
    MultivariateNormal,
    NegativeBinomial,
    Poisson,
    StudentT,
)
from tfp_bnn.predictive import PosteriorPredictive

ROWS = 7
RNG = np.random.default_rng(0)
# Columns: two locations (or log means), and two untransformed scales.
OUTPUTS = RNG.normal(size=(ROWS, 4)).astype(np.float32)
LOC, RAW = OUTPUTS[:, :2].astype(np.float64), OUTPUTS[:, 2:].astype(np.float64)
SCALE = 1e-6 + np.logaddexp(0.0, RAW)
DISPERSION = 1e-4 + np.logaddexp(0.0, RAW)


def negative_binomial(mean, dispersion):
    return scipy.stats.nbinom(1.0 / dispersion, 1.0 / (1.0 + dispersion * mean))


# Likelihood, outputs, learned parameters in natural units, and the same distribution of SciPy.
CASES = {
    "laplace": (Laplace(0.7), OUTPUTS[:, :2], {}, scipy.stats.laplace(LOC, 0.7)),
    "laplace_learned": (Laplace(), OUTPUTS[:, :2], {"scale": 0.7}, scipy.stats.laplace(LOC, 0.7)),
    "laplace_per_example": (Laplace("per_example"), OUTPUTS, {}, scipy.stats.laplace(LOC, SCALE)),
    "student_t": (StudentT(5.0, 0.7), OUTPUTS[:, :2], {}, scipy.stats.t(5.0, LOC, 0.7)),
    "student_t_learned": (
        StudentT("learned"),
        OUTPUTS[:, :2],
        {"scale": 0.7, "df": 2.5},
        scipy.stats.t(2.5, LOC, 0.7),
    ),
    "student_t_per_example": (StudentT(3.0, "per_example"), OUTPUTS, {}, scipy.stats.t(3.0, LOC, SCALE)),
    "poisson": (Poisson(), OUTPUTS[:, :2], {}, scipy.stats.poisson(np.exp(LOC))),
    "poisson_large": (Poisson(), 5.0 + OUTPUTS[:, :2], {}, scipy.stats.poisson(np.exp(5.0 + LOC))),
    "negative_binomial": (NegativeBinomial(0.3), OUTPUTS[:, :2], {}, negative_binomial(np.exp(LOC), 0.3)),
    "negative_binomial_learned": (
        NegativeBinomial(),
        OUTPUTS[:, :2],
        {"dispersion": 2.5},
        negative_binomial(np.exp(LOC), 2.5),
    ),
    "negative_binomial_per_example": (
        NegativeBinomial("per_example"),
        OUTPUTS,
        {},
        negative_binomial(np.exp(LOC), DISPERSION),
    ),
    "negative_binomial_like_poisson": (
        NegativeBinomial(1e-4),
        5.0 + OUTPUTS[:, :2],
        {},
        negative_binomial(np.exp(5.0 + LOC), 1e-4),
    ),
    "negative_binomial_large": (
        NegativeBinomial(4.0),
        7.0 + OUTPUTS[:, :2],
        {},
        negative_binomial(np.exp(7.0 + LOC), 4.0),
    ),
}


@pytest.fixture(params=CASES)
def each(request, add_weight):
    likelihood, outputs, parameters, true = CASES[request.param]
    weights = likelihood.add_weights(add_weight)
    likelihood.assign_parameters(weights, {role: np.float32(value) for role, value in parameters.items()})
    return likelihood, outputs, {role: np.asarray(value) for role, value in weights.items()}, true


def test_log_probabilities_equal_scipy(each):
    likelihood, outputs, weights, true = each
    y = true.rvs(random_state=1).astype(np.float32)
    likelihood.check_targets(y, outputs.shape[1])
    log_density = true.logpmf if hasattr(true.dist, "pmf") else true.logpdf
    found = likelihood.log_prob(y, outputs, weights)
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, log_density(y.astype(np.float64)).sum(axis=1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("likelihood", "distribution"),
    [(Poisson(), scipy.stats.poisson), (NegativeBinomial(1e-6), lambda mean: negative_binomial(mean, 1e-6))],
    ids=["poisson", "negative_binomial"],
)
def test_log_probabilities_of_hundreds_of_thousands_equal_scipy(likelihood, distribution):
    log_means = np.float32(12.0) + OUTPUTS[:, :2]
    true = distribution(np.exp(log_means.astype(np.float64)))
    y = true.rvs(random_state=1).astype(np.float32)
    expected = true.logpmf(y.astype(np.float64)).sum(axis=1)
    np.testing.assert_allclose(likelihood.log_prob(y, log_means, {}), expected, rtol=1e-5)

    @tf.function(jit_compile=True, autograph=False)
    def compiled(outputs):
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            found = likelihood.log_prob(y, outputs, {})
        return found, tape.gradient(found, outputs)

    found, gradient = compiled(tf.constant(log_means))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    # The score of the mean, times the mean.
    np.testing.assert_allclose(gradient, (y - true.mean()) * true.mean() / true.var(), rtol=1e-4)


def test_moments_and_quantiles_equal_scipy(each):
    likelihood, outputs, weights, true = each
    predictive = PosteriorPredictive(likelihood, weights, outputs[None], {}, (1, *outputs.shape))
    np.testing.assert_allclose(predictive.mean(), np.broadcast_to(true.mean(), LOC.shape), rtol=1e-4)
    np.testing.assert_allclose(predictive.aleatoric(), np.broadcast_to(true.var(), LOC.shape), rtol=1e-3)
    np.testing.assert_array_equal(predictive.epistemic(), 0.0)
    levels = np.array([0.05, 0.5, 0.95])
    found = predictive.quantiles(levels)
    if hasattr(true.dist, "pmf"):
        # The smallest count that reaches the level, but for the rounding of float32.
        for level, quantile in zip(levels, found, strict=True):
            assert (true.cdf(quantile) > level - 2e-5).all()
            assert (true.cdf(quantile - 1) < level + 2e-5).all()
        below, at_most = likelihood.levels(outputs[None], weights, found[1])
        np.testing.assert_allclose([below[0], at_most[0]], [true.cdf(found[1] - 1), true.cdf(found[1])], atol=2e-5)
    else:
        np.testing.assert_allclose(found, [true.ppf(level) for level in levels], rtol=2e-3, atol=2e-3)


def test_the_entropy_of_one_distribution_is_that_of_scipy():
    for name in ("laplace", "student_t", "poisson"):
        likelihood, outputs, _, true = CASES[name]
        predictive = PosteriorPredictive(likelihood, {}, outputs[None], {}, (1, *outputs.shape))
        # 1,000 points.
        np.testing.assert_allclose(predictive.entropy(), np.broadcast_to(true.entropy(), LOC.shape), atol=0.1)


# === Targets that depend on one another ===


def mixture_of(outputs, components, targets):
    """Weights `(n, K)`, locations and scales `(n, K, d)` of a mixture, in float64."""
    outputs = outputs.astype(np.float64)
    number = components * targets
    logits, locs, raw = np.split(outputs, [components, components + number], axis=1)
    shape = (len(outputs), components, targets)
    return scipy.special.softmax(logits, axis=1), locs.reshape(shape), 1e-6 + np.logaddexp(0.0, raw.reshape(shape))


@pytest.mark.parametrize("targets", [1, 2])
def test_the_density_of_a_mixture_is_a_weighted_sum(targets):
    likelihood = MixtureNormal(3)
    outputs = RNG.normal(size=(ROWS, likelihood.num_outputs_for(np.zeros((1, targets))))).astype(np.float32)
    y = RNG.normal(size=(ROWS, targets)).astype(np.float32)
    shares, locs, scales = mixture_of(outputs, 3, targets)
    density = (shares * scipy.stats.norm.pdf(y[:, None], locs, scales).prod(axis=-1)).sum(axis=1)
    np.testing.assert_allclose(likelihood.log_prob(y, outputs, {}), np.log(density), rtol=1e-4, atol=1e-5)
    mean = (shares[..., None] * locs).sum(axis=1)
    variance = (shares[..., None] * (scales**2 + locs**2)).sum(axis=1) - mean**2
    predictive = PosteriorPredictive(likelihood, {}, outputs[None], {}, (1, *outputs.shape))
    np.testing.assert_allclose(predictive.mean(), mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(predictive.aleatoric(), variance, rtol=1e-3)
    for level, quantile in zip((0.05, 0.5, 0.95), predictive.quantiles([0.05, 0.5, 0.95]), strict=True):
        below = (shares[..., None] * scipy.stats.norm.cdf(quantile[:, None], locs, scales)).sum(axis=1)
        np.testing.assert_allclose(below, level, atol=1e-4)
    assert predictive.entropy().shape == (ROWS, 1)


@pytest.mark.slow
def test_the_density_of_a_multivariate_normal_has_the_covariance_of_its_factor():
    likelihood = MultivariateNormal()
    outputs = RNG.normal(size=(ROWS, 9)).astype(np.float32)
    assert likelihood.num_targets(9) == 3
    y = RNG.normal(size=(ROWS, 3)).astype(np.float32)
    predictive = PosteriorPredictive(likelihood, {}, outputs[None], {}, (1, *outputs.shape))
    for row, target in enumerate(y):
        s = 1e-6 + np.logaddexp(0.0, outputs[row, 3:6].astype(np.float64))
        c21, c31, c32 = outputs[row, 6:].astype(np.float64)
        factor = s[:, None] * np.array([[1, 0, 0], [c21, 1, 0], [c31, c32, 1]])
        true = scipy.stats.multivariate_normal(outputs[row, :3], factor @ factor.T)
        np.testing.assert_allclose(predictive.log_prob(y)[row], true.logpdf(target), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(predictive.aleatoric()[row], np.diag(true.cov), rtol=1e-4)
        marginal = scipy.stats.norm(outputs[row, :3], np.sqrt(np.diag(true.cov)))
        np.testing.assert_allclose(predictive.quantiles(0.9)[row], marginal.ppf(0.9), rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(predictive.pit(y)[row], marginal.cdf(target), atol=1e-4)


def test_a_learned_covariance_is_known_by_its_cholesky_factor(add_weight):
    likelihood = MultivariateNormal("learned", num_targets=2, initial_scale=3.0)
    weights = likelihood.add_weights(add_weight)
    np.testing.assert_allclose(likelihood.parameters(weights)["scale_tril"], 3.0 * np.eye(2), rtol=1e-6)
    factor = np.array([[2.0, 0.0], [-3.0, 0.5]])
    likelihood.assign_parameters(weights, {"scale_tril": factor})
    np.testing.assert_allclose(likelihood.parameters(weights)["scale_tril"], factor, rtol=1e-5)
    found = likelihood.distribution(OUTPUTS[:, :2], weights).covariance()
    np.testing.assert_allclose(found, np.broadcast_to(factor @ factor.T, (ROWS, 2, 2)), rtol=1e-4)
    for wrong in (np.diag([1.0, -1.0]), np.ones((2, 2)), np.eye(3)):
        with pytest.raises(ValueError, match="scale_tril"):
            likelihood.assign_parameters(weights, {"scale_tril": wrong})


# === In units of the target ===


@pytest.mark.parametrize(
    ("likelihood", "num_outputs", "targets"),
    [
        (tfp_bnn.likelihoods.Normal("per_example"), 4, 2),
        (tfp_bnn.likelihoods.Normal(1.0), 2, 2),
        (Laplace("per_example"), 2, 1),
        (StudentT(4.0, "per_example"), 4, 2),
        (MixtureNormal(3), 9, 1),
        (MixtureNormal(2), 10, 2),
        (MultivariateNormal(), 5, 2),
    ],
    ids=repr,
)
def test_outputs_in_target_units_shift_and_scale_the_targets(likelihood, num_outputs, targets):
    outputs = RNG.normal(size=(ROWS, num_outputs)).astype(np.float32)
    mean, scale = np.array([150.0, -3.0])[:targets], np.array([77.0, 0.2])[:targets]
    if likelihood == tfp_bnn.likelihoods.Normal(1.0):
        # Its scale is known in units of the target.
        scale = np.ones(targets)
    z = RNG.normal(size=(ROWS, targets)).astype(np.float32)
    found = likelihood.in_target_units(outputs, mean.tolist(), scale.tolist())
    expected = likelihood.log_prob(z, outputs, {}) - np.log(scale).sum()
    y = (mean + scale * z).astype(np.float32)
    np.testing.assert_allclose(likelihood.log_prob(y, found, {}), expected, rtol=2e-3, atol=2e-3)


def test_scales_that_underflow_stay_finite_in_target_units():
    outputs = tf.Variable([[0.0, -200.0], [0.0, 200.0]])
    with tf.GradientTape() as tape:
        found = Laplace("per_example").in_target_units(outputs, [3.0], [77.0])
    assert np.isfinite(found).all()
    assert np.isfinite(tape.gradient(found, outputs)).all()
    np.testing.assert_allclose(found[1], [3.0, 200.0 * 77.0], rtol=1e-6)


def test_a_learned_scale_starts_at_that_of_the_targets():
    assert Laplace().rescaled(7.0) == Laplace(initial_scale=7.0)
    assert StudentT(5.0).rescaled(7.0) == StudentT(5.0, initial_scale=7.0)
    assert MultivariateNormal("learned", 2).rescaled(7.0) == MultivariateNormal("learned", 2, initial_scale=7.0)
    for other in (Laplace(0.5), StudentT(5.0, "per_example"), MultivariateNormal(), Poisson(), MixtureNormal()):
        assert other.rescaled(7.0) == other


# === Refusals ===


@pytest.mark.parametrize("likelihood", [Poisson(), NegativeBinomial(), NegativeBinomial("per_example")], ids=repr)
@pytest.mark.parametrize(
    ("y", "message"),
    [([1.0, -1.0], "1 of 2 .* first is -1.0 in row 1"), ([0.5, 1.0], "first is 0.5 in row 0"), ([np.nan, 1.0], "nan")],
)
def test_counts_must_be_whole_and_not_negative(likelihood, y, message):
    num_outputs = likelihood.num_outputs_for(np.asarray(y))
    with pytest.raises(ValueError, match=f"expects whole numbers >= 0, but .*{message}"):
        likelihood.check_targets(np.asarray(y), num_outputs)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Laplace(0.0), "`scale` of the likelihood 'laplace' must be a number > 0"),
        (lambda: Laplace("learn"), "but got 'learn'"),
        (lambda: StudentT(initial_scale=-1.0), "`initial_scale` of the likelihood 'student_t' must be a finite"),
        (lambda: StudentT(2.0), "must be a finite number > 2 or 'learned', but got 2.0. With 2 or less the variance"),
        (lambda: StudentT(initial_df="learned"), "`initial_df` of the likelihood 'student_t' must be a finite number"),
        (lambda: NegativeBinomial("learn"), "`dispersion` of the likelihood 'negative_binomial' must be a number > 0"),
        (lambda: NegativeBinomial(initial_dispersion=0), "`initial_dispersion` of the likelihood"),
        (lambda: MixtureNormal(0), "`num_components` must be an integer >= 1"),
        (lambda: MultivariateNormal("learned"), "needs `num_targets`, the number of targets"),
        (lambda: MultivariateNormal("full"), "`scale_tril` of the likelihood 'multivariate_normal' must be"),
        (lambda: Laplace("per_example").num_targets(3), "needs two outputs for each target, [locations, untransformed"),
        (lambda: NegativeBinomial("per_example").num_targets(3), "needs two outputs for each target, [log means"),
        (lambda: MixtureNormal(3).num_targets(8), "which is 9 for one target, 15 for two and 21 for three, but"),
        (lambda: MultivariateNormal().num_targets(6), "needs 5 outputs for 2 targets, but the model has 6"),
        (lambda: MultivariateNormal("learned", 2).num_outputs_for(np.zeros((1, 3))), "is for 2 targets, but the data"),
        (lambda: Poisson().in_target_units(OUTPUTS, [0.0], [1.0]), "are counts, which are whole numbers and cannot be"),
        (lambda: LIKELIHOODS.get("categorical").in_target_units(OUTPUTS, [0.0], [1.0]), "are classes, which cannot"),
        (lambda: Silent().in_target_units(OUTPUTS, [0.0], [1.0]), "override `in_target_units`"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


class Silent(Likelihood):
    """Does not say which of its outputs have a unit."""


def test_every_name_that_users_look_for_is_known_or_has_a_neighbour():
    # Case 06: these were all refused.
    for name in ("poisson", "negative_binomial", "laplace", "student_t"):
        assert LIKELIHOODS.get(name).num_targets(1) == 1
    with pytest.raises(ValueError, match="Did you mean 'mixture_normal'"):
        LIKELIHOODS.get("mixture")
    with pytest.raises(TypeError, match=r"@LIKELIHOODS\.register"):
        LIKELIHOODS.get(Silent())

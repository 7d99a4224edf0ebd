"""Full-rank and mean-field variational inference over all weights, against the closed forms of a linear model."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import scipy.stats

import tfp_bnn
from tfp_bnn.inference import VariationalNormal, full_rank, mean_field, variational_normal
from tfp_bnn.inference.log_posterior import LogPosterior
from tfp_bnn.layers import DenseFlipout

RNG = np.random.default_rng(0)
# Columns that go together, so the weights depend on each other a posteriori.
X = (RNG.normal(size=(30, 3)) + RNG.normal(size=(30, 1))).astype(np.float32)
Y = (X @ np.array([[1.0], [-0.5], [0.2]]) + 0.5 * RNG.normal(size=(30, 1))).astype(np.float32)
NOISE, PRIOR_SCALE = 0.5, 0.7
PRIOR = {"name": "normal", "scale": PRIOR_SCALE}
FEW = {"num_steps": 5, "num_draws": 2, "learning_rate": 1e-5, "verbose": 0}


def linear_gaussian(likelihood=None, **arguments):
    keras.utils.set_random_seed(0)
    layer = DenseFlipout(**{"units": 1, "use_bias": False, "kernel_prior": PRIOR, "name": "outputs", **arguments})
    likelihood = likelihood or {"name": "normal", "scale": NOISE}
    return tfp_bnn.VariationalSequential([keras.Input((3,)), layer], likelihood=likelihood, seed=0, name="linear")


def exact():
    """Mean and precision of the weights, and log p(y) in nats."""
    x = X.astype(np.float64)
    precision = x.T @ x / NOISE**2 + np.eye(3) / PRIOR_SCALE**2
    mean = np.linalg.solve(precision, x.T @ Y.astype(np.float64)[:, 0] / NOISE**2)
    marginal = scipy.stats.multivariate_normal(np.zeros(30), PRIOR_SCALE**2 * x @ x.T + NOISE**2 * np.eye(30))
    return mean, precision, marginal.logpdf(Y[:, 0])


@pytest.mark.slow
def test_full_rank_is_the_exact_posterior_of_a_linear_model_and_its_bound_is_the_evidence():
    """The gradient has no noise at the optimum, so the tolerances are those of float32 and of the last steps."""
    posterior = full_rank(linear_gaussian(), X, Y, num_steps=1500, num_draws=8, verbose=0)
    mean, precision, log_evidence = exact()
    covariance = np.linalg.inv(precision)
    assert abs(covariance[0, 1]) > 0.2 * np.sqrt(covariance[0, 0] * covariance[1, 1])
    deviation = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((posterior.mean_weights - mean) / deviation, 0.0, atol=1e-3)
    np.testing.assert_allclose(
        posterior.covariance() / np.outer(deviation, deviation), covariance / np.outer(deviation, deviation), atol=2e-3
    )
    # A single draw suffices: where q is the posterior, the bound is the same for all draws.
    assert posterior.elbo(num_draws=1) == pytest.approx(log_evidence, abs=2e-3)
    assert posterior.bounds[-1] == pytest.approx(log_evidence, abs=2e-3)


def test_the_bound_of_many_rows_is_computed_in_blocks(monkeypatch):
    posterior, sizes = mean_field(linear_gaussian(), X, Y, **FEW), []
    whole, of_all, of_rows = posterior.elbo(num_draws=5), LogPosterior.__call__, LogPosterior.log_likelihood

    def counted_draws(self, vectors):
        sizes.append(len(vectors) * len(X))
        return of_all(self, vectors)

    def counted_rows(self, vector, x, *others):
        sizes.append(len(x))
        return of_rows(self, vector, x, *others)

    monkeypatch.setattr(LogPosterior, "__call__", counted_draws)
    monkeypatch.setattr(variational_normal, "_MOST_ROWS", 70)
    assert posterior.elbo(num_draws=5) == pytest.approx(whole, rel=1e-6)
    assert sizes == [60, 60, 30]
    sizes.clear()
    monkeypatch.setattr(LogPosterior, "log_likelihood", counted_rows)
    monkeypatch.setattr(variational_normal, "_MOST_ROWS", 20)
    assert posterior.elbo(num_draws=5) == pytest.approx(whole, rel=1e-6)
    assert set(sizes) == {15}


@pytest.mark.slow
def test_mean_field_has_the_exact_means_and_the_conditional_scales_of_a_linear_model():
    """Its optimum: s_i = precision_ii^-1/2, and log p(y) minus the KL between the two normals as the bound.

    Noise of the last steps moves the scales by about 0.3 %; the seed is fixed.
    """
    posterior = mean_field(linear_gaussian(), X, Y, num_steps=1500, num_draws=16, verbose=0)
    mean, precision, log_evidence = exact()
    deviation = np.sqrt(np.diag(np.linalg.inv(precision)))
    np.testing.assert_allclose((posterior.mean_weights - mean) / deviation, 0.0, atol=2e-3)
    scales = np.sqrt(np.diag(posterior.covariance()))
    np.testing.assert_allclose(scales, np.diag(precision) ** -0.5, rtol=0.02)
    kl = 0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1])
    assert kl > 0.1
    assert posterior.elbo(num_draws=5000) == pytest.approx(log_evidence - kl, abs=0.06)


@pytest.mark.slow
@pytest.mark.statistical
def test_batches_lead_to_the_same_posterior_but_for_their_noise():
    """With 10 of the 30 rows per step, the gradient is right on average; its noise falls with the rate.

    Errors of two seeds were at most 0.12 deviations in the means and 3 % in the scales; the seed is fixed.
    """
    posterior = full_rank(linear_gaussian(), X, Y, num_steps=3000, num_draws=4, batch_size=10, verbose=0)
    mean, precision, _ = exact()
    deviation = np.sqrt(np.diag(np.linalg.inv(precision)))
    np.testing.assert_allclose((posterior.mean_weights - mean) / deviation, 0.0, atol=0.25)
    np.testing.assert_allclose(np.sqrt(np.diag(posterior.covariance())), deviation, rtol=0.15)
    with pytest.raises(ValueError, match="`batch_size` is 31, but there are only 30 examples"):
        full_rank(linear_gaussian(), X, Y, batch_size=31, **FEW)


@pytest.fixture(scope="module")
def learned_noise():
    """A posterior of three weights and a learned noise, after steps that are too few and too small to change much."""
    model = linear_gaussian(likelihood="normal")
    before = model.get_weights()
    return model, before, full_rank(model, X, Y, seed=3, **FEW)


def test_learned_noise_has_a_posterior_of_its_own(learned_noise):
    _, _, posterior = learned_noise
    assert posterior.num_weights == 4
    draws = posterior.draws(seed=1)
    (first,), (second,) = (draws.likelihood_weights(k).values() for k in range(2))
    (plug_in,) = posterior.plug_in_draws().likelihood_weights(0).values()
    assert first != second
    assert plug_in == posterior.mean_weights[-1]
    predictive = posterior.posterior_predictive(X, num_samples=3, seed=1)
    variances = [np.exp(2 * draws.likelihood_weights(k)["log_scale"]) for k in range(3)]
    np.testing.assert_allclose(predictive.aleatoric(), np.full((30, 1), np.mean(variances)), rtol=1e-6)
    assert np.isfinite(predictive.log_prob(Y)).all()


def test_draws_have_the_covariance(learned_noise):
    _, _, posterior = learned_noise
    assert posterior.bounds.shape == (5,)
    columns = np.stack([posterior.perturbation(UnitNoise(unit)) for unit in np.eye(4, dtype=np.float32)], axis=1)
    np.testing.assert_allclose(columns @ columns.T, posterior.covariance(), rtol=1e-5, atol=1e-9)


class UnitNoise:
    def __init__(self, unit):
        self.unit = unit

    def normal(self, name, shape):
        return self.unit


def test_the_model_is_not_changed_and_its_means_are_the_start(learned_noise):
    model, before, posterior = learned_noise
    for weight, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)
    (start,) = (np.asarray(w.posterior_variables["loc"]) for w in model.layers[0].variational_weights.values())
    np.testing.assert_allclose(posterior.mean_weights[:3], start[:, 0], atol=1e-4)


def test_the_result_says_what_it_is(learned_noise):
    _, _, posterior = learned_noise
    assert isinstance(posterior, VariationalNormal)
    assert repr(posterior) == "VariationalNormal('full_rank_of_linear', way='full_rank', weights=4)"


@pytest.mark.slow
def test_equal_seeds_give_equal_bits(learned_noise):
    _, _, posterior = learned_noise
    again, other = (full_rank(linear_gaussian(likelihood="normal"), X, Y, seed=seed, **FEW) for seed in (3, 4))
    np.testing.assert_array_equal(again.mean_weights, posterior.mean_weights)
    np.testing.assert_array_equal(again.covariance(), posterior.covariance())
    assert not np.array_equal(other.covariance(), posterior.covariance())


def test_what_does_not_fit_is_refused_with_the_count():
    with pytest.raises(ValueError, match="`num_draws` must be even, because draws come in pairs, but got 3"):
        full_rank(linear_gaussian(), X, Y, num_draws=3)
    with pytest.raises(ValueError, match="`learning_rate` of `mean_field` must be a finite number larger than 0"):
        mean_field(linear_gaussian(), X, Y, learning_rate=0.0)
    with pytest.raises(ValueError, match=r"1 weights have no prior.*outputs/bias.*`full_rank`"):
        full_rank(linear_gaussian(use_bias=True), X, Y)
    with pytest.raises(ValueError, match="The covariance of 4,500 weights does not fit"):
        full_rank(linear_gaussian(units=1500), X, np.zeros((30, 1500)))
    with pytest.raises(ValueError, match="100000 x 30 = 3000000 rows"):
        mean_field(linear_gaussian(), X, Y, num_draws=100_000)


@pytest.mark.slow
def test_a_bound_that_is_not_finite_is_an_error():
    with pytest.raises(ValueError, match=r"The bound was NaN or infinite in . of 1 steps from step"):
        mean_field(linear_gaussian(), X, Y, **{**FEW, "learning_rate": 1e20})

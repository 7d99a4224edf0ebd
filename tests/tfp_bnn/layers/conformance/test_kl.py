"""The KL: TFP's closed form where it has one, otherwise a large Monte Carlo estimate made in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.core.noise import Noise, noise_scope
from tfp_bnn.layers import DenseReparameterization
from tfp_bnn.posteriors import POSTERIORS
from tfp_bnn.priors import PRIORS

from .cases import CASES, FALSE_FAILURE_RATE, Case, each_with_the_default, for_each_costly_case, one_at_a_time
from .reference import perturbations, randomize, sample_noise

NUM_DRAWS = 2000
NUM_REFERENCE_DRAWS = 20_000
SPREAD = [name for name in POSTERIORS if POSTERIORS[name].has_spread]
# Their KL has a closed form, whatever the posterior.
CLOSED = ("normal", "informed")


def log_horseshoe(w, scale):
    """The exact marginal log density, by the exponential integral."""
    u = (w / scale) ** 2 / 2
    # exp(u) * E1(u), which underflows for large u, is 1 / (u + 1) to 0.1 % there.
    scaled = np.where(u < 500, np.exp(np.minimum(u, 500)) * scipy.special.exp1(np.minimum(u, 500)), 1 / (u + 1))
    return np.log(scaled / (scale * math.sqrt(2 * math.pi**3)))


def log_mixture(w, probability, scale_1, scale_2):
    parts = [
        math.log(p) + scipy.stats.norm.logpdf(w, 0, s) for p, s in ((probability, scale_1), (1 - probability, scale_2))
    ]
    return np.logaddexp(*parts)


# Each proper prior: its config, and its log density per weight.
LOG_PRIORS = {
    "normal": ({"scale": 0.7}, lambda w: scipy.stats.norm.logpdf(w, 0, 0.7)),
    "scale_mixture": (
        {"mixture_probability": 0.3, "scale_1": 0.9, "scale_2": 0.2, "scale": 1.5},
        lambda w: log_mixture(w, 0.3, 1.35, 0.3),
    ),
    "laplace": ({"scale": 0.6}, lambda w: scipy.stats.laplace.logpdf(w, 0, 0.6)),
    "cauchy": ({"scale": 0.6}, lambda w: scipy.stats.cauchy.logpdf(w, 0, 0.6)),
    "student_t": ({"df": 2.5, "scale": 0.6}, lambda w: scipy.stats.t.logpdf(w, 2.5, 0, 0.6)),
    "horseshoe": ({"scale": 0.4}, lambda w: log_horseshoe(w, 0.4)),
    "tfp_distribution": (
        {"family": "Gumbel", "parameters": {"loc": 0.1, "scale": 0.8}},
        lambda w: scipy.stats.gumbel_r.logpdf(w, 0.1, 0.8),
    ),
    "informed": ({"initial_scale": 0.7}, lambda w: scipy.stats.norm.logpdf(w, 0, 0.7)),
}


def log_posterior(posterior, p, w):
    """The log density of the posterior of one weight at draws `(draws, ...)`."""
    flat, loc = w.reshape(len(w), -1), p["loc"].ravel()
    if posterior == "low_rank_normal":
        return scipy.stats.multivariate_normal.logpdf(flat, loc, covariance_of(p))
    standardized = (flat - loc) / p["scale"].ravel()
    if posterior == "mean_field_normal":
        return (scipy.stats.norm.logpdf(standardized) - np.log(p["scale"].ravel())).sum(axis=1)
    radius = np.linalg.norm(standardized, axis=1)
    density_on_the_sphere = scipy.stats.halfnorm.logpdf(radius) - (loc.size - 1) * np.log(radius) - log_area(loc.size)
    return density_on_the_sphere - np.log(p["scale"]).sum()


def test_every_proper_prior_has_a_reference():
    assert set(LOG_PRIORS) == {name for name in PRIORS if not PRIORS[name].improper}


@pytest.mark.statistical
@pytest.mark.parametrize(("prior", "posterior"), each_with_the_default(LOG_PRIORS, SPREAD))
def test_kl_agrees_with_a_monte_carlo_estimate(posterior, prior):
    """2,000 draws of the layer's KL, or its closed form, against 20,000 in NumPy; false-failure rate 1e-6 over all.

    Normal quantiles by the central limit theorem. TFP's density of the horseshoe is an approximation, to 0.02 in the
    logarithm.
    """
    config, log_prior = LOG_PRIORS[prior]
    layer = Case(DenseReparameterization, posterior).build(
        kernel_prior={"name": prior, **config}, use_bias=False, bias_posterior=None
    )
    parameters = randomize(layer)
    draws = kl_draws(layer, 2 if prior in CLOSED else NUM_DRAWS)
    assert (len(np.unique(draws)) == 1) == (prior in CLOSED)

    rng = np.random.default_rng(0)
    p = parameters["kernel"]
    steps = [
        perturbations(parameters, sample_noise(posterior, parameters, rng))["kernel"]
        for _ in range(NUM_REFERENCE_DRAWS)
    ]
    w = p["loc"] + np.stack(steps)
    reference = log_posterior(posterior, p, w) - log_prior(w).sum(axis=(1, 2))
    error = abs(draws.mean(dtype=np.float64) - reference.mean())
    standard_error = math.sqrt(draws.var(dtype=np.float64) / len(draws) + reference.var() / len(reference))
    tolerance = 0.02 * p["loc"].size if prior == "horseshoe" else 1e-4
    tail = FALSE_FAILURE_RATE / (2 * len(SPREAD) * len(LOG_PRIORS))
    assert error < tolerance + scipy.stats.norm.isf(tail) * standard_error


def kl_draws(layer, num_draws):
    """Many values of the layer's KL, each of a draw of its own."""

    @tf.function(autograph=False)
    def run():
        def once(index):
            with noise_scope({id(layer): Noise(tf.constant([5, 0])).fold_in(index)}):
                return layer.kl()

        return tf.map_fn(once, tf.range(num_draws), fn_output_signature=tf.float32)

    return run().numpy()


@pytest.mark.parametrize("prior", LOG_PRIORS)
def test_kl_of_a_delta_posterior_is_minus_the_log_density_of_the_prior(prior):
    config, log_prior = LOG_PRIORS[prior]
    layer = Case(DenseReparameterization, "delta").build(kernel_prior={"name": prior, **config}, bias_posterior=None)
    loc = randomize(layer)["kernel"]["loc"]
    tolerance = 0.02 * loc.size if prior == "horseshoe" else 0.0
    np.testing.assert_allclose(layer.kl(), -log_prior(loc).sum(), rtol=1e-5, atol=tolerance)


@pytest.mark.parametrize("case", one_at_a_time(case for case in CASES if case.posterior != "delta"), ids=str)
def test_a_kl_without_closed_form_reuses_the_draw_of_the_step(case, injected_noise):
    layer = case.build(**case.of_all_weights("prior", "laplace"), kl_weight=1.0)
    parameters = randomize(layer)
    with noise_scope({id(layer): injected_noise}):
        layer(case.inputs(), training=True)
        kl = layer.kl()
    steps = perturbations(parameters, injected_noise.drawn)
    expected = 0.0
    for name in layer.variational_weights:
        p = parameters[name]
        w = p["loc"] + steps[name]
        # Where the weights depend on each other, the entropy stands in for that of the draw.
        is_independent = case.posterior == "mean_field_normal"
        expected += (
            log_posterior(case.posterior, p, w[np.newaxis])[0] if is_independent else -entropy(case.posterior, p)
        )
        expected -= scipy.stats.laplace.logpdf(w).sum()
    np.testing.assert_allclose(layer.losses[0], expected, rtol=1e-4)
    np.testing.assert_allclose(kl, expected, rtol=1e-4)


@for_each_costly_case
def test_kl_to_a_normal_prior_is_the_closed_form_summed_over_all_weights(case):
    layer = case.build(**case.of_all_weights("prior", {"name": "normal", "scale": 0.7}))
    parameters = randomize(layer)
    expected = sum(closed_form(case.posterior, parameters[name], 0.7) for name in layer.variational_weights)
    assert layer.kl().shape == ()
    assert layer.kl().dtype == tf.float32
    np.testing.assert_allclose(layer.kl(), expected, rtol=1e-5)
    for prefix in layer.bayesian_weights.values():
        assert getattr(layer, f"{prefix}_prior") is not None


def closed_form(posterior, p, prior_scale):
    """KL of one weight to N(0, prior_scale^2), by TFP in float64, from distributions that are not ours."""
    loc = p["loc"].ravel()
    prior = tfd.MultivariateNormalDiag(np.zeros_like(loc), np.full(loc.size, prior_scale))
    if posterior == "delta":
        return -prior.log_prob(loc)
    if posterior == "radial":
        # In TFP there is none.
        mean_square = (p["scale"] ** 2).sum() / loc.size
        return -entropy(posterior, p) - prior.log_prob(loc) + mean_square / (2 * prior_scale**2)
    root = np.linalg.cholesky(covariance_of(p))
    return tfd.kl_divergence(tfd.MultivariateNormalTriL(loc, root), prior)


def entropy(posterior, p):
    """The entropy of the posterior of one weight, in nats."""
    if posterior != "radial":
        covariance = covariance_of(p)
        return scipy.stats.multivariate_normal(np.zeros(len(covariance)), covariance).entropy()
    # That of the radius, of the direction on the sphere, and of the Jacobian (Farquhar et al. 2020).
    size = p["loc"].size
    mean_log_radius = -(np.euler_gamma + math.log(2)) / 2
    return scipy.stats.halfnorm.entropy() + (size - 1) * mean_log_radius + log_area(size) + np.log(p["scale"]).sum()


def covariance_of(p):
    size = p["loc"].size
    factor = p["factor"].reshape(size, -1) if "factor" in p else np.zeros((size, 1))
    return np.diag(p["scale"].ravel() ** 2) + factor @ factor.T


def log_area(size):
    """The area of the unit sphere in so many dimensions, as a logarithm."""
    return math.log(2) + size / 2 * math.log(math.pi) - math.lgamma(size / 2)

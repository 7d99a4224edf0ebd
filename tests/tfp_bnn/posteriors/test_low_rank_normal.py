"""The normal posterior of low rank, against SciPy and TFP with a dense covariance."""

from __future__ import annotations

import re

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_bnn.posteriors import LowRankNormal
from tfp_bnn.posteriors.low_rank_normal import LowRankNormalDistribution

tfd = tfp.distributions


def dense(weight):
    """The mean and the covariance of all weights, flattened, in float64."""
    parameters = {key: value.astype(np.float64) for key, value in weight.parameters().items()}
    factor = parameters["factor"].reshape(parameters["loc"].size, -1)
    return parameters["loc"].ravel(), np.diag(parameters["scale"].ravel() ** 2) + factor @ factor.T


def test_the_start_is_nearly_mean_field(random_weight, add_weight):
    posterior = LowRankNormal(3, initial_scale=0.2)
    weights = posterior.add_weights(add_weight, "kernel", tf.zeros((50, 40)))
    parameters = posterior.parameters(weights)
    assert parameters["factor"].shape == (50, 40, 3)
    np.testing.assert_allclose(parameters["scale"], 0.2, rtol=1e-5)
    # A tenth of the variance, and not 0, where it would have no gradient.
    np.testing.assert_allclose((parameters["factor"] ** 2).sum(axis=-1).mean(), 0.1 * 0.2**2, rtol=0.2)


@pytest.mark.parametrize("rank", [0, -1, 257, 1.0, True, "2", None])
def test_ranks_out_of_range_are_refused(rank):
    message = f"`rank` of the posterior 'low_rank_normal' must be an integer between 1 and 256, but got {rank!r}."
    with pytest.raises(ValueError, match=re.escape(message)):
        LowRankNormal(rank)


def test_a_perturbation_has_a_part_of_its_own_and_a_correlated_part(random_weight, injected_noise):
    weight = random_weight(posterior=LowRankNormal(3))
    perturbation = weight.perturbation(injected_noise)
    parameters, drawn = weight.parameters(), injected_noise.drawn
    assert {name: noise.shape for name, noise in drawn.items()} == {"kernel": (3, 4), "kernel_factor": (3,)}
    expected = parameters["scale"] * drawn["kernel"] + parameters["factor"] @ drawn["kernel_factor"]
    np.testing.assert_allclose(perturbation, expected, rtol=1e-5, atol=1e-6)
    variance = dense(weight)[1].diagonal().reshape(3, 4)
    np.testing.assert_allclose(weight.variance, variance, rtol=1e-5)


@pytest.mark.parametrize("rank", [1, 2, 20])
def test_the_entropy_is_that_of_the_dense_normal(rank, random_weight):
    weight = random_weight(posterior=LowRankNormal(rank))
    expected = scipy.stats.multivariate_normal(*dense(weight)).entropy()
    np.testing.assert_allclose(weight.posterior.entropy(), expected, rtol=1e-5)


@pytest.mark.parametrize("prior", ["normal", "informed"])
def test_the_kl_and_its_gradient_are_those_of_the_dense_normal(prior, random_weight, injected_noise):
    weight = random_weight(prior, "low_rank_normal")
    if prior == "informed":
        rng = np.random.default_rng(4)
        known = {"prior_loc": rng.normal(size=(3, 4)), "prior_scale": rng.uniform(0.3, 2.0, (3, 4))}
        weight.assign_parameters({**weight.parameters(), **known})
    variables = [variable.value for variable in weight.variables[:3]]
    with tf.GradientTape() as tape:
        kl = weight.kl(injected_noise)
    ours = tape.gradient(kl, variables)
    doubles = [tf.constant(variable.numpy().astype(np.float64)) for variable in variables]
    with tf.GradientTape() as tape:
        tape.watch(doubles)
        loc, untransformed_scale, factor = (tf.reshape(value, [12, -1]) for value in doubles)
        scale = np.finfo(np.float32).eps + tf.nn.softplus(untransformed_scale[:, 0])
        covariance = tf.linalg.diag(scale**2) + tf.matmul(factor, factor, transpose_b=True)
        posterior = tfd.MultivariateNormalTriL(loc[:, 0], tf.linalg.cholesky(covariance))
        p_loc, p_scale = (tf.reshape(tf.cast(f(), tf.float64), [12]) for f in (weight.prior.mean, weight.prior.stddev))
        expected = tfd.kl_divergence(posterior, tfd.MultivariateNormalTriL(p_loc, tf.linalg.diag(p_scale)))
    np.testing.assert_allclose(kl, expected, rtol=1e-5)
    for gradient, reference in zip(ours, tape.gradient(expected, doubles), strict=True):
        np.testing.assert_allclose(gradient, reference, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("scale", "factor_scale", "collinear", "tolerance"),
    [(0.05, 0.5, False, 1e-3), (1e-3, 1.0, False, 0.05), (1e-3, 1.0, True, 0.05), (1e-5, 1.0, False, 0.5)],
)
def test_a_factor_that_is_much_larger_than_the_scale(scale, factor_scale, collinear, tolerance):
    # TFP's own density, by Woodbury's formula, is off by 10 nats and by 100,000 in the last two cases.
    rng = np.random.default_rng(0)
    factor = factor_scale * rng.normal(size=(100, 3))
    if collinear:
        factor[:, 1] = factor[:, 0] * (1 + 1e-6)
    factor = factor.astype(np.float32)
    w = (factor @ rng.normal(size=3) + scale * rng.normal(size=100)).astype(np.float32)
    tensors = [tf.zeros(100), tf.fill([100], np.float32(scale)), tf.constant(factor)]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        log_prob = LowRankNormalDistribution(*tensors).log_prob(w)
    for gradient in tape.gradient(log_prob, tensors):
        assert np.isfinite(gradient).all()
    factor, w = factor.astype(np.float64), w.astype(np.float64)
    covariance = np.eye(100) * np.float64(np.float32(scale)) ** 2 + factor @ factor.T
    distance = w @ np.linalg.solve(covariance, w)
    expected = -0.5 * (100 * np.log(2 * np.pi) + np.linalg.slogdet(covariance)[1] + distance)
    np.testing.assert_allclose(log_prob, expected, atol=tolerance)


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize("through", ["perturbation", "distribution"])
def test_draws_have_the_stated_mean_and_covariance(through, random_weight, draw_tensors, assert_moments):
    """20,000 draws of 12 weights, whitened by the Cholesky factor of their covariance: then independent N(0, 1).

    False-failure rate 2e-6: see `assert_moments`, and for products of two weights the central limit theorem.
    """
    weight = random_weight(posterior="low_rank_normal")
    if through == "perturbation":
        draws = draw_tensors(weight.sample, 20_000)
    else:
        draws = weight.posterior.sample(20_000, seed=(0, 1)).numpy()
    mean, covariance = dense(weight)
    assert_moments(draws, mean.reshape(3, 4), covariance.diagonal().reshape(3, 4))
    white = np.linalg.solve(np.linalg.cholesky(covariance), (draws.reshape(-1, 12) - mean).T)
    assert_moments(white.T, np.zeros(12), np.ones(12))
    products = (white @ white.T / np.sqrt(len(draws)))[np.triu_indices(12, k=1)]
    np.testing.assert_array_less(np.abs(products), scipy.stats.norm.isf(1e-6 / (2 * products.size)))

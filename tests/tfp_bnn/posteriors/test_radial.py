"""The radial posterior, against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import tensorflow as tf

from tfp_bnn.posteriors.radial import RadialDistribution

TAIL = 1e-6


def parameters(shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape).astype(np.float32), rng.uniform(0.2, 0.8, shape).astype(np.float32)


def numpy_draws(loc, scale, number, seed):
    """Draws by definition: a normal radius times a direction."""
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=(number, *loc.shape))
    direction /= np.linalg.norm(direction.reshape(number, -1), axis=1).reshape(-1, *[1] * loc.ndim)
    return loc + scale * direction * rng.normal(size=(number, *[1] * loc.ndim))


def test_a_perturbation_is_a_direction_times_a_radius(random_weight, injected_noise):
    weight = random_weight(posterior="radial")
    perturbation = weight.perturbation(injected_noise)
    drawn = injected_noise.drawn
    assert {name: noise.shape for name, noise in drawn.items()} == {"kernel": (3, 4), "kernel_radius": ()}
    direction = drawn["kernel"] / np.linalg.norm(drawn["kernel"])
    np.testing.assert_allclose(
        perturbation, weight.parameters()["scale"] * direction * drawn["kernel_radius"], rtol=1e-5, atol=1e-7
    )
    np.testing.assert_allclose(weight.variance, weight.parameters()["scale"] ** 2 / 12, rtol=1e-5)


def test_the_radial_of_one_weight_is_the_normal():
    loc, scale = parameters((1,))
    w = np.append(np.linspace(-3, 3, 50), loc).astype(np.float32)
    ours = RadialDistribution(tf.constant(loc), tf.constant(scale))
    np.testing.assert_allclose(ours.log_prob(w[:, None]), scipy.stats.norm.logpdf(w, loc, scale), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ours.entropy(), scipy.stats.norm.entropy(loc, scale)[0], rtol=1e-5)
    np.testing.assert_allclose(ours.variance(), scale**2, rtol=1e-6)


def test_the_density_of_two_weights_integrates_to_one():
    loc, scale = parameters((2,))
    posterior = RadialDistribution(tf.constant(loc), tf.constant(scale))
    # In polar coordinates, stretched by the scales, where the pole at the mean is none.
    radius, angle = np.linspace(1e-4, 8, 4001), np.linspace(0, 2 * np.pi, 9)
    directions = scale * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    w = (loc + radius[:, None, None] * directions).astype(np.float32)
    density = np.exp(posterior.log_prob(w).numpy()) * radius[:, None] * scale.prod()
    mass = scipy.integrate.trapezoid(scipy.integrate.trapezoid(density, angle, axis=1), radius)
    # The hole of radius 0.0001 has the mass 0.00008.
    assert mass == pytest.approx(1.0, abs=2e-4)


@pytest.mark.parametrize("shape", [(2,), (3, 4), (200, 50)])
def test_the_density_is_finite_at_its_pole(shape):
    loc, scale = (tf.constant(value) for value in parameters(shape))
    tensors = [loc + 0.0, loc, scale]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        log_prob = RadialDistribution(tensors[1], tensors[2]).log_prob(tensors[0])
    assert np.isfinite(log_prob)
    for gradient in tape.gradient(log_prob, tensors):
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("shape", [(3, 4), (300, 100)])
def test_the_log_density_of_a_draw_hardly_depends_on_rounding(shape, log_posterior):
    loc, scale = parameters(shape)
    w = numpy_draws(loc, scale, 1, 3)[0].astype(np.float32)
    expected = log_posterior("radial", w, {"loc": loc, "scale": scale})
    ours = RadialDistribution(tf.constant(loc), tf.constant(scale)).log_prob(w)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-4)


# === Against draws ===


@pytest.mark.statistical
@pytest.mark.parametrize("shape", [(2,), (3, 4)])
def test_the_entropy_is_the_mean_of_the_log_density(shape, log_posterior):
    """20,000 NumPy draws. False-failure rate 1e-6, two-sided, by the central limit theorem."""
    loc, scale = parameters(shape)
    logs = [
        log_posterior("radial", w, {"loc": loc, "scale": scale})
        for w in numpy_draws(loc.astype(np.float64), scale.astype(np.float64), 20_000, 1)
    ]
    entropy = float(RadialDistribution(tf.constant(loc), tf.constant(scale)).entropy())
    assert abs(entropy + np.mean(logs)) < scipy.stats.norm.isf(TAIL / 2) * np.std(logs) / np.sqrt(len(logs))


@pytest.mark.statistical
@pytest.mark.parametrize("prior", ["normal", "laplace"])
def test_the_kl_agrees_with_numpy(prior, random_weight, draw_tensors, log_prior, log_posterior):
    """20,000 NumPy draws, and for the Laplace prior, whose KL is estimated, 4,000 estimates.

    False-failure rate 1e-6, two-sided, by the central limit theorem.
    """
    weight = random_weight(prior, "radial")
    parameters = weight.parameters()
    draws = numpy_draws(parameters["loc"].astype(np.float64), parameters["scale"].astype(np.float64), 20_000, 2)
    reference = [log_posterior("radial", w, parameters) for w in draws] - log_prior(prior, draws).sum(axis=(1, 2))
    ours = draw_tensors(weight.kl, 1 if prior == "normal" else 4000)
    error = np.sqrt(ours.var() / ours.size + reference.var() / reference.size)
    assert error < 0.3
    assert abs(ours.mean() - reference.mean()) < scipy.stats.norm.isf(TAIL / 2) * error


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize("through", ["perturbation", "distribution"])
def test_draws_have_a_normal_radius_and_a_uniform_direction(through, random_weight, draw_tensors):
    """20,000 draws of 12 weights.

    False-failure rate 1e-6 by Bonferroni's inequality: Kolmogorov-Smirnov tests of the signed distance along each
    weight, and by the central limit theorem the products of two weights.
    """
    weight = random_weight(posterior="radial")
    if through == "perturbation":
        draws = draw_tensors(weight.sample, 20_000)
    else:
        draws = weight.posterior.sample(20_000, seed=(0, 1)).numpy()
    parameters = weight.parameters()
    z = ((draws - parameters["loc"]) / parameters["scale"]).reshape(-1, 12).astype(np.float64)
    radius = np.linalg.norm(z, axis=1)
    unit = z / radius[:, None]
    pairs = np.triu_indices(12, k=1)
    level = TAIL / (1 + 2 * 12 + pairs[0].size)
    assert scipy.stats.kstest(radius, scipy.stats.halfnorm.cdf).pvalue > level
    for along in unit.T:
        assert scipy.stats.kstest(along**2, scipy.stats.beta(0.5, 5.5).cdf).pvalue > level
        assert scipy.stats.binomtest(int((along > 0).sum()), along.size).pvalue > level
    # E[u_i^2 u_j^2] of a uniform direction in D dimensions is 1 / (D (D + 2)).
    products = (unit.T @ unit)[pairs] / np.sqrt(len(unit) / (12 * 14))
    np.testing.assert_array_less(np.abs(products), scipy.stats.norm.isf(level / 2))

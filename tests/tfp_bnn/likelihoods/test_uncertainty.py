"""The decomposition of uncertainty and the quantiles of the built-in likelihoods, against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.special
import scipy.stats
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.likelihoods import Bernoulli, Categorical, Normal

NUM_EXAMPLES = 7


def random_outputs(*shape, seed=0, scale=2.0):
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def softplus(x):
    return np.logaddexp(0.0, np.asarray(x, np.float64))


# === The decomposition of uncertainty ===


def test_the_decomposition_of_the_categorical():
    logits = random_outputs(20, NUM_EXAMPLES, 4)
    p = scipy.special.softmax(logits.astype(np.float64), axis=-1)
    total, expected = scipy.stats.entropy(p.mean(axis=0), axis=-1), scipy.stats.entropy(p, axis=-1).mean(axis=0)
    mutual_information = scipy.stats.entropy(p, p.mean(axis=0)[None], axis=-1).mean(axis=0)
    assert_decomposition(Categorical(), logits, total, expected, mutual_information)


@pytest.mark.parametrize("num_outputs", [1, 3])
def test_the_decomposition_of_the_bernoulli(num_outputs):
    logits = random_outputs(20, NUM_EXAMPLES, num_outputs)
    p = scipy.special.expit(logits.astype(np.float64))
    total = scipy.stats.bernoulli.entropy(p.mean(axis=0)).sum(axis=-1)
    expected = scipy.stats.bernoulli.entropy(p).mean(axis=0).sum(axis=-1)
    assert_decomposition(Bernoulli(), logits, total, expected, total - expected)


def assert_decomposition(likelihood, outputs, total, aleatoric, epistemic):
    np.testing.assert_allclose(likelihood.entropy(outputs, {}), total, rtol=1e-5)
    np.testing.assert_allclose(likelihood.aleatoric(outputs, {}), aleatoric, rtol=1e-5)
    np.testing.assert_allclose(likelihood.epistemic(outputs, {}), epistemic, rtol=1e-4, atol=1e-6)
    sum_of_parts = likelihood.aleatoric(outputs, {}) + likelihood.epistemic(outputs, {})
    np.testing.assert_allclose(likelihood.entropy(outputs, {}), sum_of_parts, rtol=1e-5)
    assert (likelihood.epistemic(outputs, {}).numpy() >= 0.0).all()


@pytest.mark.parametrize("likelihood", [Categorical(), Bernoulli()], ids=repr)
def test_one_draw_has_no_epistemic_part(likelihood):
    outputs = random_outputs(1, NUM_EXAMPLES, 4)
    np.testing.assert_array_equal(likelihood.epistemic(outputs, {}), 0.0)


def normal_components(scale, num_draws=12, num_targets=2):
    """Outputs of a normal likelihood, with means and scales of the components of its predictive mixture."""
    loc = random_outputs(num_draws, NUM_EXAMPLES, num_targets, scale=1.5)
    # The scale of an example varies by a factor of about 2 between the draws.
    untransformed = random_outputs(num_draws, NUM_EXAMPLES, num_targets, seed=1, scale=0.3)
    if scale == "per_example":
        return np.concatenate([loc, untransformed], axis=-1), loc, softplus(untransformed) + 1e-6
    return loc, loc, np.full(loc.shape, scale)


NORMAL_SCALES = pytest.mark.parametrize("scale", [0.5, 2.0, "per_example"])


@NORMAL_SCALES
def test_the_law_of_total_variance(scale):
    outputs, loc, sigma = normal_components(scale)
    likelihood = Normal(scale)
    aleatoric, epistemic = likelihood.aleatoric(outputs, {}), likelihood.epistemic(outputs, {})
    assert aleatoric.shape == epistemic.shape == loc.shape[1:]
    np.testing.assert_allclose(aleatoric, (sigma**2).mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(epistemic, loc.var(axis=0), rtol=1e-4)
    second_moment = (loc.astype(np.float64) ** 2 + sigma**2).mean(axis=0)
    np.testing.assert_allclose(aleatoric + epistemic, second_moment - loc.mean(axis=0) ** 2, rtol=1e-4)


def test_the_aleatoric_part_of_a_learned_scale(learned):
    likelihood, weights = learned
    aleatoric = likelihood.aleatoric(random_outputs(5, NUM_EXAMPLES, 2), weights)
    np.testing.assert_allclose(aleatoric, np.full((NUM_EXAMPLES, 2), 0.49), rtol=1e-5)


@NORMAL_SCALES
def test_the_entropy_of_the_normal_mixture_equals_an_integral(scale):
    outputs, loc, sigma = normal_components(scale)
    entropy = Normal(scale).entropy(outputs, {}).numpy()
    assert entropy.shape == loc.shape[1:]
    for index in np.ndindex(entropy.shape):
        mixture = scipy.stats.norm(loc[:, *index].astype(np.float64), sigma[:, *index])

        def integrand(y, mixture=mixture):
            density = mixture.pdf(y).mean()
            return -scipy.special.xlogy(density, density)

        low, high = (mixture.mean() - 9 * mixture.std()).min(), (mixture.mean() + 9 * mixture.std()).max()
        expected, _ = scipy.integrate.quad(integrand, low, high, limit=200, points=np.sort(mixture.mean()))
        # 16 Gauss-Hermite nodes: exact to float32 where the components overlap, to a few thousandths where they do not.
        np.testing.assert_allclose(entropy[index], expected, atol=5e-3)


def test_the_entropy_of_one_normal_is_exact(learned):
    likelihood, weights = learned
    entropy = likelihood.entropy(random_outputs(1, NUM_EXAMPLES, 2), weights)
    np.testing.assert_allclose(entropy, np.full((NUM_EXAMPLES, 2), scipy.stats.norm(0.0, 0.7).entropy()), rtol=1e-5)


# === Quantiles ===


LEVELS = [0.001, 0.05, 0.5, 0.95, 0.999]


@NORMAL_SCALES
def test_quantiles_are_roots_of_the_distribution_function(scale):
    outputs, loc, sigma = normal_components(scale)
    quantiles = Normal(scale).quantiles(outputs, {}, LEVELS)
    assert quantiles.shape == (len(LEVELS), *loc.shape[1:])
    assert (np.diff(quantiles, axis=0) > 0.0).all()
    for position, level in enumerate(LEVELS):
        for index in np.ndindex(loc.shape[1:]):
            mixture = scipy.stats.norm(loc[:, *index].astype(np.float64), sigma[:, *index])
            root = scipy.optimize.brentq(lambda y, m=mixture, level=level: m.cdf(y).mean() - level, -100.0, 100.0)
            np.testing.assert_allclose(quantiles[position, *index], root, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("level", [1e-8, 1e-6, 1e-4, 0.01])
def test_quantiles_of_rare_low_values_meet_their_level_to_a_small_part_of_it(level):
    outputs, loc, sigma = normal_components(0.7)
    found = Normal(0.7).quantiles(outputs, {}, [level])[0]
    below = scipy.stats.norm.cdf(found.astype(np.float64), loc, sigma).mean(axis=0)
    np.testing.assert_allclose(below, level, rtol=1e-5)


def test_every_bit_of_a_seed_counts_and_small_seeds_keep_their_samples():
    likelihood, outputs = Normal(0.7), random_outputs(1, NUM_EXAMPLES, 2)
    drawn = {seed: likelihood.sample(outputs, {}, 3, seed) for seed in (5, 5 + 2**31, 5 + 2**32, 5 + 2**63, -1)}
    assert len({values.tobytes() for values in drawn.values()}) == len(drawn)
    expected = likelihood.distribution(tf.constant(outputs), {}).sample(3, seed=tf.constant([0, 5], tf.int32))
    np.testing.assert_array_equal(drawn[5], expected[:, 0])


def test_quantiles_of_one_normal(learned):
    likelihood, weights = learned
    outputs = random_outputs(1, NUM_EXAMPLES, 2)
    expected = scipy.stats.norm(outputs[0], 0.7).ppf(0.9)
    np.testing.assert_allclose(likelihood.quantiles(outputs, weights, [0.9])[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("likelihood", [Categorical(), Bernoulli()], ids=repr)
def test_quantiles_of_discrete_likelihoods_are_those_of_the_probabilities(likelihood):
    outputs = random_outputs(50, NUM_EXAMPLES, 3)
    quantiles = likelihood.quantiles(tf.constant(outputs), {}, LEVELS)
    assert quantiles.shape == (len(LEVELS), NUM_EXAMPLES, 3)
    np.testing.assert_allclose(quantiles, np.quantile(likelihood.mean(outputs), LEVELS, axis=0), rtol=1e-5)


@pytest.mark.parametrize("spread", [0.0, 0.7, 5.0])
@pytest.mark.parametrize(
    ("draws", "scale_spread", "tolerance"), [(129, 0.0, 0.005), (1000, 0.0, 0.005), (1000, 0.7, 0.03)]
)
def test_the_entropy_of_many_normals_is_near_an_integral(draws, scale_spread, tolerance, spread):
    rng = np.random.default_rng(draws)
    loc = rng.normal(scale=spread, size=(draws, 2, 1)).astype(np.float32)
    raw_scale = rng.normal(scale=scale_spread, size=loc.shape).astype(np.float32)
    found = Normal("per_example").entropy(np.concatenate([loc, raw_scale], axis=-1), {}).numpy()
    sigma = 1e-6 + np.logaddexp(0.0, raw_scale)
    for row in range(2):
        y = np.linspace(loc[:, row].min() - 20.0, loc[:, row].max() + 20.0, 4_001)
        density = scipy.stats.norm.pdf(y[:, None], loc[:, row, 0], sigma[:, row, 0]).mean(axis=1)
        expected = scipy.integrate.trapezoid(-scipy.special.xlogy(density, density), y)
        np.testing.assert_allclose(found[row, 0], expected, atol=tolerance)


def test_the_entropy_of_many_normals_costs_no_square(monkeypatch):
    evaluated = []
    log_prob = tfd.Normal.log_prob

    def counted(self, value):
        evaluated.append(int(np.prod(np.broadcast_shapes(value.shape, self.batch_shape))))
        return log_prob(self, value)

    monkeypatch.setattr(tfd.Normal, "log_prob", counted)
    Normal(1.0).entropy(random_outputs(5000, 1, 1), {})
    assert sum(evaluated) == 1024 * 5000

"""The normal prior and the mixture of two, against TFP and NumPy."""

from __future__ import annotations

import re

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_bnn.priors import Normal, ScaleMixture

tfd = tfp.distributions


# === Normal ===


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_the_kl_of_the_normal_equals_tfp_and_the_closed_form(scale, random_weight, injected_noise):
    weight = random_weight(Normal(scale))
    loc, sigma = (weight.parameters()[key].astype(np.float64) for key in ("loc", "scale"))
    expected = tfd.kl_divergence(
        tfd.MultivariateNormalDiag(loc.ravel(), sigma.ravel()),
        tfd.MultivariateNormalDiag(np.zeros(loc.size), np.full(loc.size, scale)),
    )
    kl = weight.kl(injected_noise)
    np.testing.assert_allclose(kl, expected, rtol=1e-5)
    closed_form = (np.log(scale / sigma) + (sigma**2 + loc**2) / (2 * scale**2) - 0.5).sum()
    np.testing.assert_allclose(kl, closed_form, rtol=1e-5)
    assert not injected_noise.drawn


def test_the_kl_between_equals_is_zero(random_weight, injected_noise):
    weight = random_weight(Normal(0.3))
    weight.assign_parameters({"loc": np.zeros((3, 4)), "scale": np.full((3, 4), 0.3)})
    np.testing.assert_allclose(weight.kl(injected_noise), 0.0, atol=1e-5)


# === Empirical Bayes ===


def empirical_bayes_weight(random_weight):
    weight = random_weight(Normal(0.7, empirical_bayes=True))
    (variable,) = [v for v in weight.variables if v.name == "kernel_prior_untransformed_scale"]
    parameters = weight.parameters()
    return weight, variable, np.sqrt(np.mean(parameters["loc"] ** 2 + parameters["scale"] ** 2))


def test_the_kl_is_stationary_at_the_optimal_prior_scale(random_weight, injected_noise):
    weight, variable, optimum = empirical_bayes_weight(random_weight)

    def kl_and_gradient(prior_scale):
        weight.assign_parameters({**weight.parameters(), "prior_scale": prior_scale})
        with tf.GradientTape() as tape:
            kl = weight.kl(injected_noise)
        return float(kl), float(tape.gradient(kl, variable.value))

    least, gradient = kl_and_gradient(optimum)
    # The gradient is a difference of two sums of about the number of weights.
    assert abs(gradient) < 1e-4 * optimum.size * 12
    for factor, sign in ((0.8, -1), (1.25, 1)):
        kl, gradient = kl_and_gradient(factor * optimum)
        assert kl > least
        assert sign * gradient > 1.0


def test_training_finds_the_optimal_prior_scale(random_weight, injected_noise):
    weight, variable, optimum = empirical_bayes_weight(random_weight)

    @tf.function(autograph=False)
    def kl_gradient():
        with tf.GradientTape() as tape:
            kl = weight.kl(injected_noise)
        return tape.gradient(kl, variable.value)

    for _ in range(100):
        variable.assign_sub(0.02 * kl_gradient())
    np.testing.assert_allclose(weight.parameters()["prior_scale"], optimum, rtol=1e-3)


# === Scale mixture ===


@pytest.mark.parametrize("arguments", [(0.5, 1.0, np.exp(-6.0)), (0.25, 2.0, 0.1), (0.9, 0.5, 0.5)])
@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_the_log_density_of_the_scale_mixture(arguments, scale, log_prior):
    rng = np.random.default_rng(0)
    w = np.concatenate([rng.normal(size=50), 0.01 * rng.normal(size=50), [0.0, 30.0, -30.0]]).astype(np.float32)
    arguments = dict(
        zip(("mixture_probability", "scale_1", "scale_2"), (float(value) for value in arguments), strict=True)
    )
    prior = ScaleMixture(**arguments, scale=scale)
    expected = log_prior("scale_mixture", w, scale, **arguments)
    each = prior.distribution((1,), {}).log_prob(w[:, None])
    np.testing.assert_allclose(each, expected, rtol=1e-5, atol=1e-5)
    whole = prior.distribution((103,), {}).log_prob(w)
    np.testing.assert_allclose(whole, expected.sum(), rtol=1e-5)


def test_the_defaults_of_the_scale_mixture():
    assert ScaleMixture().get_config() == {
        "mixture_probability": 0.5,
        "scale_1": 1.0,
        "scale_2": np.exp(-6.0),
        "scale": 1.0,
        "empirical_bayes": False,
        "hyperprior": None,
        "shared": None,
    }


@pytest.mark.parametrize("value", [0.0, 1.0, -0.5, 1.5, float("nan"), True, "half"])
def test_probabilities_out_of_range_are_refused(value):
    with pytest.raises(ValueError, match=re.escape(f"must lie between 0 and 1, but got {value!r}")):
        ScaleMixture(mixture_probability=value)


@pytest.mark.parametrize("value", [-1.0, 0, 0.0, float("nan"), float("inf"), True, "1", None])
def test_scales_of_components_out_of_range_are_refused(value):
    for name in ("scale_1", "scale_2"):
        message = f"`{name}` of the prior 'scale_mixture' must be a finite number larger than 0, but got {value!r}"
        with pytest.raises(ValueError, match=re.escape(message)):
            ScaleMixture(**{name: value})


@pytest.mark.statistical
def test_the_kl_estimate_of_the_scale_mixture_agrees_with_numpy(random_weight, log_prior, draw_tensors):
    """2,000 estimates of 12 weights against 200,000 NumPy draws of each.

    False-failure rate 1e-6, two-sided, by the central limit theorem: the sums have 24,000 terms and more.
    """
    arguments = {"mixture_probability": 0.3, "scale_1": 1.5, "scale_2": 0.1}
    weight = random_weight(ScaleMixture(**arguments))
    parameters = weight.parameters()
    rng = np.random.default_rng(3)
    sums = np.zeros(200_000)
    for loc, scale in zip(parameters["loc"].ravel(), parameters["scale"].ravel(), strict=True):
        w = rng.normal(loc, scale, size=sums.size)
        sums += scipy.stats.norm.logpdf(w, loc, scale) - log_prior("scale_mixture", w, **arguments)
    ours = draw_tensors(weight.kl, 2000)
    assert len(np.unique(ours)) > 1900
    error = np.sqrt(ours.var() / ours.size + sums.var() / sums.size)
    assert abs(ours.mean() - sums.mean()) < scipy.stats.norm.isf(1e-6 / 2) * error

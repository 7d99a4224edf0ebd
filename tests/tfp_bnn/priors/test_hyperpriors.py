"""Hyperpriors over the scale of a prior, against SciPy and numerical integration."""

from __future__ import annotations

import re

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import tensorflow as tf

from tfp_bnn.priors import Normal
from tfp_bnn.priors.hyperpriors import HYPERPRIORS, HalfCauchy, HalfNormal, Hyperprior, InverseGamma, LogNormal

# Each with the log of its density over the scale.
KNOWN = [
    (HalfNormal(0.6), lambda s: scipy.stats.halfnorm.logpdf(s, scale=0.6)),
    (HalfCauchy(0.6), lambda s: scipy.stats.halfcauchy.logpdf(s, scale=0.6)),
    # Over the variance, times the Jacobian of s -> s^2.
    (InverseGamma(2.5, 0.3), lambda s: scipy.stats.invgamma.logpdf(s**2, 2.5, scale=0.3) + np.log(2 * s)),
    (LogNormal(-0.7, 0.4), lambda s: scipy.stats.lognorm.logpdf(s, 0.4, scale=np.exp(-0.7))),
]
IDS = [type(hyperprior).__name__ for hyperprior, _ in KNOWN]
FLOOR = 1e-3


def inferred_scale(hyperprior, add_weight, median, spread):
    """A prior with that hyperprior, and its variables at a median and a spread."""
    prior = Normal(hyperprior=hyperprior)
    weights = prior.add_weights(add_weight, "kernel", (3, 4))
    prior.assign_parameters(weights, {"scale": median, "scale_spread": spread})
    return prior, weights


# === The densities ===


@pytest.mark.parametrize("name", HYPERPRIORS)
def test_every_hyperprior_has_a_docstring_and_a_config(name, check_spec):
    check_spec(HYPERPRIORS, name)


def test_there_are_hyperpriors():
    assert {"half_normal", "half_cauchy", "inverse_gamma", "log_normal"} <= {*HYPERPRIORS}
    assert all(issubclass(HYPERPRIORS[name], Hyperprior) for name in HYPERPRIORS)
    assert {type(hyperprior) for hyperprior, _ in KNOWN} == {HYPERPRIORS[name] for name in HYPERPRIORS}


@pytest.mark.parametrize(("hyperprior", "log_density"), KNOWN, ids=IDS)
def test_the_log_density_over_the_scale_is_that_of_scipy(hyperprior, log_density):
    s = np.geomspace(FLOOR, 1e3, 301).astype(np.float32)
    distribution = hyperprior.distribution()
    assert distribution.event_shape == distribution.batch_shape == ()
    log_prob = distribution.log_prob(s)
    assert log_prob.dtype == tf.float32
    np.testing.assert_allclose(log_prob, log_density(s.astype(np.float64)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("hyperprior", "log_density"), KNOWN, ids=IDS)
def test_the_density_integrates_to_one(hyperprior, log_density):
    log_s = np.linspace(np.log(1e-6), np.log(1e6), 20001)
    s = np.exp(log_s).astype(np.float32)
    mass = scipy.integrate.trapezoid(
        np.exp(hyperprior.distribution().log_prob(s).numpy().astype(np.float64)) * s, log_s
    )
    assert mass == pytest.approx(1.0, abs=1e-5)


def test_the_parameters_are_what_the_docstrings_say():
    median = 0.6
    assert float(HalfCauchy(median).distribution().cdf(median)) == pytest.approx(0.5, rel=1e-5)
    assert float(LogNormal(np.log(median), 0.4).distribution().cdf(median)) == pytest.approx(0.5, rel=1e-5)
    # The mode of the variance, whose density lacks the Jacobian.
    s = np.linspace(0.05, 2.0, 20001).astype(np.float32)
    log_density_of_variance = InverseGamma(2.5, 0.3).distribution().log_prob(s) - np.log(2 * s)
    assert s[np.argmax(log_density_of_variance)] ** 2 == pytest.approx(0.3 / 3.5, rel=1e-2)


@pytest.mark.parametrize("name", HYPERPRIORS)
@pytest.mark.parametrize("value", [-1.0, 0, 0.0, float("nan"), float("inf"), True, "1", None])
def test_parameters_out_of_range_are_refused(name, value):
    for argument in {*HYPERPRIORS[name]().get_config()} - {"loc"}:
        message = f"`{argument}` of the hyperprior {name!r} must be a finite number larger than 0, but got {value!r}."
        with pytest.raises(ValueError, match=re.escape(message)):
            HYPERPRIORS.get({"name": name, argument: value})


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), True, "0", None])
def test_a_loc_that_is_no_number_is_refused(value):
    message = f"`loc` of the hyperprior 'log_normal' must be a finite number, but got {value!r}."
    with pytest.raises(ValueError, match=re.escape(message)):
        LogNormal(loc=value)
    assert LogNormal(loc=-3).get_config() == {"loc": -3.0, "scale": 1.0}


# === KL(q(s) || p(s)) ===


@pytest.mark.parametrize(("median", "spread"), [(0.5, 0.1), (0.05, 0.6), (3.0, 0.3), (0.0015, 0.2)])
@pytest.mark.parametrize(("hyperprior", "log_density"), KNOWN, ids=IDS)
def test_the_kl_of_the_scale_is_right_on_average(hyperprior, log_density, median, spread, add_weight):
    prior, weights = inferred_scale(hyperprior, add_weight, median, spread)
    # The expectation over the one noise scalar, by quadrature instead of draws.
    nodes, masses = np.polynomial.hermite_e.hermegauss(64)
    estimates = prior.hyper_kl(weights, tf.constant(nodes, tf.float32)).numpy().astype(np.float64)
    ours = estimates @ masses / masses.sum()

    def integrand(s):
        log_q = scipy.stats.norm.logpdf(np.log(s - FLOOR), np.log(median - FLOOR), spread) - np.log(s - FLOOR)
        return np.exp(log_q) * (log_q - log_density(s))

    ends = FLOOR + (median - FLOOR) * np.exp(spread * np.array([-12.0, 12.0]))
    expected, _ = scipy.integrate.quad(integrand, *ends, points=[median], limit=500, epsabs=1e-10)
    assert ours == pytest.approx(expected, rel=2e-5, abs=2e-5)
    assert expected > 0


def test_the_kl_between_log_normals_is_the_closed_form(add_weight):
    # Where the floor of the scale is negligible, q(s) is a log-normal too.
    hyperprior = LogNormal(4.2, 0.5)
    prior, weights = inferred_scale(hyperprior, add_weight, 150.0, 0.3)
    nodes, masses = np.polynomial.hermite_e.hermegauss(5)
    ours = prior.hyper_kl(weights, tf.constant(nodes, tf.float32)).numpy() @ (masses / masses.sum())
    expected = np.log(0.5 / 0.3) + (0.3**2 + (np.log(150.0) - 4.2) ** 2) / (2 * 0.5**2) - 0.5
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


@pytest.mark.parametrize("hyperprior", [hyperprior for hyperprior, _ in KNOWN], ids=IDS)
@pytest.mark.parametrize("untransformed_scale", [-100.0, -7.0, 0.0, 10.0])
@pytest.mark.parametrize("untransformed_spread", [-100.0, -2.0, 3.0])
def test_gradients_are_finite_at_extreme_parameters(hyperprior, untransformed_scale, untransformed_spread, add_weight):
    prior, weights = inferred_scale(hyperprior, add_weight, 1.0, 1.0)
    weights["untransformed_scale"].assign(untransformed_scale)
    weights["untransformed_spread"].assign(untransformed_spread)
    variables = [variable.value for variable in weights.values()]
    for noise in (-5.0, 0.0, 5.0):
        with tf.GradientTape() as tape:
            kl = prior.hyper_kl(weights, tf.constant(noise))
        assert np.isfinite(kl)
        assert kl.dtype == tf.float32
        assert np.isfinite(tape.gradient(kl, variables)).all()


def test_the_gradient_of_the_kl_is_that_of_the_formula(add_weight):
    prior, weights = inferred_scale(HalfNormal(0.6), add_weight, 0.5, 0.3)
    variables = [variable.value for variable in weights.values()]
    with tf.GradientTape() as tape:
        kl = prior.hyper_kl(weights, tf.constant(1.5))
    of_median, of_spread = tape.gradient(kl, variables)
    # -log p(s) grows like s^2 / (2 * 0.6^2), with s = 0.001 + exp(u + 1.5 spread); the entropy is u + log(spread).
    from_exp = 0.499 * np.exp(1.5 * 0.3)
    of_u = (FLOOR + from_exp) / 0.6**2 * from_exp
    np.testing.assert_allclose(of_median, of_u - 1, rtol=1e-4)
    slope = 1 - np.exp(-0.3)
    np.testing.assert_allclose(of_spread, (1.5 * of_u - 1 / 0.3) * slope, rtol=1e-4)

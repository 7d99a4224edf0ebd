"""The heavy-tailed priors against SciPy and against their definitions."""

from __future__ import annotations

import re

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

from tfp_bnn.priors import Cauchy, Horseshoe, Laplace, StudentT

W = np.concatenate([[0.0], *(sign * np.geomspace(1e-6, 1e6, 121) for sign in (-1, 1))]).astype(np.float32)


def log_density(prior, w):
    return prior.distribution((1,), {}).log_prob(np.asarray(w, np.float32)[:, None]).numpy()


@pytest.mark.parametrize("scale", [0.3, 1.0, 20.0])
@pytest.mark.parametrize(
    ("prior", "reference"),
    [
        # SciPy's own Laplace underflows.
        (Laplace, scipy.stats.gennorm(1.0)),
        (Cauchy, scipy.stats.cauchy),
        (StudentT, scipy.stats.t(3.0)),
        (lambda scale: StudentT(1.5, scale), scipy.stats.t(1.5)),
        (lambda scale: StudentT(40.0, scale), scipy.stats.t(40.0)),
    ],
)
def test_the_log_density_is_that_of_scipy(prior, reference, scale):
    expected = reference.logpdf(W.astype(np.float64) / scale) - np.log(scale)
    np.testing.assert_allclose(log_density(prior(scale=scale), W), expected, rtol=2e-6, atol=2e-5)


def test_the_scales_are_what_the_docstrings_say():
    grid = np.linspace(-0.7, 0.7, 20001)
    within = scipy.integrate.trapezoid(np.exp(log_density(Cauchy(0.7), grid)), grid)
    assert within == pytest.approx(0.5, abs=1e-5)
    grid = np.linspace(-20, 20, 100001)
    density = np.exp(log_density(Laplace(0.7), grid))
    assert scipy.integrate.trapezoid(density * np.abs(grid), grid) == pytest.approx(0.7, rel=1e-5)
    density = np.exp(log_density(StudentT(12.0, 0.7), grid))
    variance = scipy.integrate.trapezoid(density * grid**2, grid)
    assert np.sqrt(variance) == pytest.approx(0.7 * np.sqrt(12 / 10), rel=1e-5)


def test_student_t_with_one_degree_of_freedom_is_the_cauchy():
    np.testing.assert_allclose(log_density(StudentT(1.0, 0.7), W), log_density(Cauchy(0.7), W), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("df", [-1.0, 0, float("nan"), float("inf"), True, "3"])
def test_degrees_of_freedom_out_of_range_are_refused(df):
    with pytest.raises(
        ValueError,
        match=re.escape(f"`df` of the prior 'student_t' must be a finite number larger than 0, but got {df!r}."),
    ):
        StudentT(df)


# === Horseshoe ===


def test_the_reference_of_the_horseshoe_is_the_integral_over_its_scales(log_prior):
    for w in (1e-3, 0.1, 1.0, 2.9, 10.0, 100.0):
        # t = tan(angle) is half-Cauchy for angles that are uniform up to a right angle.
        density, _ = scipy.integrate.quad(
            lambda angle, w=w: scipy.stats.norm.pdf(w, scale=0.7 * np.tan(angle)) * 2 / np.pi,
            0,
            np.pi / 2,
            points=np.arctan(w / 0.7 * np.array([0.05, 0.3, 1.0, 3.0])),
            epsabs=1e-14,
            epsrel=1e-10,
        )
        assert float(log_prior("horseshoe", w, 0.7)) == pytest.approx(np.log(density), abs=1e-8)


@pytest.mark.parametrize("scale", [0.001, 0.7, 30.0])
def test_the_log_density_of_the_horseshoe_is_right_to_what_its_docstring_says(scale, log_prior):
    w = (scale * np.geomspace(2e-9, 1e6, 20001)).astype(np.float32)
    error = np.abs(log_density(Horseshoe(scale), w) - log_prior("horseshoe", w, scale))
    assert 6e-4 < error.max() < 6.4e-4
    assert 2.5 < w[error.argmax()] / scale < 3.5
    np.testing.assert_array_equal(log_density(Horseshoe(scale), -w), log_density(Horseshoe(scale), w))


def test_the_pole_of_the_horseshoe_is_cut_off(log_prior):
    at_pole = log_density(Horseshoe(0.7), [0.0, 1e-30, -1e-12, 6.9e-10])
    np.testing.assert_allclose(at_pole, log_prior("horseshoe", 0.7e-9, 0.7), rtol=1e-6)
    # What is cut off would be of no weight.
    assert at_pole[0] == pytest.approx(3.0, abs=1.0)


# === The KL ===


@pytest.mark.statistical
def test_the_kl_estimate_of_the_laplace_averages_to_the_closed_form(random_weight, draw_tensors):
    """4,000 estimates of 12 weights.

    False-failure rate 1e-6, two-sided, by the central limit theorem: the sum has 48,000 terms.
    """
    weight = random_weight(Laplace(0.6))
    loc, scale = (weight.parameters()[key].astype(np.float64) for key in ("loc", "scale"))
    mean_size = scale * np.sqrt(2 / np.pi) * np.exp(-((loc / scale) ** 2) / 2) + loc * scipy.special.erf(
        loc / scale / np.sqrt(2)
    )
    entropy = 0.5 * np.log(2 * np.pi * np.e * scale**2)
    closed_form = (np.log(2 * 0.6) + mean_size / 0.6 - entropy).sum()
    ours = draw_tensors(weight.kl, 4000)
    error = ours.std() / np.sqrt(ours.size)
    assert error < 0.05
    assert abs(ours.mean() - closed_form) < scipy.stats.norm.isf(1e-6 / 2) * error

"""Fixtures for Bayesian weights, and the densities of priors and posteriors in NumPy and SciPy, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import scipy.special
import scipy.stats


@pytest.fixture
def random_weight() -> Callable[..., Any]:
    """A function that makes a Bayesian weight with a given prior, posterior and shape, and random parameters."""
    from tfp_bnn.layers import DenseReparameterization

    def make(
        prior: Any = "normal", posterior: Any = "mean_field_normal", shape: tuple[int, int] = (3, 4), seed: int = 0
    ) -> Any:
        layer = DenseReparameterization(
            shape[1], kernel_prior=prior, kernel_posterior=posterior, use_bias=False, seed=0
        )
        layer.build((None, shape[0]))
        weight = layer.variational_weights["kernel"]
        rng = np.random.default_rng(seed)
        draws = {
            "loc": lambda value: rng.normal(size=value.shape),
            "scale": lambda value: rng.uniform(0.2, 0.8, value.shape),
            "factor": lambda value: rng.normal(size=value.shape) / 2,
        }
        weight.assign_parameters(
            {name: draws[name](value) if name in draws else value for name, value in weight.parameters().items()}
        )
        return weight

    return make


@pytest.fixture
def draw_tensors() -> Callable[..., np.ndarray]:
    """A function that computes a float32 tensor many times with different noise, compiled into one loop."""
    import tensorflow as tf

    from tfp_bnn.core.noise import Noise

    def draw(compute: Callable[[Any], Any], num_draws: int, seed: int = 0) -> np.ndarray:
        @tf.function(autograph=False)
        def run() -> Any:
            root = Noise(tf.constant([seed, 0], tf.int32))
            return tf.map_fn(
                lambda index: compute(root.fold_in(index)), tf.range(num_draws), fn_output_signature=tf.float32
            )

        return run().numpy()

    return draw


@pytest.fixture
def log_prior() -> Callable[..., np.ndarray]:
    """A function that returns the log-density of each weight under a named prior, in float64."""

    def each(name: str, w: Any, scale: float = 1.0, **arguments: Any) -> np.ndarray:
        z = np.asarray(w, np.float64) / scale
        return _LOG_PRIORS[name](z, **arguments) - math.log(scale)

    return each


@pytest.fixture
def log_posterior() -> Callable[..., float]:
    """A function that returns the log-density of a weight tensor under a named posterior, in float64."""

    def whole(name: str, w: Any, parameters: Mapping[str, np.ndarray]) -> float:
        values = {key: np.asarray(value, np.float64) for key, value in parameters.items()}
        return _LOG_POSTERIORS[name](np.asarray(w, np.float64), values)

    return whole


def _log_horseshoe(z: np.ndarray) -> np.ndarray:
    """Log of the integral over the half-Cauchy: exp(z^2 / 2) E1(z^2 / 2) / sqrt(2 pi^3)."""
    half_square = z**2 / 2
    near, far = np.minimum(half_square, 500.0), np.maximum(half_square, 500.0)
    asymptotic = np.log1p(-1 / far + 2 / far**2 - 6 / far**3) - np.log(far)
    integral = np.where(half_square > 500, asymptotic, near + np.log(scipy.special.exp1(near)))
    return integral - 0.5 * math.log(2 * math.pi**3)


def _log_mixture(
    z: np.ndarray, mixture_probability: float = 0.5, scale_1: float = 1.0, scale_2: float = math.exp(-6)
) -> np.ndarray:
    """Blundell et al. 2015, equation 7: the log of a sum of two normal densities."""
    shares = ((mixture_probability, scale_1), (1 - mixture_probability, scale_2))
    terms = [math.log(share) + scipy.stats.norm.logpdf(z, scale=scale) for share, scale in shares]
    return scipy.special.logsumexp(terms, axis=0)


_LOG_PRIORS: Mapping[str, Callable[..., np.ndarray]] = {
    "flat": np.zeros_like,
    "normal": scipy.stats.norm.logpdf,
    "informed": scipy.stats.norm.logpdf,
    "laplace": lambda z: -np.abs(z) - math.log(2),
    "cauchy": scipy.stats.cauchy.logpdf,
    "student_t": lambda z, df=3.0: scipy.stats.t.logpdf(z, df),
    "horseshoe": _log_horseshoe,
    "tfp_distribution": scipy.stats.logistic.logpdf,
    "scale_mixture": _log_mixture,
}


def _log_mean_field_normal(w: np.ndarray, parameters: Mapping[str, np.ndarray]) -> float:
    return scipy.stats.norm.logpdf(w, parameters["loc"], parameters["scale"]).sum()


def _log_low_rank_normal(w: np.ndarray, parameters: Mapping[str, np.ndarray]) -> float:
    factor = parameters["factor"].reshape(w.size, -1)
    covariance = np.diag(parameters["scale"].ravel() ** 2) + factor @ factor.T
    return scipy.stats.multivariate_normal.logpdf(w.ravel(), parameters["loc"].ravel(), covariance)


def _log_radial(w: np.ndarray, parameters: Mapping[str, np.ndarray]) -> float:
    """A half-normal radius, spread over the sphere of that radius."""
    z = (w - parameters["loc"]) / parameters["scale"]
    radius = np.linalg.norm(z)
    log_area = math.log(2) + w.size / 2 * math.log(math.pi) - math.lgamma(w.size / 2) + (w.size - 1) * np.log(radius)
    return 0.5 * (math.log(2 / math.pi) - radius**2) - log_area - np.log(parameters["scale"]).sum()


_LOG_POSTERIORS: Mapping[str, Callable[..., float]] = {
    "mean_field_normal": _log_mean_field_normal,
    "low_rank_normal": _log_low_rank_normal,
    "radial": _log_radial,
}


@pytest.fixture(scope="session")
def assert_moments() -> Callable[..., None]:
    """A function that compares the moments of draws from known normals with their expected values."""

    def check(draws: np.ndarray, mean: np.ndarray, variance: np.ndarray, false_failure_rate: float = 1e-6) -> None:
        """Fails by chance with probability `false_failure_rate`, by Bonferroni's inequality over elements and both
        moments.

        The draws of each element, along the first axis, are independent normals. Elements may depend on each other.
        """
        num_draws = len(draws)
        tail = false_failure_rate / (4 * mean.size)
        error = (draws.mean(axis=0, dtype=np.float64) - mean) / np.sqrt(variance / num_draws)
        np.testing.assert_array_less(np.abs(error), scipy.stats.norm.isf(tail))
        squares = ((draws - mean) ** 2).sum(axis=0, dtype=np.float64) / variance
        np.testing.assert_array_less(squares, scipy.stats.chi2.isf(tail, num_draws))
        np.testing.assert_array_less(scipy.stats.chi2.ppf(tail, num_draws), squares)

    return check

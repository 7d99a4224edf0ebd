"""Regression metrics against scikit-learn, SciPy and direct formulas."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import scipy.integrate
import scipy.stats
import sklearn.metrics

import tfp_bnn
from tfp_bnn import metrics

ERRORS = [metrics.rmse, metrics.mae]


@pytest.mark.parametrize("shape", [(300,), (300, 1), (100, 3)])
def test_errors_equal_scikit_learn(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    targets, predictions = rng.normal(size=shape), rng.normal(size=shape)
    flat = targets.ravel(), predictions.ravel()
    assert metrics.rmse(targets, predictions) == pytest.approx(sklearn.metrics.root_mean_squared_error(*flat))
    assert metrics.mae(targets, predictions) == pytest.approx(sklearn.metrics.mean_absolute_error(*flat))


def test_coverage_and_width_equal_scipy() -> None:
    # At the quantiles (i + 1/2) / n of a distribution exactly the middle 90 % of the rows lie in its 90 % interval.
    targets = scipy.stats.norm(2.0, 3.0).ppf((np.arange(1000) + 0.5) / 1000)
    low, high = scipy.stats.norm(2.0, 3.0).interval(0.9)
    lower, upper = np.full(1000, low), np.full(1000, high)
    assert metrics.interval_coverage(targets, lower, upper) == pytest.approx(0.9)
    assert metrics.interval_width(lower, upper) == pytest.approx(2 * 1.6448536 * 3.0, rel=1e-6)


@pytest.mark.parametrize("metric", ERRORS)
def test_perfect_predictions_have_no_error(metric: Callable[..., float]) -> None:
    assert metric([1.0, -2.0], [1.0, -2.0]) == 0.0


def test_one_row() -> None:
    assert metrics.rmse([3.0], [1.0]) == 2.0
    assert metrics.mae([3.0], [1.0]) == 2.0
    assert metrics.interval_coverage([3.0], [1.0], [2.0]) == 0.0
    assert metrics.interval_width([1.0], [2.0]) == 1.0


def test_the_ends_belong_to_the_interval() -> None:
    assert metrics.interval_coverage([0.0, 1.0, 0.5], lower=[0.0, 0.0, 0.5], upper=[1.0, 1.0, 0.5]) == 1.0


def test_integers_and_float32_are_summed_in_float64() -> None:
    targets = np.full(10, 2**24, dtype=np.int32)
    assert metrics.mae(targets, (targets + 1).astype(np.int64)) == 1.0
    assert metrics.rmse(np.full(10, 1e30, np.float32), np.zeros(10, np.float32)) == pytest.approx(1e30)


@pytest.mark.parametrize("metric", ERRORS)
@pytest.mark.parametrize(
    ("targets", "predictions", "message"),
    [
        (np.zeros(3), np.zeros((3, 1)), r"Shapes must be equal, but got `targets` \(3,\), `predictions` \(3, 1\)"),
        (np.zeros(3), np.zeros(4), "Shapes must be equal"),
        (np.zeros(0), np.zeros(0), r"`targets` must have shape \(n,\) or \(n, outputs\) and at least one value"),
        (np.zeros((2, 2, 2)), np.zeros((2, 2, 2)), r"but got \(2, 2, 2\)"),
        (1.0, 1.0, r"but got \(\)"),
        ([1.0, np.nan], [1.0, 1.0], "`targets` must be finite, but 1 of 2 values"),
        ([1.0, 1.0], [np.inf, np.nan], "`predictions` must be finite, but 2 of 2 values"),
    ],
)
def test_values_that_do_not_fit_are_refused(
    metric: Callable[..., float], targets: npt.ArrayLike, predictions: npt.ArrayLike, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        metric(targets, predictions)


def test_intervals_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="`lower` must not be above `upper`, but is for 1 of 2 intervals"):
        metrics.interval_width([0.0, 2.0], [1.0, 1.0])
    with pytest.raises(ValueError, match="`lower` must not be above `upper`"):
        metrics.interval_coverage([0.0], [2.0], [1.0])
    with pytest.raises(ValueError, match=r"`targets` \(2,\), `lower` \(1,\), `upper` \(2,\)"):
        metrics.interval_coverage([0.0, 1.0], [0.0], [1.0, 1.0])
    with pytest.raises(ValueError, match="`upper` must be finite"):
        metrics.interval_width([0.0], [np.nan])


# === Continuous ranked probability score ===


def crps_by_definition(y: float, cdf: Callable[[float], float], points: list[float]) -> float:
    """The integral of (F(x) - [x >= y])^2, piece by piece between points that include y."""
    pieces = [
        scipy.integrate.quad(lambda x: (cdf(x) - (x >= y)) ** 2, low, high, epsabs=1e-12)[0]
        for low, high in itertools.pairwise(sorted(points))
    ]
    return math.fsum(pieces)


@pytest.mark.parametrize("shape", [(40,), (40, 1), (20, 3)])
@pytest.mark.parametrize("number", [2, 3, 50])
def test_crps_equals_the_sums_over_all_pairs(number: int, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    y, x = rng.normal(size=shape), rng.normal(size=(number, *shape)).round(1)
    error = np.abs(x - y).mean()
    spread = np.abs(x[:, np.newaxis] - x).sum(axis=(0, 1)).mean()
    assert metrics.crps(y, x) == pytest.approx(error - spread / (2 * number * (number - 1)), rel=1e-12)
    assert metrics.crps(y, x, fair=False) == pytest.approx(error - spread / (2 * number**2), rel=1e-12)


@pytest.mark.parametrize("y", [-3.0, 0.2, 0.5, 4.0])
def test_crps_of_the_empirical_distribution_is_the_integral_of_its_definition(y: float) -> None:
    x = np.array([0.5, -1.0, 0.5, 2.0])
    expected = crps_by_definition(y, lambda t: float(np.mean(x <= t)), [y, *x])
    assert metrics.crps([y], x[:, np.newaxis], fair=False) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("y", "loc", "scale"), [(0.0, 0.0, 1.0), (3.0, 1.0, 0.5), (-20.0, 5.0, 4.0)])
def test_crps_of_a_normal_is_the_integral_of_its_definition(y: float, loc: float, scale: float) -> None:
    ends = [loc - 12 * scale, loc + 12 * scale]
    expected = crps_by_definition(y, scipy.stats.norm(loc, scale).cdf, [min(y, ends[0]), *ends, y, loc])
    assert metrics.normal_crps([y], [loc], [scale]) == pytest.approx(expected, rel=1e-7)


def test_crps_of_the_quantiles_of_a_normal_comes_near_its_closed_form() -> None:
    y = np.array([-1.0, 0.0, 2.5])
    levels = (np.arange(2000) + 0.5) / 2000
    samples = np.repeat(scipy.stats.norm(0.5, 2.0).ppf(levels)[:, np.newaxis], 3, axis=1)
    exact = metrics.normal_crps(y, np.full(3, 0.5), np.full(3, 2.0))
    assert metrics.crps(y, samples, fair=False) == pytest.approx(exact, abs=1e-3)


def test_a_fair_crps_does_not_depend_on_the_number_of_samples() -> None:
    # The mean over all pairs of 6 samples, each pair scored separately, is the score of the 6.
    rng = np.random.default_rng(0)
    y, x = rng.normal(size=4), rng.normal(size=(6, 4))
    of_pairs = [metrics.crps(y, x[list(pair)]) for pair in itertools.combinations(range(6), 2)]
    assert np.mean(of_pairs) == pytest.approx(metrics.crps(y, x), rel=1e-12)


def test_crps_of_a_sure_prediction_is_its_absolute_error() -> None:
    y, prediction = [1.0, 2.0], [1.5, 4.0]
    error = metrics.mae(y, prediction)
    assert metrics.crps(y, [prediction], fair=False) == pytest.approx(error)
    assert metrics.crps(y, [prediction, prediction]) == pytest.approx(error)
    assert metrics.normal_crps(y, prediction, [1e-9, 1e-9]) == pytest.approx(error)


def test_crps_far_from_0_does_not_cancel() -> None:
    rng = np.random.default_rng(0)
    y, x = rng.normal(size=50), rng.normal(size=(20, 50))
    assert metrics.crps(y + 2.0**30, x + 2.0**30) == pytest.approx(metrics.crps(y, x), rel=1e-6)


# === Likelihood ===


def test_normal_nll_equals_scipy() -> None:
    rng = np.random.default_rng(0)
    y, loc, scale = rng.normal(size=(30, 2)), rng.normal(size=(30, 2)), rng.uniform(0.5, 2.0, size=(30, 2))
    density = scipy.stats.norm.logpdf(y, loc, scale)
    assert metrics.normal_nll(y, loc, scale) == pytest.approx(-density.sum(axis=1).mean(), rel=1e-12)
    assert metrics.normal_nll(y[:, 0], loc[:, 0], scale[:, 0]) == pytest.approx(-density[:, 0].mean(), rel=1e-12)


def test_normal_nll_of_a_mixture_equals_scipy() -> None:
    rng = np.random.default_rng(0)
    y, loc, scale = rng.normal(size=(30, 2)), rng.normal(size=(7, 30, 2)), rng.uniform(0.5, 2.0, size=(7, 30, 2))
    density = np.exp(scipy.stats.norm.logpdf(y, loc, scale).sum(axis=-1)).mean(axis=0)
    assert metrics.normal_nll(y, loc, scale) == pytest.approx(-np.log(density).mean(), rel=1e-12)


def test_normal_nll_far_out_is_finite() -> None:
    assert metrics.normal_nll([0.0], [1e6], [1.0]) == pytest.approx(0.5e12)
    assert math.isfinite(metrics.normal_nll([0.0], [[1e6], [2e6]], [[1.0], [1.0]]))


def test_predictions_of_a_model_can_be_scored() -> None:
    inputs = keras.Input((3,))
    outputs = tfp_bnn.layers.DenseReparameterization(2)(inputs)
    model = tfp_bnn.VariationalModel(inputs, outputs, likelihood={"name": "normal", "scale": 0.5}, seed=0)
    x, y = np.ones((5, 3), np.float32), np.zeros((5, 2), np.float32)
    predictive = model.posterior_predictive(x, num_samples=6)
    nll = metrics.normal_nll(y, predictive.samples, np.full_like(predictive.samples, 0.5))
    assert nll == pytest.approx(-predictive.log_prob(y).mean(), rel=1e-5)
    levels = [0.1, 0.5, 0.9]
    assert 0 <= metrics.quantile_calibration_error(y, predictive.quantiles(levels), levels) <= 1
    assert math.isfinite(metrics.crps(y, predictive.distribution().sample(10, seed=0).numpy()))


# === Quantiles ===


def test_quantiles_of_the_truth_are_calibrated() -> None:
    levels = np.arange(0.05, 1.0, 0.1)
    truth = scipy.stats.norm(2.0, 3.0)
    y = truth.ppf((np.arange(1000) + 0.5) / 1000)
    exact = np.repeat(truth.ppf(levels)[:, np.newaxis], 1000, axis=1)
    assert metrics.quantile_calibration_error(y, exact, levels) == pytest.approx(0.0, abs=1e-12)
    # Where half the spread is claimed, the share below each quantile is that of another level.
    narrow = np.repeat(scipy.stats.norm(2.0, 1.5).ppf(levels)[:, np.newaxis], 1000, axis=1)
    claimed = truth.cdf(narrow[:, 0])
    expected = np.abs(claimed - levels).mean()
    assert metrics.quantile_calibration_error(y, narrow, levels) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("shape", [(50,), (50, 2)])
def test_quantile_calibration_error_equals_a_loop(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    y, levels = rng.normal(size=shape).round(1), [0.9, 0.2]
    q = np.quantile(rng.normal(size=(30, *shape)), levels, axis=0).round(1)
    shares = [np.mean([t <= bound for t, bound in zip(y.flat, q[i].flat, strict=True)]) for i in range(2)]
    expected = (abs(shares[0] - 0.9) + abs(shares[1] - 0.2)) / 2
    assert metrics.quantile_calibration_error(y, q, levels) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("levels", "message"),
    [([0.5], "`levels` must be 2 numbers"), ([0.0, 0.5], "above 0 and below 1"), ([0.5, 1.0], "above 0 and below 1")],
)
def test_levels_that_do_not_fit_are_refused(levels: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.quantile_calibration_error([1.0], [[0.0], [2.0]], levels)


def of_stack(name: str) -> Callable[[Any, Any], float]:
    return {
        "samples": metrics.crps,
        "means": lambda y, stack: metrics.normal_nll(y, stack, np.ones(np.shape(stack))),
        "quantiles": lambda y, stack: metrics.quantile_calibration_error(y, stack, [0.1, 0.9]),
    }[name]


@pytest.mark.parametrize("name", ["samples", "means", "quantiles"])
def test_stacks_that_do_not_fit_are_refused(name: str) -> None:
    function = of_stack(name)
    with pytest.raises(ValueError, match=rf"`{name}` must have the shape of the targets, \(3,\), after a first axis"):
        function(np.zeros(3), np.zeros((2, 3, 1)))
    with pytest.raises(ValueError, match=rf"`{name}` must be finite, but 1 of 6 values"):
        function(np.zeros(3), [[0.0, 0.0, 0.0], [0.0, np.nan, 0.0]])
    with pytest.raises(ValueError, match=rf"`{name}` must have the shape"):
        function(np.zeros(3), np.zeros((0, 3)))
    with pytest.raises(ValueError, match="`targets` must be finite"):
        function([np.inf, 0.0, 0.0], np.zeros((2, 3)))


def test_a_single_sample_has_no_fair_score() -> None:
    with pytest.raises(ValueError, match="needs at least 2 samples, but got 1"):
        metrics.crps([1.0], [[1.0]])


@pytest.mark.parametrize("score", [metrics.normal_crps, metrics.normal_nll])
def test_scales_that_are_not_positive_are_refused(score: Callable[..., float]) -> None:
    with pytest.raises(ValueError, match=r"`scales` must be above 0, but the lowest value is -1\.0"):
        score([0.0, 0.0], [0.0, 0.0], [1.0, -1.0])
    with pytest.raises(ValueError, match="hape"):
        score([0.0, 0.0], [0.0, 0.0], [1.0])


def test_one_row_of_each_score_is_finite() -> None:
    assert metrics.crps([3.0], [[1.0], [2.0]]) == 1.0
    assert metrics.normal_crps([3.0], [3.0], [1.0]) > 0
    assert metrics.normal_nll([3.0], [3.0], [1.0]) == pytest.approx(0.5 * math.log(2 * math.pi))
    assert metrics.quantile_calibration_error([3.0], [[3.0]], [0.25]) == 0.75

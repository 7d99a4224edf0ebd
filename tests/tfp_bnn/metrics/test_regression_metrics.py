"""Regression metrics against scikit-learn, SciPy and direct formulas."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import scipy.stats
import sklearn.metrics

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

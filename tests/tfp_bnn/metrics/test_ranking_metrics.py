"""Detection of errors and of out-of-distribution inputs, and risk at coverage, by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from tfp_bnn import metrics

ON_UNCERTAINTY = [
    metrics.misclassification_auroc,
    metrics.misclassification_aupr,
    metrics.risk_coverage_curve,
    metrics.area_under_risk_coverage,
    metrics.risk_at_coverage,
]
ON_TWO_KINDS = [
    metrics.out_of_distribution_auroc,
    metrics.out_of_distribution_aupr,
    metrics.out_of_distribution_fpr,
]


def predictions(right: list[bool]) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities of which the rows are right or wrong as told."""
    return np.where(right, 0, 1), np.tile([0.8, 0.2], (len(right), 1))


# === Errors ===


def test_errors_are_the_positive_class() -> None:
    labels, p = predictions([True, True, False, False])
    assert metrics.misclassification_auroc(labels, p, [0.1, 0.2, 0.3, 0.4]) == 1.0
    assert metrics.misclassification_auroc(labels, p, [0.4, 0.3, 0.2, 0.1]) == 0.0
    assert metrics.misclassification_aupr(labels, p, [0.1, 0.2, 0.3, 0.4]) == 1.0
    assert metrics.misclassification_aupr(labels, p, [0.4, 0.3, 0.2, 0.1]) == pytest.approx((1 / 3 + 2 / 4) / 2)


def test_ties_count_one_half() -> None:
    labels, p = predictions([True, True, False, False, False])
    assert metrics.misclassification_auroc(labels, p, np.ones(5)) == 0.5
    # Pairs (right, wrong): of the six, 3 are in order, 2 tied and 1 in reverse.
    assert metrics.misclassification_auroc(labels, p, [1, 3, 2, 3, 3]) == pytest.approx((3 + 2 / 2) / 6)


def test_without_errors_there_is_nothing_to_find() -> None:
    labels, p = predictions([True, True])
    u = [0.1, 0.2]
    assert math.isnan(metrics.misclassification_auroc(labels, p, u))
    assert metrics.misclassification_aupr(labels, p, u) == 0.0
    assert metrics.area_under_risk_coverage(labels, p, u) == 0.0
    assert metrics.risk_at_coverage(labels, p, u) == 0.0


def test_with_errors_only_everything_is_a_find() -> None:
    labels, p = predictions([False, False])
    u = [0.1, 0.2]
    assert math.isnan(metrics.misclassification_auroc(labels, p, u))
    assert metrics.misclassification_aupr(labels, p, u) == 1.0
    assert metrics.area_under_risk_coverage(labels, p, u) == 1.0
    assert metrics.risk_at_coverage(labels, p, u) == 1.0


# === Risk and coverage ===


def test_the_curve_answers_the_most_certain_rows_first() -> None:
    labels, p = predictions([False, True, True, False])
    curve = metrics.risk_coverage_curve(labels, p, [0.9, 0.1, 0.2, 0.3])
    assert curve.coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    np.testing.assert_allclose(curve.risk, [0, 0, 1 / 3, 1 / 2])
    assert metrics.area_under_risk_coverage(labels, p, [0.9, 0.1, 0.2, 0.3]) == pytest.approx((1 / 3 + 1 / 2) / 4)


def test_of_tied_rows_none_comes_first() -> None:
    right = [True, False, True, False, False]
    u = np.array([0.1, 0.5, 0.5, 0.5, 0.9])
    labels, p = predictions(right)
    curves = []
    for order in itertools.permutations(range(5)):
        if (np.diff(u[list(order)]) >= 0).all():
            errors = ~np.array(right)[list(order)]
            curves.append(errors.cumsum() / np.arange(1, 6))
    np.testing.assert_allclose(metrics.risk_coverage_curve(labels, p, u).risk, np.mean(curves, axis=0))


def test_the_curve_of_numbers_is_the_mean_error_of_the_most_certain_rows() -> None:
    curve = metrics.error_retention_curve([8.0, 1.0, 3.0, 0.0], [0.9, 0.1, 0.2, 0.2])
    assert curve.coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    np.testing.assert_allclose(curve.risk, [1, (1 + 1.5) / 2, 4 / 3, 3])


@pytest.mark.parametrize(
    ("errors", "uncertainty", "message"),
    [
        ([1.0, 2.0], [1.0], r"equal shapes, but got \(2,\) and \(1,\)"),
        ([1.0, -2.0], [1.0, 2.0], "must not be negative, but the lowest is -2"),
        ([1.0, math.nan], [1.0, 2.0], "`errors` must be finite"),
        ([[1.0]], [1.0], r"`errors` must have shape \(n,\)"),
    ],
)
def test_errors_without_a_size_are_refused(errors: list, uncertainty: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.error_retention_curve(errors, uncertainty)


def test_the_order_of_the_rows_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    labels, p = predictions(list(rng.random(60) < 0.7))
    u = rng.integers(6, size=60)
    order = rng.permutation(60)
    for metric in ON_UNCERTAINTY:
        if metric is not metrics.risk_coverage_curve:
            assert metric(labels[order], p, u[order]) == pytest.approx(metric(labels, p, u), rel=1e-12)


def test_full_coverage_has_the_error_rate() -> None:
    labels, p = predictions([True, False, False])
    assert metrics.risk_at_coverage(labels, p, [0.3, 0.1, 0.2], coverage=1.0) == pytest.approx(2 / 3)
    assert metrics.risk_at_coverage(labels, p, [0.3, 0.1, 0.2], coverage=1e-9) == 1.0


# === Out of distribution ===


def test_out_of_distribution_is_the_positive_class() -> None:
    assert metrics.out_of_distribution_auroc([0.0, 1.0], [2.0, 3.0]) == 1.0
    assert metrics.out_of_distribution_auroc([2.0, 3.0], [0.0, 1.0]) == 0.0
    # One input of the three above 0.5 is out of distribution, and it is the highest.
    assert metrics.out_of_distribution_aupr([0.1, 1.0, 2.0], [3.0]) == 1.0
    assert metrics.out_of_distribution_aupr([3.0], [0.1, 1.0, 2.0]) == pytest.approx((1 / 2 + 2 / 3 + 3 / 4) / 3)


def test_fpr_is_read_where_the_recall_is_reached() -> None:
    outside = np.arange(20.0)
    # 19 of 20 are at 1 or above: so are three of the inside.
    assert metrics.out_of_distribution_fpr([0.0, 0.5, 0.9, 1.0, 5.0, 50.0], outside) == 0.5
    assert metrics.out_of_distribution_fpr([0.0, 0.5, 0.9, 1.0, 5.0, 50.0], outside, recall=1.0) == 1.0
    assert metrics.out_of_distribution_fpr([-1.0, 30.0], outside, recall=0.5) == 0.5


def test_scores_that_say_nothing() -> None:
    assert metrics.out_of_distribution_auroc(np.zeros(3), np.zeros(5)) == 0.5
    assert metrics.out_of_distribution_aupr(np.zeros(3), np.zeros(5)) == 5 / 8
    assert metrics.out_of_distribution_fpr(np.zeros(3), np.zeros(5)) == 1.0


@pytest.mark.parametrize("metric", ON_TWO_KINDS)
def test_one_input_of_each_kind(metric) -> None:
    perfect = {metrics.out_of_distribution_fpr: 0.0}.get(metric, 1.0)
    assert metric([0.1], [0.2]) == perfect
    assert math.isfinite(metric([0.2], [0.1]))


# === Refusals ===


@pytest.mark.parametrize("metric", ON_UNCERTAINTY)
@pytest.mark.parametrize(
    ("uncertainty", "message"),
    [
        ([0.1], r"`uncertainty` must have shape \(2,\), one number per row of the probabilities, but got \(1,\)"),
        ([[0.1, 0.2]], r"`uncertainty` must have shape \(n,\) and at least one value, but got \(1, 2\)"),
        ([0.1, np.nan], "`uncertainty` must be finite, but 1 of 2 values"),
        ([0.1, np.inf], "`uncertainty` must be finite, but 1 of 2 values"),
    ],
)
def test_uncertainty_that_does_not_fit_is_refused(metric, uncertainty: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metric([0, 1], [[0.8, 0.2], [0.8, 0.2]], uncertainty)


@pytest.mark.parametrize("metric", ON_TWO_KINDS)
def test_scores_that_do_not_fit_are_refused(metric) -> None:
    with pytest.raises(ValueError, match=r"`in_distribution` must have shape \(n,\) and at least one value"):
        metric([], [0.1])
    with pytest.raises(ValueError, match=r"`out_of_distribution` must have shape \(n,\) and at least one value"):
        metric([0.1], [])
    with pytest.raises(ValueError, match="`out_of_distribution` must be finite"):
        metric([0.1], [np.nan])


@pytest.mark.parametrize("value", [0, 1.1, -0.5, 95, True, "0.9", math.nan])
def test_shares_out_of_range_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="`recall` must be a number above 0 and up to 1, but got"):
        metrics.out_of_distribution_fpr([0.1], [0.2], recall=value)
    with pytest.raises(ValueError, match="`coverage` must be a number above 0 and up to 1, but got"):
        metrics.risk_at_coverage([0], [[0.8, 0.2]], [0.1], coverage=value)

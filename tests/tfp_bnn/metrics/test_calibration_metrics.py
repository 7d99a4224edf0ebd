"""Reliability diagrams, equal mass and the errors of calibration, by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tfp_bnn import metrics

ERRORS = [
    metrics.expected_calibration_error,
    metrics.maximum_calibration_error,
    metrics.classwise_calibration_error,
    metrics.reliability_diagram,
]


def pairs(top: list[float]) -> np.ndarray:
    return np.stack([top, 1.0 - np.array(top)], axis=1)


def random_predictions(rows: int = 500, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(classes, size=rows), rng.dirichlet(np.full(classes, 0.5), size=rows)


def test_equal_mass_bins_hold_equally_many_rows() -> None:
    labels, p = random_predictions()
    diagram = metrics.reliability_diagram(labels, p, num_bins=10, binning="mass")
    assert diagram.counts.tolist() == [50] * 10
    top = np.sort(p.max(axis=1))
    np.testing.assert_array_equal(diagram.edges[1:-1], top[49:-1:50])
    np.testing.assert_allclose(diagram.confidence, top.reshape(10, 50).mean(axis=1))


def test_rows_of_equal_confidence_share_a_bin_of_equal_mass_in_any_order() -> None:
    p = pairs([0.6, 0.7, 0.7, 0.7, 0.9, 0.9])
    labels = np.array([0, 1, 0, 0, 1, 0])
    diagram = metrics.reliability_diagram(labels, p, num_bins=3, binning="mass")
    # Upper edges: the 2nd, 4th and 6th smallest, that is 0.7, 0.7 and 0.9: no row is left for the second bin.
    assert diagram.counts.tolist() == [4, 0, 2]
    np.testing.assert_array_equal(diagram.accuracy, [0.75, np.nan, 0.5])
    rng = np.random.default_rng(0)
    for _ in range(10):
        order = rng.permutation(6)
        value = metrics.expected_calibration_error(labels[order], p[order], 3, "mass")
        assert value == pytest.approx((4 * (0.75 - 0.675) + 2 * (0.9 - 0.5)) / 6)


def test_the_maximum_error_is_that_of_the_worst_bin_however_small() -> None:
    # Of 99 rows with 0.7 about 70 % are right, and one with 0.9 is wrong.
    labels = np.repeat([0, 1], [69, 31])
    p = pairs([0.7] * 99 + [0.9])
    assert metrics.maximum_calibration_error(labels, p) == pytest.approx(0.9)
    assert metrics.expected_calibration_error(labels, p) == pytest.approx((99 * (0.7 - 69 / 99) + 0.9) / 100)


@pytest.mark.parametrize("binning", ["width", "mass"])
def test_no_bin_is_better_than_the_mean_bin(binning: str) -> None:
    labels, p = random_predictions()
    worst = metrics.maximum_calibration_error(labels, p, binning=binning)
    assert worst >= metrics.expected_calibration_error(labels, p, binning=binning)


def test_classwise_error_counts_probability_of_a_class_that_never_comes() -> None:
    # Calibrated but for the third class, whose 10 % are given in error, taken from the first one.
    labels = np.repeat([0, 1], [50, 50])
    p = np.tile([0.4, 0.5, 0.1], (100, 1))
    assert metrics.classwise_calibration_error(labels, p) == pytest.approx((0.1 + 0.0 + 0.1) / 3)


def test_a_diagram_contains_the_expected_calibration_error() -> None:
    labels, p = random_predictions()
    for binning in ("width", "mass"):
        diagram = metrics.reliability_diagram(labels, p, binning=binning)
        filled = diagram.counts > 0
        gaps = np.abs(diagram.accuracy - diagram.confidence)[filled]
        error = metrics.expected_calibration_error(labels, p, binning=binning)
        assert (diagram.counts[filled] * gaps).sum() / 500 == pytest.approx(error)


def test_a_diagram_has_one_number_per_bin_and_nan_where_it_is_empty() -> None:
    diagram = metrics.reliability_diagram([0, 1], pairs([0.9, 0.6]), num_bins=5)
    np.testing.assert_allclose(diagram.edges, [0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert diagram.counts.tolist() == [0, 0, 1, 0, 1]
    np.testing.assert_allclose(diagram.confidence, [np.nan, np.nan, 0.6, np.nan, 0.9])
    np.testing.assert_allclose(diagram.accuracy, [np.nan, np.nan, 0.0, np.nan, 1.0])
    with pytest.raises(dataclasses.FrozenInstanceError):
        diagram.counts = diagram.counts


@pytest.mark.parametrize("error", ERRORS)
def test_arguments_that_do_not_fit_are_refused(error) -> None:
    labels, p = [0, 1], pairs([0.9, 0.6])
    with pytest.raises(ValueError, match="`binning` must be 'width' or 'mass', but got 'size'"):
        error(labels, p, binning="size")
    with pytest.raises(ValueError, match="`num_bins` must be a positive integer, but got 0"):
        error(labels, p, num_bins=0)
    with pytest.raises(ValueError, match="must lie from 0 to 1 for 2 classes"):
        error([0, 2], p)
    with pytest.raises(ValueError, match="If they are logits, apply a softmax first"):
        error(labels, [[3.0, -1.0], [0.0, 1.0]])

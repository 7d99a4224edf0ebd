"""Ranking metrics of histograms against scikit-learn, to which weights of rows are as good as counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.metrics
import tensorflow as tf

from tfp_bnn.metrics import ranking

BINS = 40


def histogram(seed: int, whole: bool) -> tuple[np.ndarray, np.ndarray]:
    """Counts of positive and negative rows in bins of ascending score; some bins are empty."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(5, size=(2, BINS)) * (rng.random((2, BINS)) < 0.7)
    return tuple(counts.astype(np.float64) if whole else counts * rng.random((2, BINS)))


def as_rows(positives: np.ndarray, negatives: np.ndarray) -> dict[str, np.ndarray]:
    """One row for each bin and kind, with its count as weight."""
    scores = np.tile(np.arange(BINS), 2)
    weights = np.concatenate([positives, negatives])
    kept = weights > 0
    kind = np.repeat([1, 0], BINS)
    return {"y_true": kind[kept], "y_score": scores[kept], "sample_weight": weights[kept]}


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_areas_of_counts_equal_scikit_learn(seed, whole):
    counts = histogram(seed, whole)
    rows = as_rows(*counts)
    assert ranking.auroc_of_counts(*counts) == pytest.approx(sklearn.metrics.roc_auc_score(**rows), abs=1e-12)
    expected = sklearn.metrics.average_precision_score(**rows)
    assert ranking.average_precision_of_counts(*counts) == pytest.approx(expected, abs=1e-12)
    rejected, found, _ = sklearn.metrics.roc_curve(**rows, drop_intermediate=False)
    for recall in (0.05, 0.5, 0.95, 1.0):
        ours = ranking.false_positive_rate_of_counts(*counts, recall)
        assert ours == pytest.approx(rejected[np.argmax(found >= recall - 1e-12)], abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_risk_and_coverage_of_counts_are_means_over_the_orders_of_tied_rows(seed):
    positives, negatives = histogram(seed, whole=True)
    counts = positives + negatives
    share = np.divide(positives, counts, out=np.zeros(BINS), where=counts > 0)
    risks = np.repeat(share, counts.astype(int)).cumsum() / np.arange(1, counts.sum() + 1)
    area = ranking.area_under_risk_coverage_of_counts(positives, negatives)
    assert area == pytest.approx(risks.mean(), abs=1e-12)
    for coverage in (1e-9, 0.3, 0.55, 1.0):
        answered = max(math.ceil(coverage * len(risks) - 1e-9), 1)
        ours = ranking.risk_at_coverage_of_counts(positives, negatives, coverage)
        assert ours == pytest.approx(risks[answered - 1], abs=1e-12)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_risk_and_coverage_of_weights_are_those_of_many_rows_at_any_scale(scale):
    positives, negatives = histogram(0, whole=False)
    weights, rows = ([factor * part for part in (positives, negatives)] for factor in (scale, 1e9))
    rows = [part.round() for part in rows]
    area = ranking.area_under_risk_coverage_of_counts
    assert area(*weights) == pytest.approx(area(*rows), rel=1e-6)
    for coverage in (0.1, 0.5, 1.0):
        found, expected = (ranking.risk_at_coverage_of_counts(*part, coverage) for part in (weights, rows))
        assert found == pytest.approx(expected, rel=1e-6)


def test_counts_of_scores_are_in_ascending_order_of_the_scores():
    positives, negatives = ranking.counts_of(np.array([True, False, True, True]), np.array([0.5, 0.5, -1.0, 0.5]))
    np.testing.assert_array_equal(positives, [1.0, 2.0])
    np.testing.assert_array_equal(negatives, [0.0, 1.0])


def test_tensors_give_what_arrays_give():
    positives, negatives = histogram(0, whole=False)
    tensors = tf.constant(positives), tf.constant(negatives)
    for core, arguments in (
        (ranking.auroc_of_counts, ()),
        (ranking.average_precision_of_counts, ()),
        (ranking.false_positive_rate_of_counts, (0.9,)),
        (ranking.area_under_risk_coverage_of_counts, ()),
        (ranking.risk_at_coverage_of_counts, (0.6,)),
    ):
        value = core(*tensors, *arguments)
        assert value.dtype == tf.float64
        assert float(value) == pytest.approx(float(core(positives, negatives, *arguments)), rel=1e-12)

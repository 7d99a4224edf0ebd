"""How well scores separate positive from negative rows: areas under curves, with ties treated exactly.

Positive rows should have the higher scores; rows with equal scores pass any threshold together. `selective` and
`out_of_distribution` decide which rows are positive.

Given all rows, scikit-learn computes the areas under curves. A Keras metric sees one batch at a time, in a compiled
step where scikit-learn cannot run. It keeps a histogram of the scores, which the functions `*_of_counts` take; they are
exact for scores rounded to their bins. Risk and coverage, which scikit-learn does not have, are always computed from
counts.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import sklearn.metrics

from tfp_bnn.metrics.arrays import Array, digamma, float64, namespace, ratio

# === Of all rows ===


def auroc(positive: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64]) -> float:
    """The area under the receiver operating characteristic: P(a positive scores above a negative), ties one half.

    Args:
        positive: Which rows are positive, `(n,)`.
        scores: Finite scores `(n,)`.

    Returns:
        A number from 0 to 1, 0.5 by chance. NaN without a positive or without a negative row: there are no pairs to
        compare.

    References:
        J. A. Hanley, B. J. McNeil, The meaning and use of the area under a receiver operating characteristic (ROC)
        curve, Radiology 143, 1982. https://doi.org/10.1148/radiology.143.1.7063747
    """
    # scikit-learn warns if the result is not defined.
    return math.nan if _is_one_kind(positive) else float(sklearn.metrics.roc_auc_score(positive, scores))


def average_precision(positive: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64]) -> float:
    """The area under the precision-recall curve as average precision, sum_t (recall_t - recall_(t-1)) * precision_t.

    The thresholds t are the distinct scores, from the highest down.

    Args:
        positive: Which rows are positive, `(n,)`.
        scores: Finite scores `(n,)`.

    Returns:
        A number from 0 to 1; the share of positive rows by chance. 0, as in scikit-learn, without a positive row.

    References:
        J. Davis, M. Goadrich, The relationship between precision-recall and ROC curves, ICML 2006.
        https://doi.org/10.1145/1143844.1143874
    """
    # scikit-learn warns if there are no positive rows.
    return float(sklearn.metrics.average_precision_score(positive, scores)) if positive.any() else 0.0


def false_positive_rate(positive: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64], recall: float) -> float:
    """The share of negative rows at or above the highest threshold reached by at least `recall` of the positives.

    Args:
        positive: Which rows are positive, `(n,)`.
        scores: Finite scores `(n,)`.
        recall: Share of the positive rows, above 0 and up to 1.

    Returns:
        A fraction from 0 to 1, `recall` by chance. NaN without a positive or without a negative row.
    """
    if _is_one_kind(positive):
        return math.nan
    rejected, found, _ = sklearn.metrics.roc_curve(positive, scores, drop_intermediate=False)
    return float(rejected[np.argmax(found >= recall)])


def counts_of(
    positive: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The number of positive and of negative rows with each distinct score, in ascending order of score."""
    _, index, counts = np.unique(scores, return_inverse=True, return_counts=True)
    positives = np.bincount(index, weights=positive, minlength=len(counts)).astype(np.float64)
    return positives, counts.astype(np.float64) - positives


def _is_one_kind(positive: npt.NDArray[np.bool_]) -> bool:
    return bool(positive.all() or not positive.any())


# === Of the numbers of positive and negative rows by ascending score: float64 arrays or tensors of one length ===


def auroc_of_counts(positives: Array, negatives: Array) -> Array:
    """`auroc` of a histogram."""
    xp = namespace(positives)
    below = xp.cumsum(negatives) - negatives
    pairs = xp.sum(positives) * xp.sum(negatives)
    return xp.where(pairs > 0, ratio(xp.sum(positives * (below + 0.5 * negatives)), pairs), math.nan)


def average_precision_of_counts(positives: Array, negatives: Array) -> Array:
    """`average_precision` of a histogram."""
    xp = namespace(positives)
    found = _at_or_above(positives)
    precision = ratio(found, found + _at_or_above(negatives))
    return ratio(xp.sum(positives * precision), xp.sum(positives))


def false_positive_rate_of_counts(positives: Array, negatives: Array, recall: float) -> Array:
    """`false_positive_rate` of a histogram."""
    xp = namespace(positives)
    found, all_positives, all_negatives = _at_or_above(positives), xp.sum(positives), xp.sum(negatives)
    # The share found decreases with the threshold, so the highest threshold that finds enough is the last one.
    # The tolerance is for fractional counts, whose sums depend on the order up to rounding.
    threshold = xp.sum(ratio(found, all_positives) >= recall * (1.0 - 1e-12)) - 1
    rejected = xp.sum(negatives * float64(xp.arange(negatives.shape[0]) >= threshold))
    return xp.where((all_positives > 0) & (all_negatives > 0), ratio(rejected, all_negatives), math.nan)


def area_under_risk_coverage_of_counts(positives: Array, negatives: Array) -> Array:
    """The mean over k of the expected share of positive rows among the k with the lowest scores.

    Rows in one bin have no order: the expectation is over all orders. Counts that are not all whole are weights, which
    may have any scale: the result is the limit of many rows with these shares.
    """
    xp = namespace(positives)
    counts = positives + negatives
    share = ratio(positives, counts)
    rows_before, positives_before = xp.cumsum(counts) - counts, xp.cumsum(positives) - positives
    # The sum over j = 1..count of (positives_before + j * share) / (rows_before + j), without a loop over rows; of
    # weights, the integral. Before the first row, its factor below is 0.
    of_rows = digamma(rows_before + counts + 1.0) - digamma(rows_before + 1.0)
    of_weights = xp.log(xp.where(rows_before > 0, ratio(rows_before + counts, rows_before), 1.0))
    harmonic = xp.where(_are_whole(counts), of_rows, of_weights)
    risks = counts * share + (positives_before - share * rows_before) * harmonic
    return ratio(xp.sum(risks), xp.sum(counts))


def risk_at_coverage_of_counts(positives: Array, negatives: Array, coverage: float) -> Array:
    """The expected share of positives among the fewest lowest-score rows that make up at least `coverage` of all.

    Counts that are not all whole are weights, which may have any scale: `coverage` is then a share of their sum.
    """
    xp = namespace(positives)
    counts = positives + negatives
    rows = xp.cumsum(counts)
    # A product that rounds to just above an integer must not count as the next integer.
    wanted = coverage * rows[-1] * (1.0 - 1e-12)
    answered = xp.where(_are_whole(counts), xp.ceil(wanted), wanted)
    before = float64(rows < answered)
    positives_before, rows_before = xp.sum(positives * before), xp.sum(counts * before)
    last = xp.argmax(rows >= answered)
    return ratio(positives_before + ratio(positives[last], counts[last]) * (answered - rows_before), answered)


def _are_whole(counts: Array) -> Array:
    """Whether they count rows, and are no weights; sums of weights that are all whole are taken for numbers of rows."""
    xp = namespace(counts)
    return xp.all(counts == xp.floor(counts))


def _at_or_above(counts: Array) -> Array:
    xp = namespace(counts)
    return xp.flip(xp.cumsum(xp.flip(counts)))

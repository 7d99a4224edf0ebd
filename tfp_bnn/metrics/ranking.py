"""How well scores tell positive rows from negative ones: areas under curves, in which ties are treated exactly.

`positive` is a boolean array of shape `(n,)` and `scores` one of numbers; positive rows should have the higher ones.
Rows of equal score pass any threshold together. Used by `selective` and `out_of_distribution`, which say what is
positive.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


def auroc(positive: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64]) -> float:
    """The area under the receiver operating characteristic: P(a positive scores above a negative), ties one half.

    Returns:
        A number from 0 to 1, 0.5 by chance. NaN, as in scikit-learn, without a positive or without a negative row:
        there are no pairs to be compared.

    References:
        J. A. Hanley, B. J. McNeil, The meaning and use of the area under a receiver operating characteristic (ROC)
        curve, Radiology 143, 1982. https://doi.org/10.1148/radiology.143.1.7063747
    """
    positives, negatives = _counts(positive, scores)
    pairs = int(positives.sum()) * int(negatives.sum())
    if pairs == 0:
        return math.nan
    negatives_above = negatives.cumsum() - negatives
    negatives_below = negatives.sum() - negatives_above - negatives
    return float((positives * (negatives_below + 0.5 * negatives)).sum() / pairs)


def average_precision(positive: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64]) -> float:
    """The area under the precision-recall curve as average precision, sum_t (recall_t - recall_(t-1)) * precision_t.

    The thresholds t are the distinct scores, from the highest down.

    Returns:
        A number from 0 to 1; by chance, the share of positive rows. 0, as in scikit-learn, without a positive row.

    References:
        J. Davis, M. Goadrich, The relationship between precision-recall and ROC curves, ICML 2006.
        https://doi.org/10.1145/1143844.1143874
    """
    positives, negatives = _counts(positive, scores)
    precision = positives.cumsum() / (positives + negatives).cumsum()
    return float((positives * precision).sum() / max(int(positives.sum()), 1))


def false_positive_rate(positive: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64], recall: float) -> float:
    """The share of negative rows at or above the highest threshold that at least `recall` of the positives reach.

    Returns:
        A fraction from 0 to 1, `recall` by chance. NaN without a positive or without a negative row.
    """
    positives, negatives = _counts(positive, scores)
    if not positives.sum() or not negatives.sum():
        return math.nan
    threshold = int(np.argmax(positives.cumsum() / positives.sum() >= recall))
    return float(negatives.cumsum()[threshold] / negatives.sum())


def _counts(
    positive: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """How many positive and how many negative rows have each distinct score, from the highest down."""
    distinct, index = np.unique(scores, return_inverse=True)
    positives = np.bincount(index, weights=positive, minlength=len(distinct)).astype(np.int64)
    return positives[::-1], (np.bincount(index) - positives)[::-1]

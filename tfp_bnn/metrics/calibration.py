"""Whether probabilities mean what they say: of the predictions made with 80 %, 80 % should be right.

`labels` are integers of shape `(n,)` or one-hot rows of shape `(n, classes)`; `probabilities` have shape
`(n, classes)` and are already averaged over Monte Carlo samples. Rows are put into bins by a probability:

- `binning="width"`: bins of equal width. Bin b, counted from 0, holds the probabilities in (b / num_bins, (b + 1) /
  num_bins]; the first one holds 0 too. Edges are rounded to the dtype of `probabilities`, so that a float32 0.6 lies on
  the edge 9 / 15 as it would on paper.
- `binning="mass"`: bins of equally many rows, as far as rows of equal probability, which stay together in the lower of
  their bins, allow it. The upper edge of bin b is the ceil((b + 1) n / num_bins)-th smallest probability.

Empty bins count nothing. The estimates are biased upwards: a perfectly calibrated model is above 0 by an amount that
grows with `num_bins` and shrinks with n. All errors are finite for any input that is not refused: one row, rows that
are all right or all wrong, a class that no row has, probabilities of exactly 0 or 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tfp_bnn.metrics.validation import labelled, number_of_bins

Binning = Literal["width", "mass"]


def expected_calibration_error(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, num_bins: int = 15, binning: Binning = "width"
) -> float:
    """The expected calibration error of the top probability, sum_b n_b / n * |accuracy_b - confidence_b|.

    Rows are put into `num_bins` bins by the probability of their most probable class.

    Args:
        labels: integers `(n,)` or one-hot `(n, classes)`.
        probabilities: `(n, classes)`.
        num_bins: the number of bins, at least 1.
        binning: `"width"` or `"mass"`, for bins of equal width or of equally many rows.

    Returns:
        A number from 0 to 1.

    Raises:
        ValueError: for labels or probabilities that are not valid, or do not fit together, a number of bins that is
            not positive, or an unknown binning.

    Example:
        >>> from tfp_bnn.metrics import expected_calibration_error
        >>> round(expected_calibration_error([0, 1], [[0.9, 0.1], [0.6, 0.4]]), 4)
        0.35

    References:
        M. P. Naeini, G. F. Cooper, M. Hauskrecht, Obtaining well calibrated probabilities using Bayesian binning,
        AAAI 2015. https://doi.org/10.1609/aaai.v29i1.9602
        C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, On calibration of modern neural networks, ICML 2017.
        https://arxiv.org/abs/1706.04599
        K. Nguyen, B. O'Connor, Posterior calibration and exploratory analysis for natural language processing models,
        EMNLP 2015 (equal mass). https://arxiv.org/abs/1508.05154
    """
    bins, gaps = _gaps_of_top(labels, probabilities, num_bins, binning)
    return float(np.abs(np.bincount(bins, weights=gaps)).sum() / len(gaps))


def maximum_calibration_error(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, num_bins: int = 15, binning: Binning = "width"
) -> float:
    """The maximum calibration error of the top probability, max_b |accuracy_b - confidence_b| over bins with rows.

    A bin of few rows counts as much as any other, so that equal mass is the steadier choice.

    Args:
        labels: integers `(n,)` or one-hot `(n, classes)`.
        probabilities: `(n, classes)`.
        num_bins: the number of bins, at least 1.
        binning: `"width"` or `"mass"`, for bins of equal width or of equally many rows.

    Returns:
        A number from 0 to 1, never below `expected_calibration_error` with the same bins.

    Raises:
        ValueError: for labels or probabilities that are not valid, or do not fit together, a number of bins that is
            not positive, or an unknown binning.

    Example:
        >>> from tfp_bnn.metrics import maximum_calibration_error
        >>> round(maximum_calibration_error([0, 1], [[0.9, 0.1], [0.6, 0.4]]), 4)
        0.6

    References:
        M. P. Naeini, G. F. Cooper, M. Hauskrecht, Obtaining well calibrated probabilities using Bayesian binning,
        AAAI 2015. https://doi.org/10.1609/aaai.v29i1.9602
    """
    bins, gaps = _gaps_of_top(labels, probabilities, num_bins, binning)
    counts = np.bincount(bins)
    return float((np.abs(np.bincount(bins, weights=gaps)) / np.maximum(counts, 1)).max())


def classwise_calibration_error(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, num_bins: int = 15, binning: Binning = "width"
) -> float:
    """The classwise expected calibration error: that of the probability of each class, averaged over the classes.

        1 / classes * sum_k sum_b n_bk / n * |share of class k in the bin - mean p_k in the bin|

    For each class k, all rows are put into bins by p_k. A class that no row has counts too: whatever probability it is
    given is given in error.

    Args:
        labels: integers `(n,)` or one-hot `(n, classes)`.
        probabilities: `(n, classes)`.
        num_bins: the number of bins, at least 1.
        binning: `"width"` or `"mass"`, for bins of equal width or of equally many rows; the latter for each class.

    Returns:
        A number from 0 to 1.

    Raises:
        ValueError: for labels or probabilities that are not valid, or do not fit together, a number of bins that is
            not positive, or an unknown binning.

    Example:
        >>> from tfp_bnn.metrics import classwise_calibration_error
        >>> round(classwise_calibration_error([0, 1], [[0.9, 0.1], [0.6, 0.4]]), 4)
        0.35

    References:
        M. Kull et al., Beyond temperature scaling: obtaining well-calibrated multiclass probabilities with Dirichlet
        calibration, NeurIPS 2019. https://arxiv.org/abs/1910.12656
    """
    num_bins = number_of_bins(num_bins)
    p, y = labelled(labels, probabilities)
    total = 0.0
    for k, of_class in enumerate(p.T):
        bins = np.searchsorted(_inner_edges(of_class, num_bins, binning), of_class, side="left")
        gaps = (y == k) - of_class.astype(np.float64)
        total += np.abs(np.bincount(bins, weights=gaps)).sum()
    return float(total / p.size)


@dataclass(frozen=True, eq=False)
class ReliabilityDiagram:
    """What a reliability diagram shows of `num_bins` bins of the top probability.

    Attributes:
        edges: `(num_bins + 1,)`, ascending from 0 to 1; bin b is from `edges[b]` to `edges[b + 1]`, its upper end
            included.
        counts: rows in each bin, `(num_bins,)`, integers.
        confidence: mean top probability in each bin, `(num_bins,)`; NaN where a bin is empty.
        accuracy: share of rows in each bin whose most probable class is the label, `(num_bins,)`; NaN where a bin is
            empty.
    """

    edges: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    accuracy: npt.NDArray[np.float64]


def reliability_diagram(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, num_bins: int = 15, binning: Binning = "width"
) -> ReliabilityDiagram:
    """Confidence and accuracy by bins of the top probability: the data of a reliability diagram.

    Args:
        labels: integers `(n,)` or one-hot `(n, classes)`.
        probabilities: `(n, classes)`.
        num_bins: the number of bins, at least 1.
        binning: `"width"` or `"mass"`, for bins of equal width or of equally many rows.

    Returns:
        Edges, counts, confidence and accuracy of the bins.

    Raises:
        ValueError: for labels or probabilities that are not valid, or do not fit together, a number of bins that is
            not positive, or an unknown binning.

    Example:
        >>> from tfp_bnn.metrics import reliability_diagram
        >>> diagram = reliability_diagram([0, 1], [[0.9, 0.1], [0.6, 0.4]], num_bins=2)
        >>> diagram.counts.tolist(), diagram.confidence.tolist(), diagram.accuracy.tolist()
        ([0, 2], [nan, 0.75], [nan, 0.5])

    References:
        M. H. DeGroot, S. E. Fienberg, The comparison and evaluation of forecasters, The Statistician 32, 1983.
        https://doi.org/10.2307/2987588
    """
    num_bins = number_of_bins(num_bins)
    p, y = labelled(labels, probabilities)
    confidence = p.max(axis=1)
    inner_edges = _inner_edges(confidence, num_bins, binning)
    bins = np.searchsorted(inner_edges, confidence, side="left")
    counts = np.bincount(bins, minlength=num_bins)
    rows = np.where(counts > 0, counts, np.nan)
    correct = (p.argmax(axis=1) == y).astype(np.float64)
    return ReliabilityDiagram(
        edges=np.concatenate([[0.0], inner_edges.astype(np.float64), [1.0]]),
        counts=counts,
        confidence=np.bincount(bins, weights=confidence.astype(np.float64), minlength=num_bins) / rows,
        accuracy=np.bincount(bins, weights=correct, minlength=num_bins) / rows,
    )


def _gaps_of_top(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, num_bins: int, binning: Binning
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """The bin of each row's top probability, and by how much being right (1, or 0) is above that probability."""
    num_bins = number_of_bins(num_bins)
    p, y = labelled(labels, probabilities)
    confidence = p.max(axis=1)
    bins = np.searchsorted(_inner_edges(confidence, num_bins, binning), confidence, side="left")
    return bins, (p.argmax(axis=1) == y) - confidence.astype(np.float64)


def _inner_edges(
    values: npt.NDArray[np.floating[Any]], num_bins: int, binning: Binning
) -> npt.NDArray[np.floating[Any]]:
    """The `num_bins - 1` edges between the bins, each the upper end of the bin below it, in the dtype of `values`."""
    if binning == "width":
        return (np.arange(1, num_bins) / num_bins).astype(values.dtype)
    if binning == "mass":
        # The ceiling of b n / num_bins without a detour through floating-point numbers.
        ranks = -(-np.arange(1, num_bins) * len(values) // num_bins)
        edges: npt.NDArray[np.floating[Any]] = np.sort(values)[ranks - 1]
        return edges
    raise ValueError(f"`binning` must be 'width' or 'mass', but got {binning!r}.")

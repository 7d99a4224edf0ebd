"""Calibration of class probabilities: 80 % of the predictions made with probability 0.8 should be correct.

`labels` are integers of shape `(n,)` or one-hot rows of shape `(n, classes)`; `probabilities` have shape
`(n, classes)` and are already averaged over Monte Carlo samples. Rows are binned by a probability:

- `binning="width"`: bins of equal width. Bin b, counted from 0, holds the probabilities in (b / num_bins, (b + 1) /
  num_bins]; the first one also holds 0. Edges are rounded to the dtype of `probabilities`, so a float32 0.6 lies on the
  edge 9 / 15, as in exact arithmetic.
- `binning="mass"`: bins with equal numbers of rows, except that rows with equal probability share the lower of their
  bins. The upper edge of bin b is the ceil((b + 1) n / num_bins)-th smallest probability.

Empty bins do not count. The estimates are biased upwards: the error of a perfectly calibrated model is above 0 by an
amount that grows with `num_bins` and shrinks with n. All errors are finite for any valid input: one row, rows that are
all correct or all wrong, a class without rows, probabilities of exactly 0 or 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import keras
import numpy as np
import numpy.typing as npt

from tfp_bnn.metrics.arrays import Array, float64, namespace, ratio, segment_sum
from tfp_bnn.metrics.classification import is_correct
from tfp_bnn.metrics.validation import labelled, number_of_bins

Binning = Literal["width", "mass"]


# === Cores, for NumPy arrays and tensors: what is binned, the sums of each bin, and the errors made from the sums ===


def top_class(labels: Array, probabilities: Array) -> tuple[Array, Array]:
    """The highest probability of each row, and whether its class is the label, both `(n, 1)`."""
    top = namespace(probabilities).max(probabilities, axis=-1, keepdims=True)
    return top, is_correct(labels, probabilities)[:, None]


def each_class(labels: Array, probabilities: Array) -> tuple[Array, Array]:
    """The probability of each class, and whether the class is the label, both `(n, classes)`."""
    return probabilities, labels[:, None] == namespace(probabilities).arange(probabilities.shape[-1])


def bins_of(values: Array, num_bins: int, binning: Binning = "width") -> Array:
    """The bin of each probability, integers of the shape of `values`, `(n, groups)`; each group has its own bins."""
    xp = namespace(values)
    if binning == "width":
        flat = xp.searchsorted(_edges(values, num_bins, binning), xp.reshape(values, (-1,)), side="left")
        return xp.reshape(flat, xp.shape(values))
    # Bins of equal mass need all rows at once, so they only exist for NumPy arrays.
    return np.stack([np.searchsorted(_edges(group, num_bins, binning), group, side="left") for group in values.T], 1)


def sums_of_bins(
    values: Array, happened: Array, weights: Array, num_bins: int, binning: Binning = "width"
) -> tuple[Array, Array]:
    """Weighted sums of `happened - value` and of 1 over the rows of each bin.

    Args:
        values: Probabilities `(n, groups)`.
        happened: Whether the event with that probability happened, `(n, groups)`.
        weights: Weights of the rows `(n,)`, float64.
        num_bins: Number of bins per group.
        binning: Bins of equal `"width"` or, for NumPy arrays, of equal `"mass"`.

    Returns:
        Gaps and counts, both `(groups, num_bins)`, float64. Sums over batches can be added.
    """
    xp, groups = namespace(values), values.shape[-1]
    cells = bins_of(values, num_bins, binning) + num_bins * xp.arange(groups)
    gaps = float64(happened) - float64(values)
    sums = (segment_sum(weights[:, None] * of_rows, cells, groups * num_bins) for of_rows in (gaps, xp.ones_like(gaps)))
    gap_sums, counts = (xp.reshape(of_cells, (groups, num_bins)) for of_cells in sums)
    return gap_sums, counts


def mean_gap(gaps: Array, counts: Array) -> Array:
    """The mean over rows and groups of |happened - value| of their bin; 0 without rows."""
    xp = namespace(gaps)
    return ratio(xp.sum(xp.abs(gaps)), xp.sum(counts))


def largest_gap(gaps: Array, counts: Array) -> Array:
    """The largest |happened - value| of a bin; 0 without rows."""
    xp = namespace(gaps)
    return xp.max(ratio(xp.abs(gaps), counts))


# === Metrics ===


def expected_calibration_error(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, num_bins: int = 15, binning: Binning = "width"
) -> float:
    """The expected calibration error of the top probability, sum_b n_b / n * |accuracy_b - confidence_b|.

    Rows are binned by the probability of their most probable class.

    Args:
        labels: Integers `(n,)` or one-hot rows `(n, classes)`.
        probabilities: Class probabilities `(n, classes)`.
        num_bins: Number of bins, at least 1.
        binning: `"width"` for bins of equal width, `"mass"` for bins with equal numbers of rows.

    Returns:
        A number from 0 to 1.

    Raises:
        ValueError: If labels or probabilities are invalid or do not match, the number of bins is not positive, or the
            binning is unknown.

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
    return float(mean_gap(*_sums(top_class, labels, probabilities, num_bins, binning)))


def maximum_calibration_error(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, num_bins: int = 15, binning: Binning = "width"
) -> float:
    """The maximum calibration error of the top probability, max_b |accuracy_b - confidence_b| over bins with rows.

    A bin with few rows counts as much as any other, so bins of equal mass are more stable.

    Args:
        labels: Integers `(n,)` or one-hot rows `(n, classes)`.
        probabilities: Class probabilities `(n, classes)`.
        num_bins: Number of bins, at least 1.
        binning: `"width"` for bins of equal width, `"mass"` for bins with equal numbers of rows.

    Returns:
        A number from 0 to 1, never below `expected_calibration_error` with the same bins.

    Raises:
        ValueError: If labels or probabilities are invalid or do not match, the number of bins is not positive, or the
            binning is unknown.

    Example:
        >>> from tfp_bnn.metrics import maximum_calibration_error
        >>> round(maximum_calibration_error([0, 1], [[0.9, 0.1], [0.6, 0.4]]), 4)
        0.6

    References:
        M. P. Naeini, G. F. Cooper, M. Hauskrecht, Obtaining well calibrated probabilities using Bayesian binning,
        AAAI 2015. https://doi.org/10.1609/aaai.v29i1.9602
    """
    return float(largest_gap(*_sums(top_class, labels, probabilities, num_bins, binning)))


def classwise_calibration_error(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, num_bins: int = 15, binning: Binning = "width"
) -> float:
    """The classwise calibration error: the expected calibration error of each class probability, averaged over classes.

        1 / classes * sum_k sum_b n_bk / n * |share of class k in the bin - mean p_k in the bin|

    For each class k, all rows are binned by p_k. A class without rows counts too: all of its probability is an error.

    Args:
        labels: Integers `(n,)` or one-hot rows `(n, classes)`.
        probabilities: Class probabilities `(n, classes)`.
        num_bins: Number of bins, at least 1.
        binning: `"width"` for bins of equal width, `"mass"` for bins with equal numbers of rows, separately for each
            class.

    Returns:
        A number from 0 to 1.

    Raises:
        ValueError: If labels or probabilities are invalid or do not match, the number of bins is not positive, or the
            binning is unknown.

    Example:
        >>> from tfp_bnn.metrics import classwise_calibration_error
        >>> round(classwise_calibration_error([0, 1], [[0.9, 0.1], [0.6, 0.4]]), 4)
        0.35

    References:
        M. Kull et al., Beyond temperature scaling: obtaining well-calibrated multiclass probabilities with Dirichlet
        calibration, NeurIPS 2019. https://arxiv.org/abs/1910.12656
    """
    return float(mean_gap(*_sums(each_class, labels, probabilities, num_bins, binning)))


@dataclass(frozen=True, eq=False)
class ReliabilityDiagram:
    """The data of a reliability diagram for `num_bins` bins of the top probability.

    Attributes:
        edges: Bin edges `(num_bins + 1,)`, ascending from 0 to 1. Bin b goes from `edges[b]` to `edges[b + 1]`,
            including its upper end.
        counts: Number of rows in each bin `(num_bins,)`, integers.
        confidence: Mean top probability in each bin `(num_bins,)`; NaN where a bin is empty.
        accuracy: Share of rows in each bin that are predicted correctly `(num_bins,)`; NaN where a bin is empty.
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
        labels: Integers `(n,)` or one-hot rows `(n, classes)`.
        probabilities: Class probabilities `(n, classes)`.
        num_bins: Number of bins, at least 1.
        binning: `"width"` for bins of equal width, `"mass"` for bins with equal numbers of rows.

    Returns:
        Edges, counts, confidence and accuracy of the bins.

    Raises:
        ValueError: If labels or probabilities are invalid or do not match, the number of bins is not positive, or the
            binning is unknown.

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
    confidence, correct = top_class(y, p)
    bins = bins_of(confidence, num_bins, binning)
    counts = np.bincount(bins[:, 0], minlength=num_bins)
    rows = np.where(counts > 0, counts, np.nan)
    inner_edges = _edges(confidence[:, 0], num_bins, binning).astype(np.float64)
    return ReliabilityDiagram(
        edges=np.concatenate([[0.0], inner_edges, [1.0]]),
        counts=counts,
        confidence=segment_sum(float64(confidence), bins, num_bins) / rows,
        accuracy=segment_sum(float64(correct), bins, num_bins) / rows,
    )


def _sums(
    binned: Callable[[Array, Array], tuple[Array, Array]],
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    num_bins: int,
    binning: Binning,
) -> tuple[Array, Array]:
    num_bins = number_of_bins(num_bins)
    p, y = labelled(labels, probabilities)
    return sums_of_bins(*binned(y, p), np.ones(len(p)), num_bins, binning)


def _edges(values: Array, num_bins: int, binning: Binning) -> npt.NDArray[np.floating]:
    """The `num_bins - 1` edges between the bins, each the upper end of the bin below it, in the dtype of `values`."""
    if binning == "width":
        return (np.arange(1, num_bins) / num_bins).astype(keras.backend.standardize_dtype(values.dtype))
    if binning == "mass":
        # The ceiling of b n / num_bins, in integers.
        ranks = -(-np.arange(1, num_bins) * len(values) // num_bins)
        edges: npt.NDArray[np.floating] = np.sort(values)[ranks - 1]
        return edges
    raise ValueError(f"`binning` must be 'width' or 'mass', but got {binning!r}.")

"""Scores of predictive class probabilities, and the entropies that tell what their uncertainty is made of.

`labels` are integers of shape `(n,)` or one-hot rows of shape `(n, classes)`. `probabilities` have shape
`(n, classes)`, with rows that sum to 1, and are already averaged over Monte Carlo samples; `sample_probabilities`, of
shape `(samples, n, classes)`, are not. Every function sums in float64, and raises a ValueError for shapes that do not
fit, labels out of range, and values that are not probabilities.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import entr

PROBABILITY_FLOOR = float(np.finfo(np.float32).tiny)
SUM_TOLERANCE = 1e-3


def accuracy(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """The fraction of rows whose most probable class is the label.

    Of equally probable classes the first one counts as the prediction.

    Args:
        labels: integers `(n,)` or one-hot `(n, classes)`.
        probabilities: `(n, classes)`.

    Returns:
        A fraction from 0 to 1.

    Raises:
        ValueError: for labels or probabilities that are not valid, or do not fit together.

    Example:
        >>> from tfp_bnn.metrics import accuracy
        >>> accuracy([0, 1], [[0.9, 0.1], [0.6, 0.4]])
        0.5
    """
    p, y = _validated(labels, probabilities)
    return float(np.mean(p.argmax(axis=1) == y))


def nll(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """The negative log-likelihood, -mean(log p(label)), in nats per example.

    It is taken at the label only, not averaged over classes. A probability below 1.2e-38, the smallest normal float32,
    counts as that number: a label that was given probability 0 costs 87.3 nats and not infinitely many.

    Args:
        labels: integers `(n,)` or one-hot `(n, classes)`.
        probabilities: `(n, classes)`.

    Returns:
        Nats per example, from 0 to 87.3.

    Raises:
        ValueError: for labels or probabilities that are not valid, or do not fit together.

    Example:
        >>> from tfp_bnn.metrics import nll
        >>> round(nll([0, 1], [[0.9, 0.1], [0.6, 0.4]]), 4)
        0.5108
    """
    p, y = _validated(labels, probabilities)
    at_label = p[np.arange(len(y)), y].astype(np.float64)
    return float(-np.log(np.clip(at_label, PROBABILITY_FLOOR, 1.0)).mean())


def brier_score(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """The Brier score, mean over rows of sum over classes of (p - one_hot(label))^2.

    This is Brier's own definition, from 0 to 2; for two classes it is twice the one that looks at the second class
    only.

    Args:
        labels: integers `(n,)` or one-hot `(n, classes)`.
        probabilities: `(n, classes)`.

    Returns:
        A number from 0 (sure and right) to 2 (sure and wrong).

    Raises:
        ValueError: for labels or probabilities that are not valid, or do not fit together.

    Example:
        >>> from tfp_bnn.metrics import brier_score
        >>> round(brier_score([0, 1], [[0.9, 0.1], [0.6, 0.4]]), 4)
        0.37

    References:
        G. W. Brier, Verification of forecasts expressed in terms of probability, Monthly Weather Review 78, 1950.
        https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2
    """
    p, y = _validated(labels, probabilities)
    errors = p.astype(np.float64)
    errors[np.arange(len(y)), y] -= 1.0
    return float(np.square(errors).sum(axis=1).mean())


def expected_calibration_error(labels: npt.ArrayLike, probabilities: npt.ArrayLike, num_bins: int = 15) -> float:
    """The expected calibration error of the top probability, sum_b n_b / n * |accuracy_b - confidence_b|.

    Rows are put into `num_bins` bins of equal width by the probability of their most probable class. Bin b, counted
    from 0, holds the probabilities in (b / num_bins, (b + 1) / num_bins]; the first one holds 0 too. Edges are rounded
    to the dtype of `probabilities`, so that a float32 0.6 lies on the edge 9 / 15 as it would on paper. Empty bins
    count nothing.

    The estimate is biased upwards: a perfectly calibrated model is above 0 by an amount that grows with `num_bins` and
    shrinks with n.

    Args:
        labels: integers `(n,)` or one-hot `(n, classes)`.
        probabilities: `(n, classes)`.
        num_bins: the number of bins, at least 1.

    Returns:
        A number from 0 to 1.

    Raises:
        ValueError: for labels or probabilities that are not valid, or do not fit together, or a number of bins that is
            not positive.

    Example:
        >>> from tfp_bnn.metrics import expected_calibration_error
        >>> round(expected_calibration_error([0, 1], [[0.9, 0.1], [0.6, 0.4]]), 4)
        0.35

    References:
        M. P. Naeini, G. F. Cooper, M. Hauskrecht, Obtaining well calibrated probabilities using Bayesian binning,
        AAAI 2015. https://doi.org/10.1609/aaai.v29i1.9602
        C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, On calibration of modern neural networks, ICML 2017.
        https://arxiv.org/abs/1706.04599
    """
    if isinstance(num_bins, bool) or not isinstance(num_bins, (int, np.integer)) or num_bins < 1:
        raise ValueError(
            f"`num_bins` must be a positive integer, but got {num_bins!r}. Published numbers use 10 or 15."
        )
    p, y = _validated(labels, probabilities)
    confidence = p.max(axis=1)
    inner_edges = (np.arange(1, num_bins) / num_bins).astype(p.dtype)
    bins = np.searchsorted(inner_edges, confidence, side="left")
    gaps = (p.argmax(axis=1) == y) - confidence.astype(np.float64)
    return float(np.abs(np.bincount(bins, weights=gaps)).sum() / len(y))


def predictive_entropy(probabilities: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The entropy of each predictive distribution, -sum p log p: its total uncertainty.

    Args:
        probabilities: `(n, classes)`.

    Returns:
        Nats, shape `(n,)`, from 0 to log(classes).

    Raises:
        ValueError: for values that are not probabilities.

    Example:
        >>> from tfp_bnn.metrics import predictive_entropy
        >>> predictive_entropy([[0.5, 0.5], [1.0, 0.0]]).round(4).tolist()
        [0.6931, 0.0]
    """
    return _entropy(_validated_probabilities("probabilities", probabilities, ("n", "classes")))


def expected_entropy(sample_probabilities: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The mean entropy of the Monte Carlo samples, E_w[H(p(y | x, w))]: the aleatoric part of `predictive_entropy`.

    It is what remains uncertain once the weights are known.

    Args:
        sample_probabilities: `(samples, n, classes)`, one distribution per draw of the weights.

    Returns:
        Nats, shape `(n,)`, from 0 to log(classes).

    Raises:
        ValueError: for values that are not probabilities.

    Example:
        >>> from tfp_bnn.metrics import expected_entropy
        >>> expected_entropy([[[0.5, 0.5]], [[1.0, 0.0]]]).round(4).tolist()
        [0.3466]

    References:
        S. Depeweg, J. M. Hernandez-Lobato, F. Doshi-Velez, S. Udluft, Decomposition of uncertainty in Bayesian deep
        learning for efficient and risk-sensitive learning, ICML 2018. https://arxiv.org/abs/1710.07283
    """
    return _mean_entropy(_validated_samples(sample_probabilities))


def mutual_information(sample_probabilities: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The mutual information of label and weights, H(E_w[p]) - E_w[H(p)]: the epistemic part of `predictive_entropy`.

    It is 0 where all draws of the weights agree. Negative values, which only rounding can give, are returned as 0.

    Args:
        sample_probabilities: `(samples, n, classes)`, one distribution per draw of the weights.

    Returns:
        Nats, shape `(n,)`, from 0 to log(min(samples, classes)).

    Raises:
        ValueError: for values that are not probabilities.

    Example:
        >>> from tfp_bnn.metrics import mutual_information
        >>> mutual_information([[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]]).round(4).tolist()
        [0.6931, 0.0]

    References:
        N. Houlsby, F. Huszar, Z. Ghahramani, M. Lengyel, Bayesian active learning for classification and preference
        learning, 2011. https://arxiv.org/abs/1112.5745
        S. Depeweg, J. M. Hernandez-Lobato, F. Doshi-Velez, S. Udluft, Decomposition of uncertainty in Bayesian deep
        learning for efficient and risk-sensitive learning, ICML 2018. https://arxiv.org/abs/1710.07283
    """
    samples = _validated_samples(sample_probabilities)
    total = _entropy(samples.mean(axis=0, dtype=np.float64))
    return np.maximum(total - _mean_entropy(samples), 0.0)


def _entropy(p: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    entropy: npt.NDArray[np.float64] = entr(p.astype(np.float64)).sum(axis=-1)
    # A float32 probability may round to just above 1, where -p log p is negative.
    return np.maximum(entropy, 0.0)


def _mean_entropy(samples: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    # One sample at a time: a float64 copy of all of them may not fit into memory.
    total = np.zeros(samples.shape[1])
    for sample in samples:
        total += _entropy(sample)
    return total / len(samples)


def _validated(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike
) -> tuple[npt.NDArray[np.floating[Any]], npt.NDArray[np.int64]]:
    """The probabilities in their own floating-point dtype, and the labels as integers."""
    p = _validated_probabilities("probabilities", probabilities, ("n", "classes"))
    return p, _validated_labels(labels, *p.shape)


def _validated_samples(sample_probabilities: npt.ArrayLike) -> npt.NDArray[np.floating[Any]]:
    return _validated_probabilities("sample_probabilities", sample_probabilities, ("samples", "n", "classes"))


def _validated_probabilities(name: str, values: npt.ArrayLike, axes: tuple[str, ...]) -> npt.NDArray[np.floating[Any]]:
    p = np.asarray(values)
    if not np.issubdtype(p.dtype, np.floating):
        p = p.astype(np.float64)
    if p.ndim != len(axes) or 0 in p.shape or p.shape[-1] < 2:
        raise ValueError(
            f"`{name}` must have shape ({', '.join(axes)}) with at least two classes and no empty axis, but got "
            f"{p.shape}. For the probability of one of two classes use np.stack([1 - p, p], axis=-1)."
        )
    if not np.isfinite(p).all():
        raise ValueError(
            f"`{name}` must be finite, but {np.count_nonzero(~np.isfinite(p))} of {p.size} values are NaN or infinite."
        )
    if p.min() < 0:
        raise ValueError(
            f"`{name}` must not be negative, but the lowest value is {p.min()}. If they are logits, apply a softmax "
            "first."
        )
    sums = p.sum(axis=-1, dtype=np.float64)
    worst = sums.flat[np.abs(sums - 1.0).argmax()]
    if abs(worst - 1.0) > SUM_TOLERANCE:
        raise ValueError(
            f"`{name}` must sum to 1 over the last axis to {SUM_TOLERANCE}, but one row sums to {worst:.6g}. If they "
            "are logits, apply a softmax first, in float32 or better."
        )
    return p


def _validated_labels(labels: npt.ArrayLike, num_rows: int, num_classes: int) -> npt.NDArray[np.int64]:
    y = np.asarray(labels)
    if y.shape == (num_rows, num_classes):
        return _from_one_hot(y)
    if y.shape != (num_rows,):
        raise ValueError(
            f"`labels` must have shape ({num_rows},) or, one-hot, ({num_rows}, {num_classes}) to fit the "
            f"probabilities, but got {y.shape}. Give one label per row; drop an axis of length 1 with labels[:, 0]."
        )
    if not np.issubdtype(y.dtype, np.integer):
        raise ValueError(
            f"`labels` must be integers, but got the dtype {y.dtype}. Cast whole numbers with labels.astype('int64')."
        )
    if y.min() < 0 or y.max() >= num_classes:
        raise ValueError(
            f"`labels` must lie from 0 to {num_classes - 1} for {num_classes} classes, but range from {y.min()} to "
            f"{y.max()}. Renumber them in the order of the columns of the probabilities."
        )
    return y.astype(np.int64)


def _from_one_hot(rows: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    if not (np.isin(rows, (0, 1)).all() and (rows.sum(axis=1) == 1).all()):
        raise ValueError(
            "One-hot `labels` must hold a single 1 per row and 0 elsewhere, but some rows do not. Soft labels are not "
            "supported; give the class as an integer."
        )
    labels: npt.NDArray[np.int64] = rows.argmax(axis=1).astype(np.int64)
    return labels

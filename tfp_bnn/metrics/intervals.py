"""Scores of predictive intervals and quantiles: their coverage, calibration and width.

Arrays have the shape of the targets, `(n,)` or `(n, outputs)`; quantiles have one more axis, the first. Scores are
means over all entries. Nothing is broadcast. All scores are finite for finite arguments, even for a single row.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tfp_bnn.metrics.arrays import Array, float64, namespace
from tfp_bnn.metrics.validation import ordered_interval, stacked

# === Cores: float64 NumPy arrays or tensors ===


def is_inside(targets: Array, lower: Array, upper: Array) -> Array:
    """Whether each target is in its interval, ends included, float64."""
    return float64((lower <= targets) & (targets <= upper))


def width_of(lower: Array, upper: Array) -> Array:
    """The width of each interval."""
    return upper - lower


def is_below(targets: Array, quantiles: Array) -> Array:
    """Whether each target is at or below its quantile, of the shape of the quantiles, float64."""
    return float64(targets <= quantiles)


def mean_deviation(shares: Array, levels: Array) -> Array:
    """The mean over levels of |share of targets at or below the quantile - level|."""
    xp = namespace(shares)
    return xp.mean(xp.abs(shares - levels))


# === Metrics ===


def interval_coverage(targets: npt.ArrayLike, lower: npt.ArrayLike, upper: npt.ArrayLike) -> float:
    """The fraction of targets in their predictive interval, ends included.

    A calibrated 90 % interval covers about 0.9. To compare models, use it together with `interval_width`.

    Args:
        targets: Targets `(n,)` or `(n, outputs)`.
        lower: Lower ends, same shape.
        upper: Upper ends, same shape.

    Returns:
        A fraction from 0 to 1.

    Raises:
        ValueError: If shapes differ, values are missing or not finite, or a lower end is above the upper one.

    Example:
        >>> from tfp_bnn.metrics import interval_coverage
        >>> interval_coverage([1.0, 2.0], lower=[0.0, 0.0], upper=[1.0, 1.0])
        0.5

    References:
        T. Gneiting, A. E. Raftery, Strictly proper scoring rules, prediction, and estimation, JASA 102, 2007.
        https://doi.org/10.1198/016214506000001437
    """
    arrays = ordered_interval(targets=targets, lower=lower, upper=upper)
    return float(is_inside(**arrays).mean())


def interval_width(lower: npt.ArrayLike, upper: npt.ArrayLike) -> float:
    """The mean width of predictive intervals, mean(upper - lower).

    Args:
        lower: Lower ends `(n,)` or `(n, outputs)`.
        upper: Upper ends, same shape.

    Returns:
        The width in the units of the targets.

    Raises:
        ValueError: If shapes differ, values are missing or not finite, or a lower end is above the upper one.

    Example:
        >>> from tfp_bnn.metrics import interval_width
        >>> interval_width(lower=[0.0, 0.0], upper=[1.0, 2.0])
        1.5
    """
    arrays = ordered_interval(lower=lower, upper=upper)
    return float(width_of(**arrays).mean())


def quantile_calibration_error(
    targets: npt.ArrayLike, quantiles: npt.ArrayLike, levels: Sequence[float] | npt.NDArray[np.floating]
) -> float:
    """The calibration error of quantiles, mean over levels of |share of targets at or below the quantile - level|.

    Args:
        targets: Targets `(n,)` or `(n, outputs)`.
        quantiles: Predictive quantiles `(levels, n)` or `(levels, n, outputs)`, as from `predictive.quantiles(levels)`.
        levels: Levels of the quantiles, each above 0 and below 1, such as `[0.05, 0.15, ..., 0.95]`.

    Returns:
        A number from 0 to 1.

    Raises:
        ValueError: If shapes do not match, values are missing or not finite, or levels are out of range.

    Example:
        >>> from tfp_bnn.metrics import quantile_calibration_error
        >>> round(quantile_calibration_error([1.0, 2.0], quantiles=[[0.0, 0.0], [1.5, 1.5]], levels=[0.1, 0.9]), 4)
        0.25

    References:
        V. Kuleshov, N. Fenner, S. Ermon, Accurate uncertainties for deep learning using calibrated regression, ICML
        2018. https://arxiv.org/abs/1807.00263
    """
    y, q = stacked(targets, "quantiles", quantiles)
    nominal = np.asarray(levels, dtype=np.float64)
    if nominal.shape != (len(q),) or not ((nominal > 0) & (nominal < 1)).all():
        raise ValueError(
            f"`levels` must be {len(q)} numbers above 0 and below 1, one for each of the `quantiles`, but got "
            f"{levels!r}."
        )
    shares = is_below(y, q).reshape(len(q), -1).mean(axis=1)
    return float(mean_deviation(shares, nominal))

"""Scores of predictive means and intervals, in the units of the targets.

Both arguments of a function have the same shape, `(n,)` or `(n, outputs)`; scores are taken over all entries. Nothing
is broadcast: targets of shape `(n,)` against means of shape `(n, 1)` would quietly compare every row with every other.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def rmse(targets: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """The root mean squared error, sqrt(mean((target - prediction)^2)), over all rows and outputs.

    Args:
        targets: `(n,)` or `(n, outputs)`.
        predictions: predictive means, of the same shape.

    Returns:
        The error in the units of the targets.

    Raises:
        ValueError: for shapes that differ, no values, or NaN.

    Example:
        >>> from tfp_bnn.metrics import rmse
        >>> round(rmse([1.0, 2.0], [1.0, 4.0]), 4)
        1.4142
    """
    arrays = _validated(targets=targets, predictions=predictions)
    return float(np.sqrt(np.square(arrays["targets"] - arrays["predictions"]).mean()))


def mae(targets: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """The mean absolute error, mean(|target - prediction|), over all rows and outputs.

    Args:
        targets: `(n,)` or `(n, outputs)`.
        predictions: predictive means or medians, of the same shape.

    Returns:
        The error in the units of the targets.

    Raises:
        ValueError: for shapes that differ, no values, or NaN.

    Example:
        >>> from tfp_bnn.metrics import mae
        >>> mae([1.0, 2.0], [1.0, 4.0])
        1.0
    """
    arrays = _validated(targets=targets, predictions=predictions)
    return float(np.abs(arrays["targets"] - arrays["predictions"]).mean())


def interval_coverage(targets: npt.ArrayLike, lower: npt.ArrayLike, upper: npt.ArrayLike) -> float:
    """The fraction of targets in their predictive interval, ends included.

    A calibrated 90 % interval covers about 0.9; judge it together with `interval_width`.

    Args:
        targets: `(n,)` or `(n, outputs)`.
        lower: lower ends, of the same shape.
        upper: upper ends, of the same shape.

    Returns:
        A fraction from 0 to 1.

    Raises:
        ValueError: for shapes that differ, no values, NaN, or a lower end above the upper one.

    Example:
        >>> from tfp_bnn.metrics import interval_coverage
        >>> interval_coverage([1.0, 2.0], lower=[0.0, 0.0], upper=[1.0, 1.0])
        0.5

    References:
        T. Gneiting, A. E. Raftery, Strictly proper scoring rules, prediction, and estimation, JASA 102, 2007.
        https://doi.org/10.1198/016214506000001437
    """
    arrays = _validated_interval(targets=targets, lower=lower, upper=upper)
    return float(np.mean((arrays["lower"] <= arrays["targets"]) & (arrays["targets"] <= arrays["upper"])))


def interval_width(lower: npt.ArrayLike, upper: npt.ArrayLike) -> float:
    """The mean width of predictive intervals, mean(upper - lower).

    Args:
        lower: lower ends, `(n,)` or `(n, outputs)`.
        upper: upper ends, of the same shape.

    Returns:
        The width in the units of the targets.

    Raises:
        ValueError: for shapes that differ, no values, NaN, or a lower end above the upper one.

    Example:
        >>> from tfp_bnn.metrics import interval_width
        >>> interval_width(lower=[0.0, 0.0], upper=[1.0, 2.0])
        1.5
    """
    arrays = _validated_interval(lower=lower, upper=upper)
    return float((arrays["upper"] - arrays["lower"]).mean())


def _validated_interval(**values: npt.ArrayLike) -> dict[str, npt.NDArray[np.float64]]:
    arrays = _validated(**values)
    crossed = np.count_nonzero(arrays["lower"] > arrays["upper"])
    if crossed:
        raise ValueError(
            f"`lower` must not be above `upper`, but is for {crossed} of {arrays['lower'].size} intervals. Were they "
            "swapped?"
        )
    return arrays


def _validated(**values: npt.ArrayLike) -> dict[str, npt.NDArray[np.float64]]:
    """The arguments as float64 arrays of one shape, by name."""
    arrays = {name: np.asarray(value, dtype=np.float64) for name, value in values.items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) > 1:
        got = ", ".join(f"`{name}` {shape}" for name, shape in shapes.items())
        raise ValueError(
            f"Shapes must be equal, but got {got}. Reshape one to the other; drop an axis of length 1 with array[:, 0]."
        )
    for name, array in arrays.items():
        if array.ndim not in (1, 2) or array.size == 0:
            raise ValueError(
                f"`{name}` must have shape (n,) or (n, outputs) and at least one value, but got {array.shape}."
            )
        if not np.isfinite(array).all():
            raise ValueError(
                f"`{name}` must be finite, but {np.count_nonzero(~np.isfinite(array))} of {array.size} values are NaN "
                "or infinite."
            )
    return arrays

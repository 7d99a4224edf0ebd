"""Validation of the arguments of metrics: probabilities, labels, scores, targets and predictions.

Each function returns the argument as an array, or raises a ValueError that says what was passed, what was expected and
how to fix it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tfp_bnn.core.arguments import is_integer, is_number

SUM_TOLERANCE = 1e-3


def labelled(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike
) -> tuple[npt.NDArray[np.floating[Any]], npt.NDArray[np.int64]]:
    """The probabilities in their own floating-point dtype, `(n, classes)`, and the labels as integers, `(n,)`."""
    p = averaged(probabilities)
    return p, _labels(labels, *p.shape)


def labelled_and_scored(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, uncertainty: npt.ArrayLike
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Which rows are errors, and how uncertain each row is, both `(n,)`.

    A row is an error if its most probable class is not the label. Ties go to the first class.
    """
    p, y = labelled(labels, probabilities)
    u = scores("uncertainty", uncertainty)
    if u.shape != y.shape:
        raise ValueError(
            f"`uncertainty` must have shape {y.shape}, one number per row of the probabilities, but got {u.shape}."
        )
    return p.argmax(axis=1) != y, u


def averaged(probabilities: npt.ArrayLike) -> npt.NDArray[np.floating[Any]]:
    """Returns probabilities of shape `(n, classes)`, already averaged over Monte Carlo samples."""
    return _probabilities("probabilities", probabilities, ("n", "classes"))


def sampled(sample_probabilities: npt.ArrayLike) -> npt.NDArray[np.floating[Any]]:
    """Returns probabilities of shape `(samples, n, classes)`."""
    return _probabilities("sample_probabilities", sample_probabilities, ("samples", "n", "classes"))


def scores(name: str, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Returns finite scores of shape `(n,)`, float64."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"`{name}` must have shape (n,) and at least one value, but got {array.shape}.")
    refuse_not_finite(name, array)
    return array


def share(name: str, value: float) -> float:
    """Returns a number above 0 and up to 1."""
    if not is_number(value) or not 0 < value <= 1:
        raise ValueError(f"`{name}` must be a number above 0 and up to 1, but got {value!r}. Give 95 % as 0.95.")
    return float(value)


def number_of_bins(value: int) -> int:
    """Returns a positive integer."""
    if not is_integer(value) or value < 1:
        raise ValueError(f"`num_bins` must be a positive integer, but got {value!r}. Published numbers use 10 or 15.")
    return int(value)


def refuse_not_finite(name: str, array: npt.NDArray[np.floating[Any]]) -> None:
    """Raises a ValueError if an array has NaN or infinite values, with their number."""
    if not np.isfinite(array).all():
        raise ValueError(
            f"`{name}` must be finite, but {np.count_nonzero(~np.isfinite(array))} of {array.size} values are NaN or "
            "infinite."
        )


def equal_shapes(**values: npt.ArrayLike) -> dict[str, npt.NDArray[np.float64]]:
    """The arguments as float64 arrays of equal shape, by name."""
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
        refuse_not_finite(name, array)
    return arrays


def ordered_interval(**values: npt.ArrayLike) -> dict[str, npt.NDArray[np.float64]]:
    """The arguments, including `lower` and `upper`, as float64 arrays of equal shape, by name."""
    arrays = equal_shapes(**values)
    crossed = np.count_nonzero(arrays["lower"] > arrays["upper"])
    if crossed:
        raise ValueError(
            f"`lower` must not be above `upper`, but is for {crossed} of {arrays['lower'].size} intervals. Were they "
            "swapped?"
        )
    return arrays


def stacked(
    targets: npt.ArrayLike, name: str, values: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The targets, and an array with an additional first axis, both float64."""
    y = equal_shapes(targets=targets)["targets"]
    stack = np.asarray(values, dtype=np.float64)
    if stack.shape[1:] != y.shape or stack.size == 0:
        raise ValueError(
            f"`{name}` must have the shape of the targets, {y.shape}, after a first axis of its own, but got "
            f"{stack.shape}."
        )
    refuse_not_finite(name, stack)
    return y, stack


def refuse_scales_not_positive(scales: npt.NDArray[np.float64]) -> None:
    """Raises a ValueError with the lowest scale unless all scales are above 0."""
    if scales.min() <= 0:
        raise ValueError(f"`scales` must be above 0, but the lowest value is {scales.min()}. Are they log-scales?")


def _probabilities(name: str, values: npt.ArrayLike, axes: tuple[str, ...]) -> npt.NDArray[np.floating[Any]]:
    p = np.asarray(values)
    if not np.issubdtype(p.dtype, np.floating):
        p = p.astype(np.float64)
    if p.ndim != len(axes) or 0 in p.shape or p.shape[-1] < 2:
        raise ValueError(
            f"`{name}` must have shape ({', '.join(axes)}) with at least two classes and no empty axis, but got "
            f"{p.shape}. For the probability of one of two classes use np.stack([1 - p, p], axis=-1)."
        )
    refuse_not_finite(name, p)
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


def _labels(labels: npt.ArrayLike, num_rows: int, num_classes: int) -> npt.NDArray[np.int64]:
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

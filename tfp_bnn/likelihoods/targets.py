"""Checks of targets that several likelihoods share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from tfp_bnn.core.checks import check_finite, require
from tfp_bnn.likelihoods.marginals import Marginals


class _Support(NamedTuple):
    """Where the targets of a distribution lie."""

    text: str
    holds: Callable[[Any, Callable[[Any], Any]], Any]
    """Takes targets, and a function that rounds them down."""


_POSITIVE = _Support("numbers > 0", lambda y, floor: y > 0)
_UNIT = _Support("numbers between 0 and 1, both excluded", lambda y, floor: (y > 0) & (y < 1))
_WHOLE = _Support("whole numbers", lambda y, floor: floor(y) == y)
_COUNTS = _Support("whole numbers >= 0", lambda y, floor: (floor(y) == y) & (y >= 0))


MARKED_ADVICE = "If a number marks missing targets, give it to the likelihood as `missing`."
_NOT_FINITE = (
    "Remove these rows, or, if NaN marks missing targets, say so to the likelihood, as in likelihood={'name': "
    "'normal', 'missing': 'nan'}."
)


def checked(targets: tf.Tensor, condition: tf.Tensor, *message: str | tf.Tensor) -> tf.Tensor:
    """The targets, which require a condition; see `core.checks.require` for the parts of the message."""
    with tf.control_dependencies(require(condition, *message)):
        return tf.identity(targets)


def like_outputs(y: tf.Tensor, num_targets: int) -> tf.Tensor:
    """Reshapes `(batch,)` to `(batch, 1)`. Other shapes must match, or broadcasting would train on nonsense."""
    check_rank_is_known(y)
    if len(y.shape) == 1 and num_targets == 1:
        y = y[:, None]
    if len(y.shape) != 2 or y.shape[-1] != num_targets:
        raise ValueError(targets_message(tuple(y.shape), num_targets))
    return tf.cast(y, tf.float32)


def check_rank_is_known(y: tf.Tensor) -> None:
    """Refuses targets of unknown rank: Keras relaxes a compiled step to any rank once it has seen two ranks."""
    if getattr(y.shape, "rank", 0) is None:
        raise ValueError(
            "The number of axes of the targets is not known. Either the pipeline does not declare it (use "
            "`tf.ensure_shape`), or earlier batches had a different one. Give all targets the same number of axes, or "
            "compile the model again in between."
        )


def check_shape(y: np.ndarray, num_targets: int) -> None:
    """Refuses arrays of targets whose shape is neither `(n, num_targets)` nor, for one target, `(n,)`."""
    if not (y.ndim == 1 and num_targets == 1) and not (y.ndim == 2 and y.shape[1] == num_targets):
        raise ValueError(targets_message(y.shape, num_targets))


def targets_message(shape: Sequence[int | None], num_targets: int) -> str:
    """The error message for targets of the wrong shape."""
    alternative = " or (batch,)" if num_targets == 1 else ""
    return (
        f"Targets of shape {tuple(shape)} do not fit a model with {num_targets} target(s): expected the shape (batch, "
        f"{num_targets}){alternative}. Reshape the targets, or build the model with another number of outputs."
    )


def check_numbers(y: np.ndarray, without_missing: Callable[[np.ndarray], np.ndarray], name: str = "y") -> None:
    """Refuses arrays of targets that are no finite numbers.

    Args:
        y: Array of targets.
        without_missing: That of the likelihood, which replaces what marks a missing target.
        name: Name of the array in messages.

    Raises:
        ValueError: If the dtype is not one of numbers, or a target that is not missing is NaN or infinite.
    """
    if not (np.issubdtype(y.dtype, np.number) or y.dtype == bool):
        raise ValueError(
            f"`{name}` holds {y.dtype} values; numbers were expected. Encode the classes as 0, 1, 2, ..., and "
            "convert numbers with astype(float)."
        )
    check_finite(without_missing(y), name, _NOT_FINITE)


def check_support(y: np.ndarray, distribution: tfd.Distribution, likelihood: str) -> None:
    """Refuses arrays of targets outside the support of a distribution, as far as it is known."""
    support = _support(distribution)
    if support is None:
        return
    wrong = ~support.holds(np.asarray(y, np.float64), np.floor)
    if wrong.any():
        position = int(np.argmax(wrong.reshape(-1)))
        raise ValueError(
            f"Targets out of range: the likelihood {likelihood} expects {support.text}, but {int(wrong.sum())} of "
            f"{wrong.size} targets are not; the first is {y.reshape(-1)[position]} in row "
            f"{np.unravel_index(position, y.shape)[0]}. Change the targets, or use a likelihood that takes them."
        )


def checked_support(y: tf.Tensor, distribution: tfd.Distribution, likelihood: str) -> tf.Tensor:
    """The targets, with `check_support` as an assertion inside a compiled step."""
    with tf.init_scope():
        support = _support(distribution)
    if support is None:
        return y
    message = f"Targets out of range: the likelihood {likelihood} expects {support.text}, but a batch has others."
    return checked(y, tf.reduce_all(support.holds(y, tf.floor)), message)


def _support(distribution: tfd.Distribution) -> _Support | None:
    marginals = Marginals(distribution)
    bijector = marginals.support()
    if isinstance(bijector, tfb.Softplus | tfb.Exp):
        return _POSITIVE
    if isinstance(bijector, tfb.Sigmoid):
        return _UNIT if bijector.low is None else None
    if not marginals.are_whole_numbers():
        return None
    return _COUNTS if marginals.excludes(-1.0) else _WHOLE


def probe_weights(add_weights: Callable[..., Mapping[str, Any]]) -> Mapping[str, Any]:
    """The initial values of the parameters a likelihood learns, without creating variables."""

    def initial_value(name: str = "", shape: Any = (), initializer: Any = "zeros", **kwargs: Any) -> tf.Tensor:
        return tf.convert_to_tensor(keras.initializers.get(initializer)(shape, dtype="float32"))

    return add_weights(initial_value)

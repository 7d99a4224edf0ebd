"""Checks of numbers, in arrays before a step and in tensors within a step."""

from __future__ import annotations

import contextlib
import contextvars
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

_NUMBERS = 2
_OF_STEP = "The weights are still those of the step before."


def check_finite(
    array: np.ndarray, name: str, advice: str = "Remove these rows, or fill in the missing values."
) -> None:
    """Refuses NaN and infinite values in a floating-point array. The ValueError counts them and shows the first."""
    if not np.issubdtype(array.dtype, np.floating):
        return
    bad = ~np.isfinite(array)
    if bad.any():
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"`{name}` has {int(bad.sum())} values that are NaN or infinite, of {array.size}; the first is "
            f"{array[index]} at index {index}. {advice}"
        )


# === Within a step ===


class Check(NamedTuple):
    """A condition of a step.

    Attributes:
        holds: Boolean scalar.
        message: Message of the ValueError, with a `str.format` field for each number.
        numbers: At most two scalars.
    """

    holds: tf.Tensor
    message: str
    numbers: tuple[tf.Tensor, ...]


class CollectedChecks(list[Check]):
    """The checks of one step, to be decided together: see `collect_checks`."""

    def __init__(self) -> None:
        super().__init__()
        self._graph = current_graph()

    def takes_tensors_from_here(self) -> bool:
        """Whether the step can use a tensor made here: not one from within a loop or another function."""
        return current_graph() is self._graph

    def table(self) -> tf.Tensor:
        """A row for each check, float64 `(checks, 3)`: whether it holds (1 or 0), and its numbers."""
        holds = tf.cast(tf.stack([check.holds for check in self]), tf.float64)
        numbers = [
            [tf.cast(number, tf.float64) for number in check.numbers] + [0.0] * (_NUMBERS - len(check.numbers))
            for check in self
        ]
        return tf.concat([holds[:, tf.newaxis], tf.convert_to_tensor(numbers, tf.float64)], axis=1)


_collected: contextvars.ContextVar[CollectedChecks | None] = contextvars.ContextVar("tfp_bnn_checks", default=None)


@contextlib.contextmanager
def collect_checks() -> Iterator[CollectedChecks]:
    """Context in which `require` collects conditions instead of asserting them.

    XLA removes assertions without a word, so a compiled step carries its conditions out as numbers. It is read while a
    function is traced, as `noise_scope` is.
    """
    checks = CollectedChecks()
    token = _collected.set(checks)
    try:
        yield checks
    finally:
        _collected.reset(token)


def require(condition: tf.Tensor, *message: str | tf.Tensor) -> list[Any]:
    """Demands a condition of tensors: collected within the step of a variational model, and asserted elsewhere.

    A step that collects goes on with the wrong values. Its results are thrown away, but it must get to its end: an
    operation that would fail, such as a lookup, needs values it can take.

    Args:
        condition: Boolean scalar.
        *message: Parts of the message, which are joined by spaces. At most two are scalar tensors.

    Returns:
        The operations to depend on in a graph; an empty list if the condition is collected or run eagerly.

    Raises:
        ValueError: If it is run eagerly, is not collected and does not hold. In a graph an `InvalidArgumentError` with
            the same text is raised instead; under XLA nothing happens.
    """
    checks = _collected.get()
    numbers = tuple(part for part in message if not isinstance(part, str))
    text = " ".join(_field(part) for part in message)
    if checks is not None and checks.takes_tensors_from_here():
        checks.append(Check(tf.convert_to_tensor(condition), text, numbers))
        return []
    if not tf.executing_eagerly():
        return [tf.debugging.Assert(condition, list(message))]
    if not condition:
        raise ValueError(text.format(*map(float, numbers)))
    return []


def assert_finite(data: Any, what: str) -> list[Any]:
    """Requires that data are finite that cannot be checked before a step, such as those of a `tf.data` pipeline.

    Args:
        data: Tensor or structure of tensors.
        what: Description of the data in the message, such as `"inputs"`.

    Returns:
        The operations to depend on, as for `require`.
    """
    message = f"The {what} of a batch have NaN or infinite values. Remove these rows, or fill in the missing values."
    return [
        operation
        for tensor in map(_values, keras.tree.flatten(data))
        if tensor.dtype.is_floating
        for operation in require(tf.reduce_all(tf.math.is_finite(tensor)), message)
    ]


def assert_weights(sample_weight: Any) -> list[Any]:
    """Requires that sample weights are finite and not negative, because an NLL with a negative factor has no bound.

    Args:
        sample_weight: Tensor, structure of tensors, or None, also within a structure.

    Returns:
        The operations to depend on, as for `require`.
    """
    message = "The sample weights of a batch have values that are NaN, infinite or below 0. Expected finite ones >= 0."
    weights = [tf.cast(tensor, tf.float32) for tensor in keras.tree.flatten(sample_weight) if tensor is not None]
    valid = [tf.reduce_all((of >= 0) & tf.math.is_finite(of)) for of in weights]
    return [operation for condition in valid for operation in require(condition, message)]


def _values(tensor: Any) -> tf.Tensor:
    """The values of a tensor; those of a sparse one that are stored."""
    return tensor.values if isinstance(tensor, tf.SparseTensor) else tf.convert_to_tensor(tensor)


def assert_terms_finite(nll: tf.Tensor, kl: tf.Tensor) -> list[Any]:
    """Requires that the terms of a training step are finite, before its gradients are applied.

    Args:
        nll: Negative log-likelihood of the batch.
        kl: KL of the model, in nats.

    Returns:
        The operations to depend on, as for `require`.
    """
    return [
        operation
        for term, value in (("negative log-likelihood of", nll), ("KL of", kl))
        for operation in require(tf.math.is_finite(value), _not_finite(term, "is"))
    ]


def assert_gradients_finite(gradients: list[Any]) -> list[Any]:
    """Requires that gradients are finite, before they are applied.

    Args:
        gradients: Tensors, `tf.IndexedSlices` or None.

    Returns:
        The operations to depend on, as for `require`.
    """
    # One pass over the gradients and no copy: a sum is finite only if all its terms are.
    sums = [
        tf.reduce_sum(tf.cast(getattr(gradient, "values", gradient), tf.float32))
        for gradient in gradients
        if gradient is not None
    ]
    total = tf.add_n([*sums, tf.constant(0.0)])
    return require(tf.math.is_finite(total), _not_finite("gradients of", "are", ", or their sum overflows"))


def _not_finite(what: str, verb: str, more: str = "") -> str:
    return (
        f"The {what} a training step {verb} NaN or infinite{more}. {_OF_STEP} Lower the learning rate, or clip the "
        "gradients."
    )


def is_of_step(error: ValueError) -> bool:
    """Whether an error is about numbers of a training step that are not finite, not about its arguments or data."""
    return _OF_STEP in str(error)


def _field(part: str | tf.Tensor) -> str:
    """A part of a message as text for `str.format`."""
    if isinstance(part, str):
        return part.replace("{", "{{").replace("}", "}}")
    return "{:.0f}" if part.dtype.is_integer else "{:g}"


def current_graph() -> Any:
    """Returns the graph that is being built, or None when operations run eagerly."""
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


@contextlib.contextmanager
def invalid_arguments_as_value_errors() -> Iterator[None]:
    """Converts a failed assertion of a compiled step, which cannot raise a ValueError, into a ValueError."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        # An assertion may have several parts, [text] [number] [text]; the node or the operation follows.
        compiled = r"assertion failed: \[(?P<graph>.*?\](?: \[(?!\[|Op:).*?\])*)"
        eager = r"Summarized data: b['\"](?P<eager>.*)['\"]"
        message = re.search(f"{compiled}|{eager}", str(error.message), re.DOTALL)
        if message is None:
            raise
        text = message["eager"] or message["graph"][:-1].replace("] [", " ")
        raise ValueError(text) from error

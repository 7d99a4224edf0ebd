"""Checks of numbers, in arrays before a step and in tensors within a step."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf


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


def assert_finite(data: Any, what: str) -> list[Any]:
    """Creates assertions for data that cannot be checked before a step, such as those of a `tf.data` pipeline.

    Args:
        data: Tensor or structure of tensors.
        what: Description of the data in the message, such as `"inputs"`.

    Returns:
        The operations to depend on in a graph; an empty list when run eagerly.
    """
    checks = [
        tf.debugging.Assert(
            tf.reduce_all(tf.math.is_finite(tensor)),
            [f"The {what} of a batch have NaN or infinite values. Remove these rows, or fill in the missing values."],
        )
        for tensor in map(_values, keras.tree.flatten(data))
        if tensor.dtype.is_floating
    ]
    return [check for check in checks if check is not None]


def _values(tensor: Any) -> tf.Tensor:
    """The values of a tensor; those of a sparse one that are stored."""
    return tensor.values if isinstance(tensor, tf.SparseTensor) else tf.convert_to_tensor(tensor)


def assert_terms_finite(nll: tf.Tensor, kl: tf.Tensor) -> list[Any]:
    """Creates assertions that stop a training step before its gradients are applied.

    Args:
        nll: Negative log-likelihood of the batch.
        kl: KL of the model, in nats.

    Returns:
        The operations to depend on in a graph; an empty list when run eagerly.
    """
    advice = "The weights are still those of the step before. Lower the learning rate, or clip the gradients."
    checks = [
        tf.debugging.Assert(tf.math.is_finite(value), [f"The {term} of a training step is NaN or infinite. {advice}"])
        for term, value in (("negative log-likelihood", nll), ("KL", kl))
    ]
    return [check for check in checks if check is not None]


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

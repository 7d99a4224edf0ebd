"""Checks of targets that several likelihoods share."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfp_bnn.core.arguments import is_number


def checked(targets: tf.Tensor, condition: tf.Tensor, message: str | tf.Tensor) -> tf.Tensor:
    """The targets, once the condition was found to hold; a ValueError cannot leave a compiled step."""
    check = tf.debugging.Assert(condition, [message])
    with tf.control_dependencies([] if check is None else [check]):
        return tf.identity(targets)


def like_outputs(y: tf.Tensor, num_targets: int) -> tf.Tensor:
    """`(batch,)` -> `(batch, 1)`; otherwise the shapes must be equal, or broadcasting would train on nonsense."""
    check_rank_is_known(y)
    if len(y.shape) == 1 and num_targets == 1:
        y = y[:, None]
    if len(y.shape) != 2 or y.shape[-1] != num_targets:
        raise ValueError(targets_message(tuple(y.shape), num_targets))
    return tf.cast(y, tf.float32)


def check_rank_is_known(y: tf.Tensor) -> None:
    """Keras relaxes a compiled step to targets of any rank once it has seen two of them."""
    if getattr(y.shape, "rank", 0) is None:
        raise ValueError(
            "The number of axes of the targets is not known. Either the pipeline does not say it (`tf.ensure_shape` "
            "does), or earlier batches had another one: give all targets the same number of axes, or compile the "
            "model again in between."
        )


def check_shape(y: np.ndarray, num_targets: int) -> None:
    """Refuses arrays of targets whose shape is neither `(n, num_targets)` nor, for one target, `(n,)`."""
    if not (y.ndim == 1 and num_targets == 1) and not (y.ndim == 2 and y.shape[1] == num_targets):
        raise ValueError(targets_message(y.shape, num_targets))


def targets_message(shape: Sequence[int | None], num_targets: int) -> str:
    """Why targets of a shape are refused."""
    alternative = " or (batch,)" if num_targets == 1 else ""
    return (
        f"Targets of shape {tuple(shape)} do not fit a model with {num_targets} target(s): expected the shape (batch, "
        f"{num_targets}){alternative}. Reshape the targets, or build the model with another number of outputs."
    )


def is_positive(value: object) -> bool:
    """Whether `value` is a finite number larger than 0."""
    return is_number(value) and 0 < value < math.inf

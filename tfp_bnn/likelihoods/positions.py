"""Positions, such as pixels or time steps, fold into rows and unfold again.

A likelihood describes rows, `(..., rows, channels)`. The outputs of a network for images or sequences have positions,
`(batch, *positions, channels)`, and every position of every example is a row.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfp_bnn.likelihoods.targets import check_rank_is_known

# The methods of a likelihood that take all draws, `(S, batch, channels)`, and the axis of the rows in their results.
AXIS_OF_ROWS = {
    "entropy": 0,
    "aleatoric": 0,
    "epistemic": 0,
    "quantiles": 1,
    "graph_quantiles": 1,
    "sample": 1,
    "levels": 1,
}

Shape = Sequence[int | None]


def fold_outputs(outputs: Any, draws: bool = False) -> tf.Tensor:
    """`(batch, *positions, channels)` -> `(rows, channels)`; with `draws`, their axis stays the first."""
    if len(outputs.shape) == 2 + draws:
        return outputs
    return tf.reshape(outputs, [*outputs.shape[:draws], -1, outputs.shape[-1]])


def fold_targets(y: Any, positions: Shape) -> Any:
    """`(batch, *positions)` -> `(rows,)`, and `(batch, *positions, columns)` -> `(rows, columns)`.

    Args:
        y: Array or tensor of targets.
        positions: Sizes of the axes of the positions; unchanged targets are returned if there are none.

    Raises:
        ValueError: If the positions of the targets are others. The message shows both shapes.
    """
    if not positions:
        return y
    check_rank_is_known(y)
    shape, count = tuple(y.shape), len(positions)
    if len(shape) - count not in (1, 2) or not _equal(shape[1 : 1 + count], positions):
        raise ValueError(
            f"Targets of shape {shape} do not fit outputs with the positions {tuple(positions)}, of shape "
            f"{('batch', *positions, 'channels')}: expected targets of shape {('batch', *positions)} or "
            f"{('batch', *positions, 'columns')}. Reshape the targets, or, if an example has a single target, remove "
            "the positions from the outputs (`return_sequences=False`, `Flatten`, a pooling layer)."
        )
    return _reshape(y, (-1, *shape[1 + count :]))


def fold_weights(sample_weight: Any, positions: Shape, num_targets: int) -> tuple[tf.Tensor | None, tf.Tensor | None]:
    """Sorts weights by what they are for.

    Args:
        sample_weight: Tensor of shape `(batch,)` (or `(batch, 1)` without positions), `(batch, *positions)`, or
            `(batch, *positions, num_targets)`; None for no weights.
        positions: Sizes of the axes of the positions.
        num_targets: Number of targets at each position.

    Returns:
        The weights of the examples, `(batch,)`, or None; and those of the rows `(rows,)`, or of their targets `(rows,
        num_targets)`, or None.

    Raises:
        ValueError: If the weights have another shape.
    """
    if sample_weight is None:
        return None, None
    weight = tf.cast(tf.convert_to_tensor(sample_weight), tf.float32)
    rank, count = weight.shape.rank, len(positions)
    if rank in (None, 1) or (count == 0 and tuple(weight.shape[1:]) == (1,)):
        return tf.reshape(weight, [-1]), None
    last = tuple(weight.shape[1 + count :])
    if _equal(tuple(weight.shape[1 : 1 + count]), positions) and last in ((), (1,), (num_targets,)):
        return None, tf.reshape(weight, [-1, *[size for size in last if size != 1]])
    allowed = dict.fromkeys([("batch",), ("batch", *positions), ("batch", *positions, num_targets)])
    raise ValueError(
        f"`sample_weight` of shape {tuple(weight.shape)} does not fit targets of shape "
        f"{('batch', *positions, num_targets)}: expected a weight for each example, position or target, of shape "
        f"{' or '.join(map(str, allowed))}."
    )


def over_positions(method: Callable[..., Any], name: str | None = None) -> Callable[..., Any]:
    """Lets a method for outputs `(S, rows, channels)` take `(S, batch, *positions, channels)`.

    Args:
        method: Method of a likelihood, called with `(outputs, weights, ...)`.
        name: Its name, a key of `AXIS_OF_ROWS`; by default that of the function.
    """
    name = name or method.__name__
    axis = AXIS_OF_ROWS[name]

    @functools.wraps(method)
    def of_positions(self: Any, outputs: Any, weights: Any, *args: Any, **kwargs: Any) -> Any:
        if len(outputs.shape) == 3:
            return method(self, outputs, weights, *args, **kwargs)
        # In the graph of an exported model, the size of a batch is not known.
        sizes = [tf.shape(outputs)[axis] if size is None else size for axis, size in enumerate(outputs.shape)]
        batch, positions = sizes[1], sizes[2:-1]

        def unfold(found: Any) -> Any:
            shape = tuple(found.shape)
            return _reshape(found, (*shape[:axis], batch, *positions, *shape[axis + 1 :]))

        if "y" in kwargs:
            kwargs["y"] = fold_targets(kwargs["y"], positions)
        elif name == "levels":
            args = (fold_targets(args[0], positions), *args[1:])
        found = method(self, fold_outputs(outputs, draws=True), weights, *args, **kwargs)
        return tuple(map(unfold, found)) if isinstance(found, tuple) else unfold(found)

    return of_positions


def mean_over_positions(method: Callable[..., Any]) -> Callable[..., Any]:
    """Lets `mean` take outputs with positions. It has no axis of its own, so all axes but the ends are folded."""

    @functools.wraps(method)
    def of_positions(self: Any, outputs: Any, *args: Any, **kwargs: Any) -> Any:
        if len(outputs.shape) <= 3:
            return method(self, outputs, *args, **kwargs)
        shape = tf.shape(outputs)
        folded = tf.reshape(outputs, tf.stack([shape[0], -1, shape[-1]]))
        folded = tf.ensure_shape(folded, [outputs.shape[0], None, outputs.shape[-1]])
        found = method(self, folded, *args, **kwargs)
        unfolded = tf.reshape(found, tf.concat([shape[:-1], tf.shape(found)[-1:]], axis=0))
        return tf.ensure_shape(unfolded, [*outputs.shape[:-1], found.shape[-1]])

    return of_positions


def _equal(found: Shape, expected: Shape) -> bool:
    """Whether two shapes can be the same, as far as their sizes are known."""
    return len(found) == len(expected) and all(
        one is None or other is None or one == other for one, other in zip(found, expected, strict=True)
    )


def _reshape(values: Any, shape: Sequence[Any]) -> Any:
    return values.reshape(shape) if isinstance(values, np.ndarray) else tf.reshape(values, shape)

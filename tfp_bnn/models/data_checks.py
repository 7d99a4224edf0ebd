"""Checks of the data before training and prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import scipy.sparse
import tensorflow as tf

from tfp_bnn.core.batches import EXPECTED, as_arrays, is_stream, num_rows
from tfp_bnn.core.checks import check_finite
from tfp_bnn.likelihoods import Likelihood

_NOT_FINITE = (
    "Remove these rows, or, if NaN marks missing targets, say so to the likelihood, as in likelihood={'name': "
    "'normal', 'missing': 'nan'}."
)


def is_arrays(x: Any) -> bool:
    """Whether `x` is an array or a structure of arrays, rather than a stream or the description of a batch."""
    if x is None or is_stream(x):
        return False
    leaves = keras.tree.flatten(x)
    return bool(leaves) and all(
        hasattr(leaf, "shape") and len(leaf.shape) and not isinstance(leaf, tf.TypeSpec) for leaf in leaves
    )


def check_inputs(x: Any, input_shape: tuple[int | None, ...] | None, name: str = "x") -> None:
    """Refuses input arrays that the model cannot process.

    Args:
        x: Array, or a structure of arrays. For a structure of several, shapes are not checked against `input_shape`.
        input_shape: Input shape of the model, batch axis first; None if unknown.
        name: Name of the array in messages.

    Raises:
        ValueError: If `x` is not made of arrays, or an array is empty, has the wrong shape, or contains NaN or infinite
            values.
    """
    if is_stream(x):
        raise ValueError(f"`{name}` is a {type(x).__name__}; a single batch of arrays was expected here.")
    leaves = keras.tree.flatten(as_arrays(x, name))
    shapes = [tuple(leaf.shape) for leaf in leaves]
    for leaf, shape in zip(leaves, shapes, strict=True):
        if not shape:
            raise ValueError(f"`{name}` is a single value, {leaf!r}. {EXPECTED}")
        if shape[0] == 0:
            raise ValueError(f"`{name}` is empty: it has the shape {shape}. Expected at least one example.")
        check_finite(_values(leaf), name)
    lengths = [shape[0] for shape in shapes]
    if len(set(lengths)) > 1:
        raise ValueError(f"The inputs in `{name}` have {lengths} rows. Expected the same number in each.")
    if len(leaves) == 1 and input_shape is not None:
        shape = shapes[0]
        fits = len(shape) == len(input_shape) and all(
            want in (None, got) for want, got in zip(input_shape, shape, strict=True)
        )
        if not fits:
            raise ValueError(
                f"`{name}` has the shape {shape}, but the model takes {('batch', *input_shape[1:])}. Reshape or resize "
                "the data, add the batch axis if it is missing, or build the model for this shape."
            )


def _values(array: Any) -> np.ndarray:
    """The values of an array; those of a sparse one that are stored."""
    if isinstance(array, tf.SparseTensor):
        return np.asarray(array.values)
    if isinstance(array, tf.RaggedTensor):
        return np.asarray(array.flat_values)
    return array.data if scipy.sparse.issparse(array) else np.asarray(array)


def check_examples(
    x: Any,
    y: Any,
    likelihood: Likelihood,
    input_shape: tuple[int | None, ...] | None,
    output_shape: Sequence[int | None] | None,
) -> None:
    """Refuses arrays of examples that are not valid for training or evaluation.

    Args:
        x: Inputs, an array or a structure of arrays.
        y: Array of targets.
        likelihood: Likelihood of the model, which knows the range of the targets.
        input_shape: Input shape of the model, batch axis first; None if unknown.
        output_shape: Shape of the outputs of one example, `(*positions, channels)`; None if unknown.

    Raises:
        ValueError: If an array is empty, has the wrong shape, or contains NaN or infinite values; if labels are out of
            range; or if there are more or fewer targets than inputs.
    """
    check_inputs(x, input_shape)
    if y is None:
        raise ValueError(
            "`y` is missing: a Bayesian model is trained on pairs of inputs and targets. Pass `y`, or a dataset of "
            "(x, y)."
        )
    targets = np.asarray(as_arrays(y, "y"))
    rows = num_rows(as_arrays(x))
    if targets.shape[:1] != (rows,):
        raise ValueError(
            f"`x` has {rows} rows, but `y` has the shape {targets.shape}. Expected one target for each row."
        )
    if not (np.issubdtype(targets.dtype, np.number) or targets.dtype == bool):
        raise ValueError(f"`y` holds {targets.dtype} values; numbers were expected. Encode the classes as 0, 1, 2, ...")
    check_finite(likelihood.without_missing(targets), "y", _NOT_FINITE)
    if output_shape is not None:
        likelihood.check_examples(targets, output_shape)


def shape_of_targets(x: Any, y: Any) -> str:
    """The shape of one example's targets, as a string, because Keras does not track strings."""
    if isinstance(x, tf.data.Dataset):
        spec = x.element_spec
        y = spec[1] if isinstance(spec, tuple) and len(spec) > 1 else None
    shape = tf.TensorShape(getattr(y, "shape", None))
    return str(shape[1:]) if shape.rank else str(shape)


def check_one_tensor(outputs: Any) -> None:
    """Refuses outputs that are not a single tensor. The ValueError says how many there are."""
    if not isinstance(outputs, list | tuple | dict):
        return
    number = len(keras.tree.flatten(outputs))
    if number != 1:
        raise ValueError(several_outputs_message(number))
    raise ValueError(
        f"The output of the model is a tensor in a {type(outputs).__name__}, but a likelihood describes the tensor "
        "itself. Give the tensor alone as the output."
    )


def several_outputs_message(number: int) -> str:
    """The error message for a model with several outputs."""
    return (
        f"The model has {number} outputs, but one likelihood describes one output. Concatenate them into one, or train "
        "one model for each output."
    )

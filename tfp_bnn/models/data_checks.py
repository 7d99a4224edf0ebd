"""Checks of the data before training: how many examples there are, and whether they are valid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfp_bnn.core.checks import check_finite
from tfp_bnn.core.layer_tree import sources
from tfp_bnn.likelihoods import Likelihood

_NOT_FINITE = (
    "Remove these rows, or, if NaN marks missing targets, say so to the likelihood, as in likelihood={'name': "
    "'normal', 'missing': 'nan'}."
)
# Transformations that keep the rows of a batched pipeline, by the class name that tf.data gives them.
_ROW_KEEPING = ("Prefetch", "Map", "ParallelMap", "Shuffle", "Cache", "Options", "AssertCardinality", "Model")


def count_examples(x: Any, validation_split: float = 0.0) -> int | None:
    """The number N of distinct training examples in the data passed to `fit`, or None if it cannot be known.

    Args:
        x: Array, structure of arrays, `tf.data.Dataset` of batches, or anything else that Keras accepts.
        validation_split: Fraction of the rows of arrays that Keras sets aside.

    Returns:
        N, or None for generators and for pipelines with a filter, a repetition or anything else that hides the number.
        The number of batches times the batch size is never returned, because it is a guess: `batch(128)` over 1,000
        rows reads as 1,024.
    """
    if isinstance(x, tf.data.Dataset):
        return _count_rows_of_batches(x)
    rows = _rows(x)
    return None if rows is None else math.floor(rows * (1.0 - validation_split))


def _count_rows_of_batches(dataset: tf.data.Dataset) -> int | None:
    while not _is(dataset, "Batch", "ParallelBatch"):
        if not _is(dataset, *_ROW_KEEPING):
            return None
        (dataset,) = sources(dataset)
    (rows,) = sources(dataset)
    if _repeats(rows):
        return None
    cardinality = int(rows.cardinality())
    return cardinality if cardinality >= 0 else None


def _repeats(dataset: tf.data.Dataset) -> bool:
    return _is(dataset, "Repeat") or any(_repeats(source) for source in sources(dataset))


def _is(dataset: tf.data.Dataset, *transformations: str) -> bool:
    return type(dataset).__name__.lstrip("_") in {f"{transformation}Dataset" for transformation in transformations}


def is_arrays(x: Any) -> bool:
    """Whether `x` is an array or a structure of arrays, rather than a pipeline or a generator."""
    return _rows(x) is not None


def _rows(x: Any) -> int | None:
    if isinstance(x, tf.data.Dataset | keras.utils.PyDataset) or x is None:
        return None
    leaves = keras.tree.flatten(x)
    if not leaves or not all(hasattr(leaf, "shape") and len(leaf.shape) for leaf in leaves):
        return None
    return int(leaves[0].shape[0])


def check_inputs(x: Any, input_shape: tuple[int | None, ...] | None, name: str = "x") -> None:
    """Refuses input arrays that the model cannot process.

    Args:
        x: Array, or a structure of arrays. For a structure of several, shapes are not checked against `input_shape`.
        input_shape: Input shape of the model, batch axis first; None if unknown.
        name: Name of the array in messages.

    Raises:
        ValueError: If an array is empty, has the wrong shape, or contains NaN or infinite values.
    """
    leaves = [np.asarray(leaf) for leaf in keras.tree.flatten(x)]
    for leaf in leaves:
        if leaf.ndim == 0:
            raise ValueError(
                f"`{name}` is a number, or a list of numbers. Expected an array with the batch axis first."
            )
        if leaf.shape[0] == 0:
            raise ValueError(f"`{name}` is empty: it has the shape {leaf.shape}. Expected at least one example.")
        check_finite(leaf, name)
    lengths = [len(leaf) for leaf in leaves]
    if len(set(lengths)) > 1:
        raise ValueError(f"The inputs in `{name}` have {lengths} rows. Expected the same number in each.")
    if len(leaves) == 1 and input_shape is not None:
        shape = leaves[0].shape
        fits = len(shape) == len(input_shape) and all(
            want in (None, got) for want, got in zip(input_shape, shape, strict=True)
        )
        if not fits:
            raise ValueError(
                f"`{name}` has the shape {shape}, but the model takes {('batch', *input_shape[1:])}. Reshape or resize "
                "the data, add the batch axis if it is missing, or build the model for this shape."
            )


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
    targets = np.asarray(y)
    rows = _rows(x)
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

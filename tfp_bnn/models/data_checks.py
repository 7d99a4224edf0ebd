"""Checks of the data before training and prediction."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import scipy.sparse
import tensorflow as tf

from tfp_bnn.core.batches import EXPECTED, as_arrays, is_stream, num_rows
from tfp_bnn.core.checks import check_finite
from tfp_bnn.likelihoods import Likelihood
from tfp_bnn.likelihoods.targets import check_numbers


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


def check_input_names(x: Any, expected: Any, name: str = "x") -> None:
    """Refuses a dict of inputs with other keys than those of the model.

    Keras passes on the values in the order of their keys and leaves out the last ones. With one more key, an input
    could get the values of another.

    Args:
        x: Inputs in any structure; only a dict is checked.
        expected: Symbolic inputs of the model in their structure; None if unknown.
        name: Name of the inputs in messages.

    Raises:
        ValueError: If both are dicts and their keys differ. The message has the keys that are missing or unexpected.
    """
    if not (isinstance(x, Mapping) and isinstance(expected, Mapping)) or x.keys() == expected.keys():
        return
    missing = [key for key in expected if key not in x]
    unexpected = [key for key in x if key not in expected]
    found = [f"{keys} {what}" for keys, what in ((missing, "missing"), (unexpected, "unexpected")) if keys]
    raise ValueError(
        f"`{name}` has the keys {list(x)}, but the model takes the inputs {list(expected)}: {' and '.join(found)}. "
        "Pass a dict with exactly these inputs."
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
    output_shape: Any,
) -> None:
    """Refuses arrays of examples that are not valid for training or evaluation.

    Args:
        x: Inputs, an array or a structure of arrays.
        y: Array of targets, or a structure of arrays for several outputs.
        likelihood: Likelihood of the model, which knows the range of the targets.
        input_shape: Input shape of the model, batch axis first; None if unknown.
        output_shape: Shape of the outputs of one example, `(*positions, channels)`, as by `example_shape`; None if
            unknown.

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
    rows = num_rows(as_arrays(x))
    targets = {
        head: _checked_targets(of_head, likelihood.heads.get(head, likelihood), rows, f"y[{head!r}]" if head else "y")
        for head, of_head in likelihood.by_head(as_arrays(y, "y"), "`y`").items()
    }
    if output_shape is not None:
        likelihood.check_examples(targets if likelihood.heads else targets[""], output_shape)


def _checked_targets(y: Any, likelihood: Likelihood, rows: int, name: str) -> np.ndarray:
    if isinstance(y, dict):
        raise ValueError(f"`{name}` is a dict. Expected one array of targets.")
    targets = np.asarray(y)
    if targets.shape[:1] != (rows,):
        raise ValueError(
            f"`x` has {rows} rows, but `{name}` has the shape {targets.shape}. Expected one target for each row."
        )
    check_numbers(targets, likelihood.without_missing, name)
    return targets


def shape_of_targets(x: Any, y: Any) -> str:
    """The shapes of one example's targets, as a string, because Keras does not track strings."""
    if isinstance(x, tf.data.Dataset):
        spec = x.element_spec
        y = spec[1] if isinstance(spec, tuple) and len(spec) > 1 else None
    shapes = [tf.TensorShape(getattr(of_output, "shape", None)) for of_output in keras.tree.flatten(y)]
    return ", ".join(str(shape[1:]) if shape.rank else str(shape) for shape in shapes)


def example_shape(model: Any) -> Any:
    """Shape of the outputs of one example, `(*positions, channels)`; by head for several outputs; None if unknown."""
    outputs = getattr(model, "outputs", None)
    if not outputs:
        return None
    if not model.likelihood.heads:
        return outputs[0].shape[1:]
    by_head = model.likelihood.by_head(model.output, "The outputs of the model")
    return {name: tensor.shape[1:] for name, tensor in by_head.items()}


def check_outputs(outputs: Any, likelihood: Likelihood) -> None:
    """Refuses outputs whose structure is not that of the likelihood. The ValueError shows both."""
    if likelihood.heads:
        for name, output in likelihood.by_head(outputs, "The outputs of the model").items():
            if isinstance(output, list | tuple | dict):
                raise ValueError(f"The output {name!r} is a {type(output).__name__}. Expected one tensor.")
        return
    if not isinstance(outputs, list | tuple | dict):
        return
    number = len(keras.tree.flatten(outputs))
    if number != 1:
        raise ValueError(_several_outputs_message(outputs, number))
    raise ValueError(
        f"The output of the model is a tensor in a {type(outputs).__name__}, but a likelihood describes the tensor "
        "itself. Give the tensor alone as the output."
    )


def _several_outputs_message(outputs: Any, number: int) -> str:
    names = list(outputs) if isinstance(outputs, dict) else ["class", "value"]
    likelihoods = itertools.cycle(("'categorical'", "'normal'"))
    example = ", ".join(f"{name!r}: {likelihood}" for name, likelihood in zip(names, likelihoods, strict=False))
    return (
        f"The model has {number} outputs, but one likelihood describes one output. Give a likelihood for each, as in "
        f"likelihood={{{example}}} for a dict of outputs, or a list of likelihoods for a list of outputs."
    )

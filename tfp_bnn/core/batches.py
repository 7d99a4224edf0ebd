"""Data in every form that Keras takes: arrays, or a stream of batches.

Arrays are NumPy arrays, tensors, SciPy and TensorFlow sparse matrices, pandas frames, nested lists, and tuples, lists
and dicts of them for several inputs. A stream is a `tf.data.Dataset`, a `keras.utils.PyDataset`, a generator, or
another iterable of batches `x`, `(x,)`, `(x, y)` or `(x, y, sample_weight)`.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import scipy.sparse
import tensorflow as tf

Batch = tuple[Any, Any, Any]
"""Inputs, targets and sample weights; the last two can be None."""

_SCALARS = (numbers.Number, np.generic, str, bytes)
EXPECTED = (
    "Expected an array with the batch axis first, or a structure of them: NumPy, TensorFlow, pandas, SciPy sparse or "
    "nested lists; or batches from a tf.data.Dataset, a keras.utils.PyDataset or a generator."
)


def is_stream(data: Any) -> bool:
    """Whether data come in batches rather than as arrays."""
    if isinstance(data, tf.data.Dataset | keras.utils.PyDataset):
        return True
    is_array = isinstance(data, list | tuple | dict | str | bytes) or hasattr(data, "shape")
    return hasattr(data, "__iter__") and not is_array


def as_arrays(data: Any, name: str = "x") -> Any:
    """Arrays of the forms above as arrays that Keras takes and that can be sliced; a stream is returned unchanged.

    Nullable columns of pandas become float64, with NaN where a value is missing.

    Args:
        data: Array or structure of arrays; None stays None.
        name: Name of the argument in messages.

    Raises:
        ValueError: For anything else, columns that are not numbers, or nested lists with rows of different lengths.
    """
    if data is None or is_stream(data):
        return data
    if isinstance(data, dict):
        return {key: as_arrays(value, name) for key, value in data.items()}
    if isinstance(data, list | tuple):
        if all(isinstance(leaf, _SCALARS) for leaf in keras.tree.flatten(data)):
            return _array_of_lists(data, name)
        parts = [as_arrays(part, name) for part in data]
        return tuple(parts) if isinstance(data, tuple) else parts
    if hasattr(data, "iloc"):
        return _array_of_frame(data, name)
    if scipy.sparse.issparse(data):
        return data.tocsr()
    if hasattr(data, "shape"):
        return data
    if hasattr(data, "__array__") or isinstance(data, _SCALARS):
        return np.asarray(data)
    raise ValueError(f"`{name}` is or holds a {type(data).__name__}. {EXPECTED}")


def num_rows(arrays: Any) -> int:
    """The number of rows of arrays, which is the length of the first."""
    return int(keras.tree.flatten(arrays)[0].shape[0])


def rows_of(arrays: Any, rows: slice) -> Any:
    """Some rows of the arrays of `inputs_of` as tensors; those of sparse matrices as sparse tensors."""
    return keras.tree.map_structure(lambda array: _rows_of_array(array, rows), arrays)


def dense(arrays: Any, max_bytes: int) -> Any:
    """The arrays of `as_arrays` with those that are sparse made dense.

    Raises:
        ValueError: If one takes more than `max_bytes`.
    """

    def made_dense(array: Any) -> Any:
        if not (scipy.sparse.issparse(array) or isinstance(array, tf.SparseTensor)):
            return array
        dtype = array.dtype
        size = math.prod(array.shape) * (dtype.size if isinstance(dtype, tf.DType) else dtype.itemsize)
        if size > max_bytes:
            raise ValueError(
                f"A sparse array of shape {tuple(array.shape)} takes {size / 2**30:.1f} GiB once it is dense, as is "
                f"needed here; at most {max_bytes / 2**30:g} GiB are kept. Use fewer rows or columns."
            )
        return tf.sparse.to_dense(tf.sparse.reorder(array)) if isinstance(array, tf.SparseTensor) else array.toarray()

    return keras.tree.map_structure(made_dense, arrays)


def first_rows(arrays: Any, count: int) -> Any:
    """The first rows of arrays as `as_arrays` returns them; None stays None. Sparse tensors become SciPy matrices."""
    return keras.tree.map_structure(lambda array: None if array is None else array[:count], _sliceable(arrays))


def joined(batches: Sequence[Any]) -> Any:
    """The rows of batches of one structure, in their order: NumPy arrays, and sparse ones as they are."""
    return keras.tree.map_structure(lambda *arrays: _joined(arrays), *batches)


def twice(rows: Any) -> Any:
    """Rows of `rows_of`, each one two times: first all of them, then all of them again."""
    return keras.tree.map_structure(
        lambda part: tf.sparse.concat(0, [part] * 2) if isinstance(part, tf.SparseTensor) else tf.concat([part] * 2, 0),
        rows,
    )


def batches_of(data: Any, y: Any = None, batch_size: int = 512) -> Iterator[Batch]:
    """The batches of a stream, in its order, or arrays cut into batches.

    Args:
        data: Inputs as arrays, or a stream.
        y: Targets of arrays; those of a stream are in its batches.
        batch_size: Number of rows per batch of arrays. A stream has its own.

    Raises:
        ValueError: For arrays of different lengths. For a stream without end, or with `y`, or whose elements are not
            batches, or with sample weights that are NaN, infinite or negative.
    """
    if not is_stream(data):
        arrays = (as_arrays(data), as_arrays(y, "y"))
        lengths = {int(array.shape[0]) for array in keras.tree.flatten(arrays) if array is not None}
        if len(lengths) > 1:
            raise ValueError(
                f"The inputs and targets have {' and '.join(map(str, sorted(lengths)))} rows. Expected as many in each "
                "array: row i of each is of example i."
            )
        for start in range(0, num_rows(arrays), batch_size):
            x, targets = keras.tree.map_structure(
                lambda array, start=start: None if array is None else array[start : start + batch_size],
                _sliceable(arrays),
            )
            yield x, targets, None
        return
    if y is not None:
        raise ValueError(f"The data are a {type(data).__name__}, whose batches hold the targets: leave out `y`.")
    for element in _elements(data):
        x, targets, weight = keras.utils.unpack_x_y_sample_weight(element)
        batch = (as_arrays(x), as_arrays(targets, "y"), as_arrays(weight, "sample_weight"))
        if any(array is not None and not len(array.shape) for array in keras.tree.flatten(batch)):
            raise ValueError(
                f"The elements of the {type(data).__name__} are single rows or numbers. Expected batches, whose "
                "first axis holds the rows; see `batch` of tf.data."
            )
        weights = [np.asarray(array) for array in keras.tree.flatten(weight) if array is not None]
        if not all((np.isfinite(array) & (array >= 0)).all() for array in weights):
            raise ValueError(
                f"The {type(data).__name__} has sample weights that are NaN, infinite or below 0. Expected finite ones "
                ">= 0."
            )
        yield batch


def inputs_of(data: Any) -> Iterator[Any]:
    """The inputs of each batch of a stream; arrays are one batch. Sparse tensors become SciPy matrices."""
    if is_stream(data):
        yield from (_sliceable(x) for x, _, _ in batches_of(data))
    else:
        yield _sliceable(as_arrays(data))


def read_examples(
    data: Any, y: Any = None, max_bytes: int | None = None, with_weights: bool = False
) -> tuple[Any, ...]:
    """Reads inputs and targets into memory: arrays as they are, the batches of a stream joined in their order.

    Args:
        data: Inputs as arrays, or a stream of `(x, y)`.
        y: Targets of arrays.
        max_bytes: Maximum size of the batches of a stream; None for no limit.
        with_weights: Whether the caller uses sample weights.

    Returns:
        Arrays of inputs, and targets; None if there are none. With `with_weights`, the sample weights of a stream that
        has them are third.

    Raises:
        ValueError: For a stream without end, without batches or without targets, or of more than `max_bytes`; with
            sample weights that the caller does not use, or in some batches only.
    """
    if not is_stream(data):
        return as_arrays(data), as_arrays(y, "y")
    read, size = [], 0
    for x, targets, weight in batches_of(data, y):
        if targets is None:
            raise ValueError(f"The {type(data).__name__} has batches without targets. Expected batches (x, y).")
        if weight is not None and not with_weights:
            raise ValueError(
                f"The {type(data).__name__} has sample weights, but here every row counts once. Leave them out, as in "
                "data.map(lambda x, y, weight: (x, y)) of tf.data."
            )
        read.append((x, targets) if weight is None else (x, targets, weight))
        size += sum(_num_bytes(array) for array in keras.tree.flatten(read[-1]))
        if max_bytes is not None and size > max_bytes:
            raise ValueError(
                f"The {type(data).__name__} has more than {max_bytes / 2**30:g} GiB, which would be read into memory. "
                "Take fewer rows, smaller inputs or a narrower dtype, such as uint8 for pixels."
            )
    if not read:
        raise ValueError(f"The {type(data).__name__} has no batches. Expected at least one.")
    if len({len(batch) for batch in read}) > 1:
        raise ValueError(
            f"The {type(data).__name__} has sample weights in some batches only. Give all of them, or none."
        )
    return joined(read)


class CheckedBatches:
    """The inputs of a stream, each batch checked when it is read.

    Args:
        data: A stream.
        check: Function of the inputs of a batch that raises a ValueError if they do not fit.
    """

    def __init__(self, data: Any, check: Callable[[Any], None]) -> None:
        self._data = data
        self._check = check

    def __iter__(self) -> Iterator[tuple[Any]]:
        for x in inputs_of(self._data):
            self._check(x)
            # In a tuple: a list of several inputs would look like inputs and targets.
            yield (x,)


def checked_inputs(data: Any, check: Callable[[Any], None]) -> Any:
    """Inputs whose arrays were checked, or a stream that checks each batch. What can be read once remains so."""
    if not is_stream(data):
        arrays = as_arrays(data)
        check(arrays)
        return arrays
    checked = CheckedBatches(data, check)
    return iter(checked) if isinstance(data, Iterator) else checked


def _elements(data: Any) -> Iterator[Any]:
    if isinstance(data, keras.utils.PyDataset):
        if data.num_batches is None:
            raise ValueError(_endless(data))
        return (data[index] for index in range(data.num_batches))
    if isinstance(data, tf.data.Dataset) and int(data.cardinality()) == tf.data.INFINITE_CARDINALITY:
        raise ValueError(_endless(data))
    return iter(data)


def _endless(data: Any) -> str:
    return (
        f"The {type(data).__name__} is infinite: its number of batches has no end, but each is needed once. Remove "
        "`repeat`, or take a number of batches, as in data.take(100)."
    )


def _array_of_lists(data: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(data)
    except ValueError as error:
        raise ValueError(
            f"`{name}` is a nested list whose rows have different lengths. Pad them to one length."
        ) from error


def _array_of_frame(frame: Any, name: str) -> np.ndarray:
    array = frame.to_numpy()
    if array.dtype != object:
        return array
    try:
        return frame.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`{name}` is a pandas {type(frame).__name__} with values that are not numbers: {error}. Encode them as "
            "numbers, or leave these columns out."
        ) from error


def _sliceable(arrays: Any) -> Any:
    """With sparse tensors, which have no slices, as SciPy matrices."""
    return keras.tree.map_structure(
        lambda array: _as_scipy(array) if isinstance(array, tf.SparseTensor) else array, arrays
    )


def _as_scipy(array: tf.SparseTensor) -> Any:
    row, column = array.indices.numpy().T
    return scipy.sparse.csr_array((array.values.numpy(), (row, column)), shape=tuple(array.shape))


def _rows_of_array(array: Any, rows: slice) -> Any:
    if scipy.sparse.issparse(array):
        part = array[rows].tocoo()
        indices = np.stack([part.row, part.col], axis=1).astype(np.int64)
        return tf.sparse.reorder(tf.SparseTensor(indices, part.data, part.shape))
    return tf.convert_to_tensor(array[rows])


def _num_bytes(array: Any) -> int:
    if isinstance(array, tf.SparseTensor):
        return int(array.values.shape[0]) * (array.values.dtype.size + 8 * int(array.indices.shape[1]))
    return int(array.data.nbytes) if scipy.sparse.issparse(array) else int(np.asarray(array).nbytes)


def _joined(arrays: tuple[Any, ...]) -> Any:
    shapes = sorted({tuple(array.shape[1:]) for array in arrays})
    if len(shapes) > 1:
        raise ValueError(
            f"The rows of the batches have the shapes {shapes[0]} and {shapes[1]}; expected one shape, to join them in "
            "memory. Pad them to one length, as in `padded_batch` of tf.data with `padded_shapes`."
        )
    if isinstance(arrays[0], tf.SparseTensor):
        return tf.sparse.concat(0, list(arrays))
    if scipy.sparse.issparse(arrays[0]):
        return scipy.sparse.vstack(arrays, format="csr")
    return np.concatenate([np.asarray(array) for array in arrays])

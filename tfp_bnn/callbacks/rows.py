"""The rows on which callbacks measure a model: the first rows of a data set, as arrays."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np
import scipy.sparse
import tensorflow as tf

from tfp_bnn.core.batches import as_arrays, first_rows, joined, num_rows


@dataclass(frozen=True, eq=False)
class Rows:
    """Examples held in memory.

    Attributes:
        x: Inputs of shape `(n, ...)`, SciPy's if they are sparse, or a structure of these for a model with several.
        y: Targets, one row per example, or a structure of these for a model with several outputs; or None.
    """

    x: Any
    y: Any

    def __len__(self) -> int:
        return num_rows(self.x)

    @cached_property
    def digest(self) -> str:
        """Fingerprint of all values."""
        return digest_of([*keras.tree.flatten(self.x), *([] if self.y is None else keras.tree.flatten(self.y))])


def take_rows(data: Any, count: int, name: str, targets: bool = True) -> Rows:
    """Returns the first rows of a data set. A `tf.data` pipeline is read from its start, only as far as needed.

    Args:
        data: `(x, y)` or `(x, y, sample_weight)` of arrays in every form that `fit` takes, or a `tf.data.Dataset` or
            `keras.utils.PyDataset` of such batches. Without targets, `x` alone too.
        count: Maximum number of rows.
        name: Name of the argument in messages.
        targets: Whether to return targets. Default: True.

    Returns:
        All rows, up to `count`, without their weights.

    Raises:
        ValueError: If the data are of another kind, such as a generator, have no targets, or are empty.
    """
    batches, rows, found = [], 0, _batches(data, name, targets)
    for x, y in found:
        batches.append(first_rows((x, y), count - rows))
        rows += num_rows(x)
        if rows >= count:
            break
    if rows == 0:
        raise ValueError(f"`{name}` is empty. Expected at least one example.")
    return Rows(joined([x for x, _ in batches]), joined([y for _, y in batches]) if targets else None)


def digest_of(arrays: list[Any]) -> str:
    """Returns a fingerprint of the dtypes, shapes and values of arrays, NumPy's or SciPy's of compressed rows."""
    digest = hashlib.blake2b(digest_size=16)
    for array in itertools.chain.from_iterable(map(_parts, arrays)):
        digest.update(f"{array.dtype}{array.shape}".encode())
        # Objects, such as strings, are addresses in memory.
        if array.dtype == object:
            digest.update(repr(array.tolist()).encode())
        else:
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _parts(array: Any) -> list[Any]:
    """The NumPy arrays that an array consists of."""
    if scipy.sparse.issparse(array):
        return [np.asarray(array.shape), array.data, array.indices, array.indptr]
    return [np.asarray(array)]


def _is_structure(y: Any, number: int) -> bool:
    """Whether targets of so many rows are several arrays, rather than one or a list of rows."""
    is_list = isinstance(y, list | tuple) and all(np.shape(part)[:1] == (number,) for part in y)
    return isinstance(y, Mapping) or (is_list and all(hasattr(part, "shape") for part in y))


def _batches(data: Any, name: str, targets: bool) -> Iterator[tuple[Any, Any]]:
    if isinstance(data, tf.data.Dataset):
        return (_pair(element, name, targets, batch=True) for element in data)
    if isinstance(data, keras.utils.PyDataset):
        # One without a number of batches has no end.
        indices = itertools.count() if data.num_batches is None else range(data.num_batches)
        return (_pair(data[index], name, targets, batch=True) for index in indices)
    return iter([_pair(data, name, targets, batch=False)])


def _pair(element: Any, name: str, targets: bool, batch: bool) -> tuple[Any, Any]:
    """Returns the inputs and targets of a tuple, or of inputs alone."""
    wanted = "(x, y)" if targets else "inputs `x`, or (x, y)"
    if isinstance(element, tuple | list) and 2 <= len(element) <= 3 and (targets or isinstance(element, tuple)):
        x, y = element[0], element[1] if targets else None
    elif isinstance(element, tuple) and len(element) == 1:
        x, y = element[0], None
    else:
        x, y = element, None
    x = as_arrays(x, name)
    leaves = keras.tree.flatten(x)
    arrays = bool(leaves) and all(hasattr(leaf, "shape") and len(leaf.shape) for leaf in leaves)
    if not arrays or (targets and y is None):
        kind = "batches of " if batch else ""
        raise ValueError(
            f"`{name}` must be {wanted} of arrays, or a tf.data.Dataset or keras.utils.PyDataset of batches of that, "
            f"but got {kind}{type(element).__name__}. Pass arrays; a generator can be read only once."
        )
    y = as_arrays(y, name)
    return x, y if y is None or _is_structure(y, num_rows(x)) else np.asarray(y)

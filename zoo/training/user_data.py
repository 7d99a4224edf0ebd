"""Converts data passed by the user into a `Dataset`: arrays, or batches of a pipeline or a generator."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
import tensorflow as tf

from tfp_bnn.core.batches import is_stream, read_examples
from zoo.datasets import Dataset, Split
from zoo.datasets.base import Task

# Share of the rows set aside for validation if no validation data are given.
VALIDATION_FRACTION = 0.2
# Maximum size of the batches of a pipeline or a generator, which are read into memory: 2 GiB for inputs and targets.
MAX_BYTES = 2**31


def dataset_from(data: Any, validation_data: Any = None, test_data: Any = None, task: Task | None = None) -> Dataset:
    """Converts data of the user into a dataset.

    Without `validation_data`, the last 20 % of the rows are used for validation, rounded to the nearest row and at
    least one. Shuffle sorted rows first. Without `test_data`, the validation rows also serve as the test split, and
    numbers measured on them should not be published.

    Args:
        data: `Dataset`, which is returned unchanged, or training rows: a pair `(x, y)` of arrays, nested lists or
            pandas frames, or a `tf.data.Dataset`, a `PyDataset` or a generator of such batches, of at most 2 GiB and
            without sample weights.
        validation_data: Validation rows in the same form, or None.
        test_data: Test rows in the same form, or None.
        task: `"classification"` or `"regression"`. If None, integer targets are labels, and all others are regression
            targets.

    Returns:
        A dataset. Class names are the class numbers. Regression targets have shape `(n, outputs)`.

    Raises:
        ValueError: For other types, rows that do not fit together, or a pipeline that is too long.
    """
    if isinstance(data, Dataset):
        if validation_data is not None or test_data is not None:
            raise ValueError(
                f"The dataset {data.name!r} has a validation and a test split: leave out `validation_data` and "
                "`test_data`, or pass its arrays, as in data=(x, y)."
            )
        return data
    x, y = _arrays(data, "data")
    if validation_data is None:
        held_out = max(1, round(VALIDATION_FRACTION * len(x)))
        if len(x) - held_out < 1:
            raise ValueError(f"`data` has {len(x)} rows: too few to set some aside. Pass `validation_data`.")
        splits = {"train": (x[:-held_out], y[:-held_out]), "validation": (x[-held_out:], y[-held_out:])}
    else:
        splits = {"train": (x, y), "validation": _arrays(validation_data, "validation_data")}
    splits["test"] = splits["validation"] if test_data is None else _arrays(test_data, "test_data")
    if task is None:
        task = "classification" if y.dtype.kind in "iub" else "regression"
    class_names = None
    if task == "classification":
        splits = {name: (x, _labels(y)) for name, (x, y) in splits.items()}
        num_classes = max(2, *(int(y.max(initial=0)) + 1 for _, y in splits.values()))
        class_names = tuple(map(str, range(num_classes)))
    else:
        splits = {name: (x, _columns(y)) for name, (x, y) in splits.items()}
    return Dataset(
        name="data",
        task=task,
        train=Split(*splits["train"]),
        validation=Split(*splits["validation"]),
        test=Split(*splits["test"]),
        feature_names=None,
        class_names=class_names,
        description="Data that were passed by the user.",
        source="the user",
    )


def read_rows(data: Any, name: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]] | None:
    """Reads a pair `(x, y)`, or batches of such pairs, into dense arrays; returns None for anything else.

    Args:
        data: Pair of arrays, nested lists or pandas frames; or a `tf.data.Dataset`, a `PyDataset` or a generator.
        name: Name of the argument, for messages.

    Raises:
        ValueError: For values that are not numbers, sparse inputs, an infinite pipeline, batches without targets, no
            batches, more than 2 GiB, or sample weights.
    """
    if is_stream(data):
        x, y = read_examples(data, max_bytes=MAX_BYTES)
    elif isinstance(data, tuple | list) and len(data) == 2:
        x, y = read_examples(*data)
    else:
        return None
    if scipy.sparse.issparse(x) or isinstance(x, tf.SparseTensor):
        raise ValueError(
            f"`{name}` has sparse inputs of shape {tuple(x.shape)}, but the architectures of the zoo take dense "
            "arrays. Convert them, as in x.toarray(), or train a model of your own with keras.Input(..., sparse=True)."
        )
    return np.asarray(x), np.asarray(y)


def _arrays(data: Any, name: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    rows = read_rows(data, name)
    if rows is None:
        raise ValueError(
            f"`{name}` is a {type(data).__name__}. Expected a pair of arrays (x, y), a tf.data.Dataset, a PyDataset or "
            "a generator of batches of them, or, for `data`, a zoo Dataset."
        )
    x, y = rows
    if x.ndim < 2 or y.ndim < 1 or len(x) != len(y):
        raise ValueError(
            f"`{name}` has x of shape {x.shape} and y of shape {y.shape}. Expected x of shape (rows, ...), with at "
            "least one axis after the rows, and as many rows of y."
        )
    for what, part in (("x", x), ("y", y)):
        if part.dtype.kind not in "biuf":
            raise ValueError(f"`{name}` has {what} of {part.dtype} values; numbers were expected.")
    return x, y


def _labels(y: npt.NDArray[Any]) -> npt.NDArray[Any]:
    labels = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    return labels.astype(np.int64) if labels.dtype == bool else labels


def _columns(y: npt.NDArray[Any]) -> npt.NDArray[Any]:
    columns = y.reshape(len(y), -1)
    return columns if columns.dtype.kind == "f" else columns.astype(np.float32)

"""Converts data passed by the user into a `Dataset`: arrays or a `tf.data` pipeline."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from zoo.datasets import Dataset, Split
from zoo.datasets.base import Task

# Share of the rows set aside for validation if no validation data are given.
VALIDATION_FRACTION = 0.2
# Maximum size of a pipeline, which is read into memory: 2 GiB for inputs and targets.
MAX_BYTES = 2**31


def dataset_from(data: Any, validation_data: Any = None, test_data: Any = None, task: Task | None = None) -> Dataset:
    """Converts data of the user into a dataset.

    Without `validation_data`, the last 20 % of the rows are used for validation, rounded to the nearest row and at
    least one. Shuffle sorted rows first. Without `test_data`, the validation rows also serve as the test split, and
    numbers measured on them should not be published.

    Args:
        data: `Dataset`, which is returned unchanged, or training rows: a pair of arrays `(x, y)` or a `tf.data.Dataset`
            of such batches. A pipeline must have a known number of batches and at most 2 GiB.
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


def arrays_of_pipeline(dataset: tf.data.Dataset, name: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Reads a pipeline of batches `(x, y)` into memory, in its order.

    Args:
        dataset: Pipeline to read.
        name: Name of the argument, for messages.

    Raises:
        ValueError: For elements that are not pairs, an unknown or infinite number of batches, no batches, or more than
            2 GiB.
    """
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) != 2 or not all(isinstance(part, tf.TensorSpec) for part in spec):
        raise ValueError(f"`{name}` has elements like {spec}. Expected a pipeline of batches (x, y), one tensor each.")
    cardinality = int(dataset.cardinality())
    if cardinality < 0:
        known = "infinite" if cardinality == tf.data.INFINITE_CARDINALITY else "unknown"
        raise ValueError(
            f"`{name}` is a pipeline whose number of batches is {known}, but training reads it into arrays. "
            "Remove `repeat`, set the number with tf.data.experimental.assert_cardinality(n) after "
            "a filter or a generator, or pass arrays (x, y)."
        )
    batches, size = [], 0
    for batch in dataset.as_numpy_iterator():
        size += sum(part.nbytes for part in batch)
        if size > MAX_BYTES:
            raise ValueError(
                f"`{name}` has more than {MAX_BYTES / 2**30:g} GiB, which a run would read into memory. Take fewer "
                "rows, smaller inputs or a narrower dtype, such as uint8 for pixels."
            )
        batches.append(batch)
    if not batches or any(part.ndim == 0 for part in batches[0]):
        raise ValueError(f"`{name}` has no batches of rows. Expected a pipeline of at least one; see `batch`.")
    x, y = zip(*batches, strict=True)
    return np.concatenate(x), np.concatenate(y)


def _arrays(data: Any, name: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    if isinstance(data, tf.data.Dataset):
        return arrays_of_pipeline(data, name)
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise ValueError(
            f"`{name}` is a {type(data).__name__}. Expected a pair of arrays (x, y), a tf.data.Dataset of batches of "
            "them, or, for `data`, a zoo Dataset."
        )
    x, y = (np.asarray(part) for part in data)
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

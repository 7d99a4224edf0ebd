"""N, the number of distinct training examples, counted in arrays and in the structure of pipelines."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfp_bnn.core.layer_tree import setting_of, sources
from tfp_bnn.models.data_checks import is_arrays

# Transformations by the class names that tf.data gives them.
_KEEPING = (
    "Prefetch",
    "Map",
    "ParallelMap",
    "Shuffle",
    "Cache",
    "Options",
    "AssertCardinality",
    "Model",
    "Restructured",
)
_BATCHING = ("Batch", "ParallelBatch", "PaddedBatch")
_Sizes = npt.NDArray[np.int64]


def count_examples(x: Any, validation_split: float = 0.0) -> int | None:
    """The number N of distinct training examples in the data passed to `fit`, or None if it cannot be known.

    Pipelines are not run: the number follows from the cardinality of their rows, the sizes of their batches, and the
    transformations `map`, `shuffle`, `cache`, `prefetch`, `take`, `skip`, `shard`, `zip`, `concatenate`, `unbatch`,
    `rebatch` and `repeat`. Repeated examples count once, and a remainder that `batch` drops counts too. What is taken
    after a `shuffle` that is another one in each epoch has no number: over the epochs, more rows are seen than in one.

    Args:
        x: Array, structure of arrays, `tf.data.Dataset` of batches, or anything else that Keras accepts.
        validation_split: Fraction of the rows of arrays that Keras sets aside.

    Returns:
        N, or None for generators and for pipelines with a filter or anything else that hides the number. A `PyDataset`
        can declare it as an attribute `num_examples`. The number of batches times the batch size is never returned,
        because it is a guess: `batch(128)` over 1,000 rows reads as 1,024.
    """
    if isinstance(x, tf.data.Dataset):
        sizes = None if _takes_other_rows_each_epoch(x) else _batch_sizes(x)
        return None if sizes is None else int(sizes.sum())
    if isinstance(x, keras.utils.PyDataset):
        return getattr(x, "num_examples", None)
    if not is_arrays(x):
        return None
    return math.floor(int(keras.tree.flatten(x)[0].shape[0]) * (1.0 - validation_split))


def repeats(x: Any) -> bool:
    """Whether data are a pipeline that repeats examples within an epoch, so that an epoch has more rows than N."""
    if not isinstance(x, tf.data.Dataset):
        return False
    return (_is(x, "Repeat") and setting_of(x, "count") != 1) or any(map(repeats, sources(x)))


def _takes_other_rows_each_epoch(dataset: tf.data.Dataset) -> bool:
    if _is(dataset, "Cache"):
        return False
    if _is(dataset, "Take", "Skip", "Shard") and any(map(_is_shuffled_each_epoch, sources(dataset))):
        number, whole = (int(of.cardinality()) for of in (dataset, *sources(dataset)))
        if number != whole:
            return True
    return any(map(_takes_other_rows_each_epoch, sources(dataset)))


def _is_shuffled_each_epoch(dataset: tf.data.Dataset) -> bool:
    # Not fixed by a cache: one that is not read to its end is dropped.
    if _is(dataset, "Shuffle") and setting_of(dataset, "reshuffle_each_iteration") is not False:
        return True
    return any(map(_is_shuffled_each_epoch, sources(dataset)))


def _batch_sizes(dataset: tf.data.Dataset) -> _Sizes | None:
    """The rows of each batch of a pipeline, without repetition."""
    if _is(dataset, *_BATCHING):
        rows, size = _num_elements(sources(dataset)[0]), setting_of(dataset, "batch_size")
        return None if rows is None or not size else _cut(rows, size)
    if _is(dataset, *_KEEPING, "Repeat"):
        kept = _batch_sizes(sources(dataset)[0])
        # A map can make a batch from anything, such as the numbers of rows that other batches have too.
        return _declared_sizes(dataset) if kept is None and not _is(dataset, "Map", "ParallelMap") else kept
    if _is(dataset, "Take", "Skip", "Shard"):
        return _part_of_batches(dataset)
    if _is(dataset, "Rebatch"):
        sizes, size = _batch_sizes(sources(dataset)[0]), setting_of(dataset, "batch_sizes")
        return None if sizes is None or not size else _cut(int(sizes.sum()), size)
    if _is(dataset, "Zip", "Concatenate"):
        return _combined([_batch_sizes(source) for source in sources(dataset)], dataset)
    return _declared_sizes(dataset)


def _part_of_batches(dataset: tf.data.Dataset) -> _Sizes | None:
    (source,) = sources(dataset)
    sizes = _batch_sizes(source)
    # Which batches of a shuffled pipeline are taken matters only if one is smaller.
    if sizes is None or repeats(source) or (_shuffles_batches(source) and len(set(sizes.tolist())) > 1):
        return None
    if _is(dataset, "Shard"):
        number, index = setting_of(dataset, "num_shards"), setting_of(dataset, "index")
        return None if number is None or index is None else sizes[index::number]
    count = setting_of(dataset, "count")
    if count is None:
        return None
    taken = len(sizes) if count < 0 else min(count, len(sizes))
    return sizes[:taken] if _is(dataset, "Take") else sizes[taken:]


def _combined(of_sources: list[_Sizes | None], dataset: tf.data.Dataset) -> _Sizes | None:
    known = [sizes for sizes in of_sources if sizes is not None]
    if len(known) < len(of_sources):
        return None
    if _is(dataset, "Concatenate"):
        return np.concatenate(known)
    shortest = min(map(len, known))
    agree = all(np.array_equal(sizes[:shortest], known[0][:shortest]) for sizes in known)
    return known[0][:shortest] if agree and not repeats(dataset) else None


def _declared_sizes(dataset: tf.data.Dataset) -> _Sizes | None:
    """The sizes of batches whose first axis has a fixed length, such as slices of an array of batches."""
    number = int(dataset.cardinality())
    shapes = [getattr(spec, "shape", tf.TensorShape(None)) for spec in keras.tree.flatten(dataset.element_spec)]
    rows = {shape[0] if shape.rank else None for shape in map(tf.TensorShape, shapes)}
    if number < 0 or len(rows) != 1 or None in rows or repeats(dataset):
        return None
    return np.full(number, rows.pop())


def _num_elements(dataset: tf.data.Dataset) -> int | None:
    """The number of elements of a pipeline of single rows, without repetition."""
    cardinality = int(dataset.cardinality())
    if cardinality >= 0 and not repeats(dataset):
        return cardinality
    if _is(dataset, *_KEEPING, "Repeat"):
        return _num_elements(sources(dataset)[0])
    if _is(dataset, "Unbatch"):
        sizes = _batch_sizes(sources(dataset)[0])
        return None if sizes is None else int(sizes.sum())
    if _is(dataset, "Concatenate"):
        numbers = [_num_elements(source) for source in sources(dataset)]
        return None if None in numbers else sum(number or 0 for number in numbers)
    if _is(dataset, "Zip"):
        return _num_pairs(sources(dataset))
    if _is(dataset, "Take", "Skip") and not repeats(dataset):
        number, count = _num_elements(sources(dataset)[0]), setting_of(dataset, "count")
        if number is None or count is None:
            return None
        taken = number if count < 0 else min(count, number)
        return taken if _is(dataset, "Take") else number - taken
    return None


def _num_pairs(zipped: list[tf.data.Dataset]) -> int | None:
    """A pair is new as long as one part of it is not repeated."""
    lengths = [int(source.cardinality()) for source in zipped]
    finite = [length for length in lengths if length != tf.data.INFINITE_CARDINALITY]
    if not finite or min(finite) < 0:
        return None
    numbers = [_num_elements(source) for source in zipped]
    return min(finite) if any(number is not None and number >= min(finite) for number in numbers) else None


def _shuffles_batches(dataset: tf.data.Dataset) -> bool:
    if _is(dataset, *_BATCHING):
        return False
    return _is(dataset, "Shuffle") or any(map(_shuffles_batches, sources(dataset)))


def _cut(rows: int, size: int) -> _Sizes:
    """Rows in batches of one size, the last of which can be smaller."""
    full, remainder = divmod(rows, size)
    return np.append(np.full(full, size), remainder) if remainder else np.full(full, size)


def _is(dataset: tf.data.Dataset, *transformations: str) -> bool:
    return type(dataset).__name__.lstrip("_") in {f"{transformation}Dataset" for transformation in transformations}

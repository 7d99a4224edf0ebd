"""N, the number of distinct examples, counted without running a pipeline."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

from tfp_bnn.models.data_checks import is_arrays
from tfp_bnn.models.example_count import count_examples

ROWS = np.zeros((1000, 3), np.float32)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 10

    def __getitem__(self, index):
        return ROWS[:100], ROWS[:100, 0]


class Counted(Batches):
    num_examples = 950


def rows(number=1000):
    return tf.data.Dataset.from_tensor_slices((ROWS[:number], ROWS[:number, 0]))


def seen(dataset):
    """The rows that a pipeline gives, once it is run."""
    return sum(len(y) for _, y in dataset)


@pytest.mark.parametrize(
    "x",
    [
        ROWS,
        tf.constant(ROWS),
        [ROWS, ROWS],
        {"a": ROWS, "b": ROWS[:, 0]},
        (ROWS, ROWS),
        scipy.sparse.csr_array(ROWS),
        tf.sparse.from_dense(ROWS),
    ],
)
def test_arrays_are_counted_by_their_first_axis(x):
    assert count_examples(x) == 1000
    assert is_arrays(x)


@pytest.mark.parametrize(("number", "split"), [(1000, 0.2), (7, 0.5), (10, 0.3), (11, 1 / 3), (1000, 0.001)])
def test_a_validation_split_counts_what_keras_keeps(number, split):
    # What Keras trains on, asked of Keras itself.
    from keras.src.trainers.data_adapters.array_slicing import train_validation_split

    (kept,), _ = train_validation_split((ROWS[:number],), split)
    assert count_examples(ROWS[:number], split) == len(kept)


KNOWN = {
    "batch": lambda: rows().batch(128),
    "parallel batch": lambda: rows().batch(128, num_parallel_calls=2),
    "padded batch": lambda: rows().padded_batch(128),
    "drop remainder": lambda: rows().batch(128, drop_remainder=True),
    "map": lambda: rows().map(lambda x, y: (x, y)).batch(128),
    "parallel map after": lambda: rows().batch(128).map(lambda x, y: (x, y), num_parallel_calls=2),
    "shuffle": lambda: rows().shuffle(1000, seed=0).batch(128),
    "shuffle the batches": lambda: rows().batch(128).shuffle(8, seed=0),
    "prefetch": lambda: rows().batch(128).prefetch(tf.data.AUTOTUNE),
    "cache": lambda: rows().cache().batch(128).cache(),
    "options": lambda: rows().batch(128).with_options(tf.data.Options()),
    "enumerate and zip": lambda: tf.data.Dataset.zip(rows(), tf.data.Dataset.range(1000)).enumerate().batch(128),
    "zip of batches": lambda: tf.data.Dataset.zip(
        rows().map(lambda x, y: x).batch(128), rows().map(lambda x, y: y).batch(128)
    ),
    "zip with something endless": lambda: tf.data.Dataset.zip(rows(), rows(3).repeat()).batch(128),
    "concatenate": lambda: rows(400).concatenate(rows(600)).batch(128),
    "concatenate batches": lambda: rows(400).batch(128).concatenate(rows(600).batch(128)),
    "take of more": lambda: rows(1000).take(5000).batch(128),
    "take all batches": lambda: rows().batch(128).take(-1),
    "repeat once": lambda: rows().batch(128).repeat(1),
    "unbatch and batch": lambda: rows().batch(128).unbatch().batch(64),
    "rebatch": lambda: rows().batch(128).rebatch(100),
    "slices that are batches": lambda: tf.data.Dataset.from_tensor_slices(
        (ROWS.reshape(10, 100, 3), np.zeros((10, 100)))
    ),
    "one tensor": lambda: tf.data.Dataset.from_tensors((ROWS, ROWS[:, 0])),
    "the lot": lambda: rows().cache().shuffle(9).map(lambda x, y: (x, y)).batch(128).cache().shuffle(8).prefetch(2),
    "asserted before the batch": lambda: (
        rows(900).concatenate(rows(200)).filter(lambda x, y: True).apply(tf.data.experimental.assert_cardinality(1000))
    ).batch(128),
}


@pytest.mark.parametrize("pipeline", KNOWN.values(), ids=KNOWN.keys())
def test_pipelines_that_keep_their_rows_are_counted(pipeline):
    # 1,000 and not 1,024, which is batches x batch size.
    assert count_examples(pipeline()) == 1000
    assert not is_arrays(pipeline())


REPEATED = {
    "repeat": lambda: rows().repeat(3).batch(128),
    "repeat without end": lambda: rows().shuffle(9).repeat().batch(128),
    "repeat the batches": lambda: rows().batch(128).repeat(2),
    "repeat in one branch": lambda: rows(500).concatenate(rows(500).repeat(2)).batch(128),
}


@pytest.mark.parametrize("pipeline", REPEATED.values(), ids=REPEATED.keys())
def test_repeated_examples_count_once(pipeline):
    assert count_examples(pipeline()) == 1000


PARTS = {
    "take rows": lambda: rows().take(130).batch(64),
    "skip rows": lambda: rows().skip(130).batch(64),
    "shard of rows": lambda: rows().shard(3, 1).batch(64),
    "take batches": lambda: rows().batch(64).take(3),
    "skip batches": lambda: rows().batch(64).skip(3),
    "skip all but the last": lambda: rows().batch(64).skip(15),
    "skip more than there are": lambda: rows().batch(64).skip(99),
    "first shard of batches": lambda: rows().batch(64).shard(3, 0),
    "last shard of batches": lambda: rows().batch(64).shard(3, 2),
    "take of batches of one size, shuffled once": lambda: (
        rows(960).batch(64).shuffle(4, reshuffle_each_iteration=False).take(3)
    ),
    "cached rows, taken of shuffled ones": lambda: rows().shuffle(1000).take(130).cache().batch(64),
    "all of shuffled rows": lambda: rows(130).shuffle(130).take(500).batch(64),
    "take after unbatch": lambda: rows().batch(64).unbatch().take(130).batch(8),
    "skip after unbatch": lambda: rows().batch(64).unbatch().skip(130).batch(8),
    "take after rebatch": lambda: rows().batch(64).rebatch(100).take(3),
    "zip stops at the shortest": lambda: tf.data.Dataset.zip(
        rows().map(lambda x, y: x).batch(64).take(3), rows().map(lambda x, y: y).batch(64)
    ),
    "nothing": lambda: rows(0).batch(64),
    "windows of a series": lambda: keras.utils.timeseries_dataset_from_array(
        np.arange(100.0)[:, None], np.arange(90.0), 10, batch_size=16
    ),
    "shuffled windows": lambda: keras.utils.timeseries_dataset_from_array(
        np.arange(100.0)[:, None], np.arange(90.0), 10, batch_size=16, shuffle=True, seed=0
    ),
}


@pytest.mark.parametrize("pipeline", PARTS.values(), ids=PARTS.keys())
def test_parts_are_counted_as_they_are_seen(pipeline):
    assert count_examples(pipeline()) == seen(pipeline())


def generator():
    yield ROWS[:10], ROWS[:10, 0]


UNKNOWN = {
    "filter": lambda: rows().filter(lambda x, y: True).batch(128),
    "filter of batches": lambda: rows().batch(128).filter(lambda x, y: True),
    "repeat hidden by take": lambda: rows(10).repeat().take(1000).batch(128),
    "repeated batches hidden by take": lambda: rows(10).batch(5).repeat().take(3),
    "take of batches of two sizes, shuffled once": lambda: (
        rows().batch(128).shuffle(4, reshuffle_each_iteration=False).take(2)
    ),
    # Epoch by epoch, these see all rows.
    "take of shuffled rows": lambda: rows().shuffle(1000).take(100).batch(10),
    "batches taken of shuffled rows": lambda: rows().shuffle(1000).batch(10).take(10),
    "taken of shuffled rows, and all batches of that": lambda: rows().shuffle(9).take(100).batch(10).take(10),
    "shuffled by default": lambda: rows().shuffle(9, reshuffle_each_iteration=None).batch(10).take(10),
    "skip of shuffled rows": lambda: rows().cache().shuffle(1000).skip(10).repeat().batch(10),
    "shard of shuffled batches": lambda: rows(960).batch(64).shuffle(4).shard(3, 0),
    "unbatch": lambda: rows().batch(128).unbatch(),
    "flat map": lambda: rows().flat_map(lambda x, y: rows(2)).batch(128),
    "interleave": lambda: rows().interleave(lambda x, y: rows(2)).batch(128),
    "zip of different batches": lambda: tf.data.Dataset.zip(rows().batch(128), rows().batch(100)),
    "zip with endless batches": lambda: tf.data.Dataset.zip(rows().batch(128), rows().batch(128).repeat()),
    "from generator": lambda: tf.data.Dataset.from_generator(
        generator, output_signature=(tf.TensorSpec((None, 3)), tf.TensorSpec((None,)))
    ),
    "generator": generator,
    "PyDataset": Batches,
    "None": lambda: None,
    "list of numbers": lambda: [1.0, 2.0],
    "empty list": lambda: [],
}


@pytest.mark.parametrize("data", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_what_hides_its_number_is_not_guessed(data):
    assert count_examples(data()) is None
    assert not is_arrays(data())


@pytest.mark.filterwarnings("ignore:Your `PyDataset` class should call")
def test_a_py_dataset_can_declare_its_number():
    assert count_examples(Counted()) == 950

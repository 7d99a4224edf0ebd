"""Data in every form, as arrays and as batches."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

from tfp_bnn.core.batches import (
    as_arrays,
    batches_of,
    checked_inputs,
    inputs_of,
    is_stream,
    num_rows,
    read_examples,
    rows_of,
)

X = np.arange(20, dtype=np.float32).reshape(10, 2)
Y = np.arange(10)


class Batches(keras.utils.PyDataset):
    def __init__(self):
        super().__init__()

    def __len__(self):
        return 3

    def __getitem__(self, index):
        rows = slice(4 * index, 4 * index + 4)
        return X[rows], Y[rows]


class Endless(Batches):
    __len__ = None

    @property
    def num_batches(self):
        return None


STREAMS = {
    "tf.data": lambda: tf.data.Dataset.from_tensor_slices((X, Y)).batch(4),
    "PyDataset": Batches,
    "generator": lambda: (batch for batch in Batches()),
    "generator of lists": lambda: ([x, y] for x, y in Batches()),
    "iterable": lambda: type("Loader", (), {"__iter__": lambda self: iter([Batches()[i] for i in range(3)])})(),
}


@pytest.fixture(params=STREAMS)
def stream(request):
    return STREAMS[request.param]()


def test_a_stream_is_read_in_its_order(stream):
    assert is_stream(stream)
    x, y = read_examples(stream)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, Y)


def test_arrays_are_cut_into_batches():
    for x in (X, tf.constant(X), X.tolist(), scipy.sparse.csr_array(X), tf.sparse.from_dense(X)):
        assert not is_stream(x)
        cut = list(batches_of(x, Y, batch_size=4))
        assert [num_rows(x) for x, _, _ in cut] == [4, 4, 2]
        np.testing.assert_array_equal(np.concatenate([y for _, y, _ in cut]), Y)
        dense = [x.toarray() if scipy.sparse.issparse(x) else x for x, _, _ in cut]
        np.testing.assert_array_equal(np.concatenate(dense), X)
    (x, y, weight), *_ = batches_of({"a": X, "b": X[:, 0]}, batch_size=3)
    assert (x["b"].shape, y, weight) == ((3,), None, None)


def test_rows_of_sparse_matrices_are_sparse_tensors():
    for sparse in (scipy.sparse.coo_matrix(X), scipy.sparse.csc_array(X), tf.sparse.from_dense(X)):
        (arrays,) = inputs_of(sparse)
        rows = rows_of(arrays, slice(3, 7))
        assert isinstance(rows, tf.SparseTensor)
        np.testing.assert_array_equal(tf.sparse.to_dense(rows), X[3:7])


def test_elements_can_be_inputs_alone_or_have_weights():
    assert next(batches_of(iter([X])))[1:] == (None, None)
    assert next(batches_of(iter([(X,)])))[1:] == (None, None)
    assert next(batches_of(iter([{"a": X}])))[0]["a"] is X
    np.testing.assert_array_equal(next(batches_of(iter([(X, Y, 2 * Y)])))[2], 2 * Y)


def test_batches_of_different_lengths_are_not_joined():
    batches = [(np.zeros((4, length, 2)), np.zeros(4)) for length in (5, 7)]
    with pytest.raises(ValueError, match=r"the shapes \(5, 2\) and \(7, 2\); .* Pad them to one length"):
        read_examples(iter(batches))


def test_nested_lists_are_arrays_and_lists_of_arrays_several_inputs():
    np.testing.assert_array_equal(as_arrays([[1, 2], [3, 4]]), [[1, 2], [3, 4]])
    first, second = as_arrays([X, Y.tolist()])
    assert first is X
    np.testing.assert_array_equal(second, Y)
    with pytest.raises(ValueError, match="`x` is a nested list whose rows have different lengths"):
        as_arrays([[1, 2], [3]])


def test_pandas_with_nullable_columns_are_numbers():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {"a": pandas.array([1, None, 3], "Int64"), "b": pandas.array([True, False, None], "boolean")}
    )
    np.testing.assert_array_equal(as_arrays(frame), [[1, 1], [np.nan, 0], [3, np.nan]])
    series = pandas.Series([1, 0, 2], dtype="Int64")
    np.testing.assert_array_equal(as_arrays(series, "y"), [1, 0, 2])
    with pytest.raises(ValueError, match=r"`x` is a pandas DataFrame with values that are not numbers"):
        as_arrays(pandas.DataFrame({"a": ["red", "blue"], "b": [1, 2]}))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: tf.data.Dataset.from_tensor_slices((X, Y)).batch(4).repeat(), "is infinite"),
        (Endless, "The Endless is infinite"),
        (lambda: tf.data.Dataset.from_tensor_slices((X, Y)), "single rows or numbers. Expected batches"),
        (lambda: iter([(X, Y, Y, Y)]), "Data is expected to be in format"),
        (lambda: iter([]), "has no batches"),
        (lambda: iter([X]), "batches without targets"),
        (lambda: iter([(X, Y, Y)]), "The list_iterator has sample weights, but here every row counts once"),
    ],
)
def test_streams_that_cannot_be_read_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        read_examples(data())


def test_weights_are_read_on_demand_and_for_all_rows():
    stream = [(X[:4], Y[:4], 2 * Y[:4]), (X[4:], Y[4:], 2 * Y[4:])]
    np.testing.assert_array_equal(read_examples(iter(stream), with_weights=True)[2], 2 * Y)
    with pytest.raises(ValueError, match="in some batches only"):
        read_examples(iter([*stream, (X, Y)]), with_weights=True)


def test_a_stream_is_read_no_further_than_its_cap():
    read = itertools.count()
    stream = ((X, Y) for _ in read)
    with pytest.raises(ValueError, match=r"more than .* GiB, which would be read into memory"):
        read_examples(stream, max_bytes=3 * (X.nbytes + Y.nbytes))
    assert next(read) == 4


def test_targets_beside_a_stream_are_refused(stream):
    with pytest.raises(ValueError, match="whose batches hold the targets: leave out `y`"):
        next(batches_of(stream, Y))


@pytest.mark.parametrize("data", [object(), {"a": object()}, [X, object()], np.sin])
def test_what_is_no_data_is_named(data):
    with pytest.raises(ValueError, match=r"`x` is or holds a (object|ufunc)\. Expected an array"):
        as_arrays(data)


def test_every_batch_is_checked_when_it_is_read():
    checked = []
    stream = checked_inputs(Batches(), checked.append)
    assert checked == []
    assert len(list(inputs_of(stream))) == len(checked) == 3
    # What can be read twice still can; a generator cannot.
    assert len(list(inputs_of(stream))) == 3
    assert iter(checked_inputs(iter([X]), checked.append)) is not None
    assert checked_inputs(X, checked.append) is X


def test_arrays_of_different_lengths_are_refused():
    """Whole batches of both would agree, and the last targets be left out."""
    with pytest.raises(ValueError, match="inputs and targets have 512 and 600 rows"):
        next(batches_of(np.ones((512, 2)), np.zeros(600)))
    with pytest.raises(ValueError, match="have 4 and 5 rows"):
        next(batches_of({"a": np.ones((4, 2)), "b": np.ones((5, 2))}))

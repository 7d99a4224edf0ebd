"""Columns of files become inputs, and rows that do not fit are told apart."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from tfp_bnn.export.beam.input_columns import InputColumns, choose_columns

FLOAT = np.dtype(np.float32)


def converted(columns, arrays, shape, dtype=FLOAT):
    faults = {}
    names = tuple(columns)
    array = InputColumns("x", names, shape, dtype).array(dict(zip(names, arrays, strict=True)), faults)
    return array, faults


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1, 2, 3, 4], [5, 6, 7, 8]]),
        pa.array([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]]),
        pa.array([[[1, 2], [3, 4]], [[5, 6], [7, 8]]], pa.list_(pa.list_(pa.int8(), 2), 2)),
        pa.array([[1, 2, 3, 4], [5, 6, 7, 8]], pa.large_list(pa.float64())),
        pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(1.0, 9.0).reshape(2, 2, 2)),
        pa.array([["1", " 2", "3e0", "4."], ["5", "6", "7", "8"]]),
    ],
    ids=lambda column: str(column.type),
)
def test_lists_of_any_kind_are_read_in_row_major_order(column):
    array, faults = converted("a", [column], (2, 2))
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, np.arange(1.0, 9.0).reshape(2, 2, 2))
    assert faults == {}


def test_scalar_columns_are_stacked_in_the_order_given():
    columns = [
        pa.array([1, 2]),
        pa.array(["3", "4"]),
        pa.array([True, False]),
        pa.array(["5", "5"]).dictionary_encode(),
    ]
    array, faults = converted("abcd", columns, (4,))
    np.testing.assert_array_equal(array, [[1, 3, 1, 5], [2, 4, 0, 5]])
    assert faults == {}


@pytest.mark.parametrize(
    ("column", "shape", "dtype", "reason"),
    [
        (pa.array([[1.0], [2.0, 3.0], [4.0]]), (1,), FLOAT, "'a' has 2 values; expected 1"),
        (pa.array([[1.0], None, [4.0]]), (1,), FLOAT, "'a' has 0 values; expected 1"),
        (pa.array([[1.0], [None], [4.0]]), (1,), FLOAT, "'x' has values that are missing"),
        (pa.array([1.0, None, 4.0]), (), FLOAT, "'x' has values that are missing"),
        (pa.array([1.0, np.nan, 4.0]), (), FLOAT, "'x' has values that are missing, no numbers, NaN or infinite"),
        (pa.array([1.0, 1e300, 4.0]), (), FLOAT, "infinite"),
        (pa.array(["1", "1_0", "4"]), (), FLOAT, "no numbers"),
        (pa.array(["1", "", "4"]), (), FLOAT, "missing, no numbers"),
        (pa.array([1.0, 1.5, 4.0]), (), np.dtype(np.int32), "no numbers of the type int32"),
        (pa.array([1, 2**40, 4]), (), np.dtype(np.int32), "no numbers of the type int32"),
        (pa.array(["1", None, "4"]), (), np.dtype(object), "'x' has values that are missing"),
    ],
)
def test_a_row_that_does_not_fit_is_told_with_its_reason_and_the_others_are_kept(column, shape, dtype, reason):
    array, faults = converted("a", [column], shape, dtype)
    assert list(faults) == [1]
    assert reason in faults[1]
    kept = array[[0, 2]].reshape(-1).tolist()
    assert kept == (["1", "4"] if dtype.kind == "O" else [1, 4])


LARGE = [2**53 + 1, 2**63 - 1, -(2**63)]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([*LARGE, None]),
        pa.array([*map(str, LARGE), "9.3e18"]),
        pa.array([*map(Decimal, LARGE), None], pa.decimal128(38, 0)),
        pa.array([[value] for value in LARGE] + [[None]]),
    ],
    ids=lambda column: str(column.type),
)
def test_integers_of_64_bits_are_exact_and_a_missing_one_changes_no_other(column):
    array, faults = converted("a", [column], (1,), np.dtype(np.int64))
    assert array[:3, 0].tolist() == LARGE
    assert list(faults) == [3]


def test_integers_that_floats_or_a_type_cannot_tell_apart_are_refused():
    for column in (pa.array([2.0**53, 1.0]), pa.array([2**63, 1], pa.uint64()), pa.array([str(2**63), "1"])):
        array, faults = converted("a", [column], (), np.dtype(np.int64))
        assert (array.tolist(), list(faults)) == ([0, 1], [0])
    array, _ = converted("a", [pa.array([2**64 - 1], pa.uint64())], (), np.dtype(np.uint64))
    assert array.tolist() == [2**64 - 1]


def test_a_type_without_numbers_is_refused():
    with pytest.raises(ValueError, match=r"The column 'a' is of the type timestamp.*expected numbers"):
        converted("a", [pa.array([0], pa.timestamp("s"))], (1,))


ONE = {"x": tf.TensorSpec([None, 2], tf.float32)}
TWO = {"u": tf.TensorSpec([None], tf.float32), "v": tf.TensorSpec([None, 2], tf.string)}


@pytest.mark.parametrize(
    ("inputs", "columns", "found", "expected"),
    [
        (ONE, None, ["id", "x", "y"], [("x",)]),
        (ONE, None, ["id", "b", "a"], [("b", "a")]),
        (ONE, ["a", "b"], ["b", "a", "id"], [("a", "b")]),
        (ONE, "pixels", ["pixels", "id"], [("pixels",)]),
        (TWO, None, ["v", "u"], [("u",), ("v",)]),
        (TWO, {"v": ["b", "a"]}, ["a", "b", "u"], [("u",), ("b", "a")]),
    ],
)
def test_columns_are_chosen_by_name(inputs, columns, found, expected):
    chosen = choose_columns(inputs, columns, "f", found, ["id"])
    assert [each.columns for each in chosen] == expected


@pytest.mark.parametrize(
    ("inputs", "columns", "message"),
    [
        (
            ONE,
            ["lenght", "width"],
            r"'f': Unknown column 'lenght'. Did you mean 'length'\? Expected one of: id, length, width",
        ),
        (ONE, None, "columns 'id', 'length', 'width', and none that is called 'x'"),
        (ONE, ["id", "length", "width"], "has 3 columns for the input 'x', which has 2 values"),
        (TWO, ["id", "length"], "The model has the inputs u, v. Expected `columns` by input"),
        (TWO, {"w": "id"}, "`columns` has 'w'; the inputs of the model are u, v"),
        ({"x": tf.TensorSpec([None, None], tf.float32)}, "id", "Export it with one size"),
    ],
)
def test_columns_that_cannot_be_the_inputs_are_refused(inputs, columns, message):
    with pytest.raises(ValueError, match=message):
        choose_columns(inputs, columns, "f", ["id", "length", "width"], [])

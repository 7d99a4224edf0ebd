"""Tables and arrays that are nearly right: what is refused, by which words, and what is read."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from zoo.datasets.input_files import open_inputs
from zoo.datasets.own_files import dataset_from_files

NUMBERS = [f"{10 * k}.5" for k in range(60)]


@pytest.mark.parametrize("task", [None, "regression", "classification"])
@pytest.mark.parametrize("targets", [NUMBERS, ["0", "1"] * 30])
def test_text_next_to_mostly_numbers_is_no_class(tmp_path, targets, task):
    lines = [f"{k},{'NA' if k == 5 else target}" for k, target in enumerate(targets)]
    (tmp_path / "x.csv").write_text("\n".join(["a,y", *lines]))
    with pytest.raises(ValueError, match="the target of row 5 is 'NA', text next to mostly numbers"):
        dataset_from_files(tmp_path / "x.csv", "y", task=task)
    # A model may know such a class.
    names = sorted({*targets, "NA"})
    assert dataset_from_files(tmp_path / "x.csv", "y", class_names=names, whole=True).class_names == tuple(names)


def test_text_next_to_mostly_numbers_is_a_class_if_classes_are_asked_for(tmp_path):
    lines = [f"{k},{'K' if k % 12 == 5 else k % 12}" for k in range(60)]
    (tmp_path / "x.csv").write_text("\n".join(["grade,y", *lines]))
    assert "K" in dataset_from_files(tmp_path / "x.csv", "y", task="classification", whole=True).class_names
    with pytest.raises(ValueError, match="the target of row 5 is 'K'"):
        dataset_from_files(tmp_path / "x.csv", "y")


def test_text_of_too_many_values_is_no_class(tmp_path):
    (tmp_path / "x.csv").write_text("\n".join(["a,y", *(f"{k},${target}" for k, target in enumerate(NUMBERS))]))
    with pytest.raises(ValueError, match=r"such as '\$0\.5', with 60 different values in 60 rows; .* at most 30"):
        dataset_from_files(tmp_path / "x.csv", "y")


def test_a_missing_category_of_parquet_is_not_the_last_one(tmp_path):
    text, numbers = (
        pyarrow.array(values * 4).dictionary_encode() for values in (["cat", None, "dog"], [1.5, None, 2.5])
    )
    file = tmp_path / "x.parquet"
    for columns, says in (
        ({"a": [1.0, 2.0, 3.0] * 4, "y": text}, "a row has no 'y'. Fill it in"),
        ({"a": numbers, "y": ["cat", "cat", "dog"] * 4}, "4 NaN or infinite values in x"),
        ({"a": [1.0, 2.0, 3.0] * 4, "y": numbers}, "4 NaN or infinite values in y"),
    ):
        pyarrow.parquet.write_table(pyarrow.table(columns), file)
        with pytest.raises(ValueError, match=says):
            dataset_from_files(file, "y", whole=True)


def test_decimals_of_parquet_are_numbers(tmp_path):
    column = pyarrow.array([Decimal(number) for number in NUMBERS], pyarrow.decimal128(10, 2))
    pyarrow.parquet.write_table(pyarrow.table({"a": column, "y": column}), tmp_path / "x.parquet")
    data = dataset_from_files(tmp_path / "x.parquet", "y", whole=True)
    assert data.class_names is None
    assert data.test.x[:, 0].tolist() == data.test.y[:, 0].tolist() == [float(number) for number in NUMBERS]


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["a", "a"], r"has 2 columns called 'a'\. Give each another name|Multiple matches .* in a: double"),
        (["", "a"], r"the column '' has no name.*index=False"),
        (["a", "Unnamed: 0"], r"'Unnamed: 0' has no name"),
        (["a", "__index_level_0__"], r"'__index_level_0__' has no name"),
    ],
)
def test_columns_without_a_name_of_their_own_are_refused(tmp_path, names, says):
    names, columns = [*names, "y"], [np.arange(8.0) + 10 * k for k in range(3)]
    np.savetxt(tmp_path / "x.csv", np.stack(columns, axis=1), delimiter=",", header=",".join(names), comments="")
    pyarrow.parquet.write_table(pyarrow.table(columns, names=names), tmp_path / "x.parquet")
    for file in ("x.csv", "x.parquet"):
        with pytest.raises(ValueError, match=says):
            dataset_from_files(tmp_path / file, "y")
    with pytest.raises(ValueError, match=says):
        open_inputs([tmp_path / "x.parquet"], (3,), 1.0)


def in_csv(folder, targets):
    (folder / "x.csv").write_text("\n".join(["a,y", *(f"{k},{target}" for k, target in enumerate(targets))]))
    return folder / "x.csv"


@pytest.mark.parametrize("missing", ["NA", "?", "n/a", "null", "nan"])
@pytest.mark.parametrize("task", [None, "classification"])
def test_a_missing_target_among_text_is_no_class(tmp_path, missing, task):
    with pytest.raises(ValueError, match=r"the target of row 2 is .*, which stands for a missing value. Fill it in"):
        dataset_from_files(in_csv(tmp_path, ["cat", "dog", missing] * 4), "y", task=task)


def test_a_class_of_text_may_be_called_none(tmp_path):
    file = in_csv(tmp_path, ["none", "mild", "-"] * 4)
    assert dataset_from_files(file, "y", whole=True).class_names == ("-", "mild", "none")


def test_a_missing_date_is_no_class(tmp_path):
    dates = pyarrow.array([date(2020, 1, 1), date(2020, 1, 2), None] * 4)
    pyarrow.parquet.write_table(pyarrow.table({"a": [1.0, 2.0, 3.0] * 4, "y": dates}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"a row has no 'y'\. Fill it in"):
        dataset_from_files(tmp_path / "x.parquet", "y")


def test_labels_stay_as_they_are_written(tmp_path):
    long = ["10000000000000001", "10000000000000000"]
    assert dataset_from_files(in_csv(tmp_path, long * 4), "y", whole=True).class_names == tuple(long[::-1])
    endless = [f"{label}{label}" for label in long]
    assert dataset_from_files(in_csv(tmp_path, endless * 4), "y", whole=True).class_names == tuple(endless[::-1])
    many = [f"{number:05}" for number in range(30)] * 3
    assert len(dataset_from_files(in_csv(tmp_path, many), "y", whole=True).class_names) == 30
    codes = in_csv(tmp_path, ["007", "7"] * 4)
    assert dataset_from_files(codes, "y", whole=True).class_names == ("007", "7")
    text = [str(10000 + number) for number in range(30)] * 3
    pyarrow.parquet.write_table(pyarrow.table({"a": np.arange(90.0), "y": text}), tmp_path / "text.parquet")
    assert len(dataset_from_files(tmp_path / "text.parquet", "y", whole=True).class_names) == 30
    pyarrow.parquet.write_table(pyarrow.table({"a": np.arange(8.0), "y": ["007", "7"] * 4}), tmp_path / "x.parquet")
    assert dataset_from_files(tmp_path / "x.parquet", "y", whole=True).class_names == ("007", "7")
    # As numbers, they are one.
    assert set(dataset_from_files(codes, "y", task="regression", whole=True).test.y.flat) == {7.0}
    text = np.array([b"cat", "dög".encode()])
    np.savez(tmp_path / "x.npz", x=np.zeros((8, 2)), y=np.tile(text, 4))
    assert dataset_from_files(tmp_path / "x.npz", whole=True).class_names == ("cat", "dög")
    large = np.array([2**64 - 1, 1] * 4, np.uint64)
    np.savez(tmp_path / "x.npz", x=np.zeros((8, 2)), y=large)
    assert dataset_from_files(tmp_path / "x.npz", whole=True).class_names == ("1", str(2**64 - 1))


@pytest.mark.parametrize("label", ["inf", "nan", "1.5", "1e17"])
def test_a_number_that_names_no_class_is_refused(tmp_path, label):
    file = in_csv(tmp_path, ["0", "1", label] * 4)
    with pytest.raises(ValueError, match=f"numbers such as {re.escape(str(float(label)))}; one class for each"):
        dataset_from_files(file, "y", task="classification")


def test_numbers_with_zeros_before_them_may_be_numbers(tmp_path):
    """Those of 30 different values are no classes."""
    data = dataset_from_files(in_csv(tmp_path, [f"{k:03d}" for k in range(30)]), "y", whole=True)
    assert data.test.y[:, 0].tolist() == list(range(30))


def test_tables_without_inputs_or_with_two_targets_are_refused(tmp_path):
    for names, says in ((["y"], "no column but the target 'y'"), (["a", "y", "y"], "2 columns called 'y'")):
        table = pyarrow.table([np.arange(8.0)] * len(names), names=names)
        np.savetxt(tmp_path / "x.csv", np.zeros((8, len(names))), delimiter=",", header=",".join(names), comments="")
        pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
        with pytest.raises(ValueError, match=says):
            dataset_from_files(tmp_path / "x.csv", "y")
        with pytest.raises(ValueError, match=f"{says}|Multiple matches "):
            dataset_from_files(tmp_path / "x.parquet", "y")


@pytest.mark.parametrize("key", ["x", "y"])
def test_complex_numbers_are_refused(tmp_path, key):
    np.savez(tmp_path / "x.npz", **{"x": np.zeros((8, 2)), "y": np.arange(8) % 2, key: np.ones((8, 2)) * 1j})
    with pytest.raises(ValueError, match=r"complex128[,;] (expected numbers that are real|numbers or text)"):
        dataset_from_files(tmp_path / "x.npz")

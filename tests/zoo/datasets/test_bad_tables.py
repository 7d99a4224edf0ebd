"""Tables and arrays that are nearly right: what is refused, by which words, and what is read."""

from __future__ import annotations

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

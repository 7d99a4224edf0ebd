"""Files of every format give their rows with the right numbers, and what is wrong with a file is said."""

from __future__ import annotations

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from tfp_bnn.export.beam.row_files import find_files, row_file

pytest.importorskip("apache_beam", reason="needs apache-beam: pip install 'tfp_bnn[beam]'")

A, B = [float(number) for number in range(10)], [str(number) for number in range(100, 110)]


def example(**features):
    kinds = {float: "float_list", bytes: "bytes_list", int: "int64_list"}
    made = {name: {kinds[type(values[0])]: {"value": values}} for name, values in features.items()}
    return tf.train.Example(features={"feature": made}).SerializeToString()


def write_records(path, records):
    options = tf.io.TFRecordOptions("GZIP" if path.suffix == ".gz" else "")
    with tf.io.TFRecordWriter(str(path), options) as writer:
        for record in records:
            writer.write(record)


def write(path):
    if ".csv" in path.name:
        lines = "\n".join(["a,b", *(f"{a},{b}" for a, b in zip(A, B, strict=True))])
        text = lines.encode("utf-8-sig")
        path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    elif path.suffix == ".parquet":
        pq.write_table(pa.table({"a": A, "b": B}), path, row_group_size=4)
    else:
        write_records(path, [example(a=[a], b=[b.encode()]) for a, b in zip(A, B, strict=True)])


@pytest.mark.parametrize("name", ["r.csv", "r.csv.gz", "r.parquet", "r.tfrecord", "r.tfrecord-00000-of-00001.gz"])
def test_parts_have_all_rows_between_them(name, tmp_path):
    write(tmp_path / name)
    file = row_file(str(tmp_path / name))
    assert file.names() == ["a", "b"]
    numbers = []
    for part in range(2):
        for rows in file.rows(["b"], 3, part, 2):
            values = np.ravel(rows.columns["b"].to_pylist()).tolist()
            numbers += range(rows.first, rows.first + len(values))
            assert [value.decode() if isinstance(value, bytes) else value for value in values] == B[rows.first :][
                : len(values)
            ]
            assert rows.faults == {}
    assert len(numbers) == 10
    assert set(numbers) == set(range(10))


def test_rows_of_csv_that_are_too_long_are_told_and_keep_their_numbers(tmp_path):
    (tmp_path / "r.csv").write_text('a,b\n\n1,"two\nlines"\n1\n1,2,3\n7,8\n')
    rows = next(row_file(str(tmp_path / "r.csv")).rows(["b", "a"], 9))
    assert rows.columns["b"].to_pylist() == ["two\nlines", None, None, "8"]
    assert rows.faults == {1: "has 1 cells, and the header has 2", 2: "has 3 cells, and the header has 2"}


def test_records_that_are_no_examples_are_told(tmp_path):
    good = example(a=[1.0, 2.0])
    write_records(tmp_path / "r.tfrecord", [good, example(a=[b"1"]), b"none", example(c=[1.0]), good])
    rows = next(row_file(str(tmp_path / "r.tfrecord")).rows(["a"], 9))
    assert rows.columns["a"].to_pylist() == [[1.0, 2.0], [], [], [], [1.0, 2.0]]
    assert list(rows.faults) == [1, 2]


@pytest.mark.parametrize("name", ["r.csv.gz", "r.parquet", "r.tfrecord"])
def test_a_file_that_is_cut_off_is_named(name, tmp_path):
    path = tmp_path / name
    write(path)
    path.write_bytes(path.read_bytes()[:-9])
    file = row_file(str(path))
    with pytest.raises(ValueError, match=rf"{name}' cannot be read as (CSV|Parquet|TFRecord): "):
        list(file.rows(["a"], 1))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.csv", b"a\n\xff\n", "cannot be read as CSV"),
        ("r.csv", b"a,b,a\n", "its header has the same name twice"),
        ("r.tfrecord", b"no records at all", "cannot be read as TFRecord"),
        ("r.json", b"{}", "has no known format. Expected a name that ends in .csv"),
    ],
)
def test_a_file_of_another_kind_is_named(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"(?s){name}.*{message}"):
        row_file(str(tmp_path / name)).names()


def test_files_are_found_once(tmp_path):
    for name in ("b.csv", "a.csv", "c.parquet"):
        (tmp_path / name).touch()
    assert find_files([f"{tmp_path}/*.csv", f"{tmp_path}/a*"]) == [f"{tmp_path}/a.csv", f"{tmp_path}/b.csv"]
    with pytest.raises(ValueError, match=r"No file matches '.*d.csv'"):
        find_files([f"{tmp_path}/*.csv", f"{tmp_path}/d.csv"])

"""Datasets from a user's own files."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from zoo.architectures import ARCHITECTURES
from zoo.datasets.input_files import open_inputs
from zoo.datasets.own_files import dataset_from_files

COLUMNS = ["sepal", "petal", "species"]
FLOWERS = [(k / 10, 2.0 + k % 3, ("rose", "lily", "iris")[k % 3]) for k in range(60)]


def write_csv(path: Path, header: list[str], rows: list[tuple[object, ...]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def draw(path: Path, colour: tuple[int, ...], size: tuple[int, int] = (12, 10)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB" if len(colour) == 3 else "L", size, colour if len(colour) == 3 else colour[0]).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        for index in range(10):
            draw(tmp_path / "photos" / name / f"{index}.png", colour)
    return tmp_path / "photos"


def test_a_table_is_read_alike_from_csv_and_parquet_and_split_alike_each_time(tmp_path):
    path = write_csv(tmp_path / "flowers.csv", COLUMNS, FLOWERS)
    table = pyarrow.table({name: [row[k] for row in FLOWERS] for k, name in enumerate(COLUMNS)})
    pyarrow.parquet.write_table(table, tmp_path / "flowers.parquet")
    data, again = (dataset_from_files(file, "species") for file in (path, tmp_path / "flowers.parquet"))
    assert (data.name, data.task, data.class_names) == ("flowers", "classification", ("iris", "lily", "rose"))
    assert data.feature_names == ("sepal", "petal")
    assert [len(split) for split in (data.train, data.validation, data.test)] == [38, 10, 12]
    # Each row keeps its label, and each class its share of a split.
    assert data.test.x[:, 1].tolist() == [4.0 - label for label in data.test.y]
    assert np.bincount(data.test.y).tolist() == [4, 4, 4]
    for split in ("train", "validation", "test"):
        assert data.split(split).digest == again.split(split).digest


def test_columns_and_classes_of_a_model_are_matched_by_name(tmp_path):
    path = write_csv(tmp_path / "x.csv", ["petal", "note", "species", "sepal"], [(p, "?", c, s) for s, p, c in FLOWERS])
    classes = ("rose", "iris", "lily", "tulip")
    data = dataset_from_files(path, "species", class_names=classes, feature_names=("sepal", "petal"), whole=True)
    assert data.class_names == classes
    np.testing.assert_allclose(data.test.x, [row[:2] for row in FLOWERS], rtol=1e-6)
    assert [classes[label] for label in data.test.y] == [row[2] for row in FLOWERS]
    with pytest.raises(ValueError, match=r"the classes \['iris'\], but the model knows \['lily', 'rose'\]"):
        dataset_from_files(path, "species", class_names=("rose", "lily"), feature_names=("sepal", "petal"))
    with pytest.raises(ValueError, match="the model needs 'stem' exactly once"):
        dataset_from_files(path, "species", feature_names=("sepal", "stem"))
    with pytest.raises(ValueError, match=r"row 0 is .* but got '\?'. Encode text as numbers"):
        dataset_from_files(path, "species")


def test_few_rows_of_many_classes_are_split(tmp_path):
    """A fifth of 8 x 4 rows is less than 8: the rest of 8 x 5 is not stratified, the test split is."""
    np.savez(tmp_path / "a.npz", x=np.arange(40.0)[:, None], y=np.arange(40) % 8)
    data = dataset_from_files(tmp_path / "a.npz")
    assert np.bincount(data.test.y).tolist() == [1] * 8
    assert (len(data.train), len(data.validation)) == (25, 7)


@pytest.mark.parametrize(
    ("values", "task", "expected"),
    [
        ([k % 3 for k in range(30)], None, ("0", "1", "2")),
        ([7 + k % 2 for k in range(30)], None, ("7", "8")),
        ([k for k in range(30)], None, None),
        ([k % 3 + 0.5 for k in range(30)], None, None),
        ([k % 3 for k in range(30)], "regression", None),
        ([10.0 + k for k in range(30)], "classification", tuple(str(10 + k) for k in range(30))),
    ],
)
def test_integers_of_few_values_and_text_are_classes_and_others_numbers(tmp_path, values, task, expected):
    path = write_csv(tmp_path / "x.csv", ["a", "y"], [(k, value) for k, value in enumerate(values)])
    data = dataset_from_files(path, "y", task=task)
    assert data.class_names == expected
    together = np.concatenate([data.train.y, data.validation.y, data.test.y])
    if expected is None:
        assert together.shape == (30, 1)
        assert sorted(together[:, 0].tolist()) == sorted(values)
    else:
        assert sorted(int(expected[label]) for label in together) == sorted(values)


def test_a_folder_of_images_has_a_class_per_subfolder(photos):
    data = dataset_from_files(photos)
    assert (data.class_names, data.input_shape, data.train.x.dtype) == (("blue", "red"), (10, 12, 3), np.uint8)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [12, 4, 4]
    for split in (data.train, data.validation, data.test):
        assert (split.x[:, 0, 0, 0] > 0).tolist() == (split.y == 1).tolist()


def test_images_of_other_sizes_are_resized_and_grey_ones_stay_grey(tmp_path):
    for index in range(6):
        draw(tmp_path / "mixed" / "a" / f"{index}.png", (10,), (20, 20) if index == 5 else (300, 600))
        draw(tmp_path / "mixed" / "b" / f"{index}.jpg", (200,), (300, 600))
    with pytest.warns(UserWarning, match="12 of 12 images .* are resized to 128 x 256 pixels"):
        data = dataset_from_files(tmp_path / "mixed", whole=True)
    assert data.input_shape == (256, 128, 1)
    assert data.test.x.mean(axis=(1, 2, 3)) == pytest.approx([10] * 6 + [200] * 6, abs=2)


def test_folders_of_splits_are_kept(photos, tmp_path):
    for name, colour in (("blue", (0, 0, 200)), ("red", (200, 0, 0))):
        draw(tmp_path / "splits" / "test" / name / "new.png", colour)
    photos.rename(tmp_path / "splits" / "train")
    data = dataset_from_files(tmp_path / "splits")
    assert [len(split) for split in (data.train, data.validation, data.test)] == [16, 4, 2]
    assert data.test.x.max() == 200


def test_arrays_of_an_npz_file_with_their_own_splits(tmp_path):
    x = np.arange(10 * 4 * 4, dtype=np.uint8).reshape(10, 4, 4)
    np.savez(
        tmp_path / "a.npz", x_train=x, y_train=np.arange(10) % 2, x_test=x[:2], y_test=[1, 0], class_names=["n", "y"]
    )
    data = dataset_from_files(tmp_path / "a.npz")
    assert (data.class_names, data.input_shape) == (("n", "y"), (4, 4, 1))
    assert data.test.y.tolist() == [1, 0]
    assert len(data.train) + len(data.validation) == 10
    assert dataset_from_files(tmp_path / "a.npz", images=False).input_shape == (4, 4)


def test_series_of_channels_are_no_images_to_their_networks():
    takes = {name: ARCHITECTURES[name].takes_images for name in ARCHITECTURES}
    series = {"cnn1d_flipout", "hierarchical_mlp", "lstm_flipout"}
    assert {name for name, takes_images in takes.items() if not takes_images} == series


def test_numbers_are_positions_of_classes_only_if_none_is_a_name(tmp_path):
    """Label 1 of a model of the classes 1, 2 and 3 is not its second class."""
    np.savez(tmp_path / "a.npz", x=np.zeros((6, 2)), y=[0, 1, 2] * 2)
    with pytest.raises(ValueError, match=r"the classes \['0'\], but the model knows \['1', '2', '3'\]"):
        dataset_from_files(tmp_path / "a.npz", class_names=["1", "2", "3"], whole=True)
    data = dataset_from_files(tmp_path / "a.npz", class_names=["a", "b", "c"], whole=True)
    assert data.test.y.tolist() == [0, 1, 2] * 2


@pytest.mark.parametrize("names", [("train", "val", "validation"), ("train", "training"), ("", "test")])
def test_two_parts_for_one_split_are_refused(tmp_path, names):
    parts = {f"{kind}_{name}".rstrip("_"): np.arange(8) % 2 for name in names for kind in "xy"}
    np.savez(tmp_path / "a.npz", **parts)
    says = "x_val.*for the validation|x_train.*for the train|'x' next to arrays of splits"
    with pytest.raises(ValueError, match=says):
        dataset_from_files(tmp_path / "a.npz")
    if all(names):
        for name in names:
            draw(tmp_path / "photos" / name.title() / "red" / "0.png", (255, 0, 0))
        with pytest.raises(ValueError, match=r"has \['(Tr|Val).*, all for the (train|validation) split"):
            dataset_from_files(tmp_path / "photos")


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("x.csv", b"a,b\n1,2\n", "Unknown column 'y'. Expected one of: a, b"),
        ("x.csv", b"a,y\n1,2\n,3\n", "row 1 is .*; expected numbers, but got ''"),
        ("x.csv", b"a,y\n1,2\n2,\n", "row 1 has no 'y'"),
        ("x.csv", b"a,y\n1,2\n", "has 1 rows.* too few to split"),
        ("x.parquet", b"garbage", "cannot be read as Parquet"),
        ("x.npz", b"garbage", "not an NPZ file"),
        ("x.txt", b"1", "is none of them"),
    ],
)
def test_files_that_are_no_dataset_are_refused_in_words(tmp_path, name, data, says):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=says):
        dataset_from_files(tmp_path / name, None if name.endswith("z") else "y")


def test_folders_that_are_no_dataset_are_refused_in_words(photos):
    with pytest.raises(ValueError, match="got 0 with images"):
        dataset_from_files(photos / "red")
    (photos / "green").mkdir()
    with pytest.raises(ValueError, match=r"those called \['green'\] have no images"):
        dataset_from_files(photos)
    (photos / "green" / "x.png").write_bytes(b"garbage")
    with pytest.raises(ValueError, match=r"x\.png' cannot be read as an image"):
        dataset_from_files(photos)


def test_inputs_of_predict_are_found_in_folders_and_by_patterns_with_their_paths_in_full(photos, monkeypatch):
    names = sorted(str(path) for path in photos.rglob("*.png"))
    for files in ([photos], [str(photos / "*" / "*.png")], [photos / "blue", photos / "red"]):
        inputs = open_inputs(files, (5, 6, 3), 1.0)
        assert inputs.labels == names
        first, *others = inputs.batches(15)
        assert [len(first), *map(len, others)] == [15, 5]
        assert first[0, 0, 0].tolist() == [0, 0, 1]
    monkeypatch.chdir(photos)
    assert open_inputs(["red/3.png"], (5, 6, 3), 1.0).labels == ["red/3.png"]


def test_numbers_of_an_npz_file_are_positions_in_its_own_class_names(tmp_path):
    """So the names of a model, in another order, are found by name."""
    file = tmp_path / "a.npz"
    np.savez(file, x=np.zeros((6, 2)), y=[0, 1] * 3, class_names=["dog", "cat"])
    for classes in (["cat", "dog"], ["cat", "wolf", "dog"]):
        data = dataset_from_files(file, class_names=classes, whole=True)
        assert data.class_names == tuple(classes)
        assert [classes[label] for label in data.test.y] == ["dog", "cat"] * 3
    # Names that have nothing in common say nothing.
    assert dataset_from_files(file, class_names=["a", "b"], whole=True).test.y.tolist() == [0, 1] * 3
    with pytest.raises(ValueError, match=r"the classes \['dog'\], but the model knows \['cat', 'wolf'\]"):
        dataset_from_files(file, class_names=["cat", "wolf"])
    np.savez(file, x=np.zeros((6, 2)), y=[0, 2] * 3, class_names=["dog", "cat"])
    with pytest.raises(ValueError, match=r"the classes \['0', '2'\], but its class_names are \['cat', 'dog'\]"):
        dataset_from_files(file, class_names=["cat", "dog"])


def test_columns_of_an_npz_file_are_found_by_name(tmp_path):
    file, x = tmp_path / "a.npz", np.arange(12.0).reshape(4, 3)
    np.savez(file, x=x, y=[0, 1] * 2, feature_names=["b", "note", "a"])
    data = dataset_from_files(file, feature_names=("a", "b"), whole=True)
    assert data.feature_names == ("a", "b")
    for columns in (data.test.x, open_inputs([file], (2,), 1.0, ("a", "b")).x):
        assert columns.tolist() == x[:, [2, 0]].tolist()
    assert open_inputs([file], (3,), 1.0, ("c", "d", "e")).x.tolist() == x.tolist()
    for read in (
        lambda: dataset_from_files(file, feature_names=("a", "c")),
        lambda: open_inputs([file], (2,), 1.0, ("a", "c")),
    ):
        with pytest.raises(ValueError, match=r"the model needs 'c' exactly once\. .* 'feature_names' of an NPZ file"):
            read()
    np.savez(file, x=x, y=[0, 1] * 2, feature_names=["a", "b"])
    with pytest.raises(ValueError, match=r"2 feature names for inputs of shape \(3,\)"):
        open_inputs([file], (3,), 1.0, ("a", "b"))


def test_folders_of_splits_next_to_others_are_no_classes(photos, tmp_path):
    photos.rename(tmp_path / "train")
    draw(tmp_path / "val" / "red" / "0.png", (255, 0, 0))
    draw(tmp_path / "unlabeled" / "red" / "0.png", (255, 0, 0))
    with pytest.raises(ValueError, match=r"splits \['train', 'val'\] next to \['unlabeled'\]. Move what is no split"):
        dataset_from_files(tmp_path)
    # Alone, it is a class, of vehicles for example.
    (tmp_path / "val").rename(tmp_path / "bus")
    for name in ("train", "bus", "unlabeled"):
        draw(tmp_path / name / "0.png", (255, 0, 0))
    assert dataset_from_files(tmp_path, whole=True).class_names == ("bus", "train", "unlabeled")


def test_arrays_of_different_lengths_are_refused_before_splits_are_joined(tmp_path):
    rows = {"x_train": 10, "y_train": 9, "x_test": 5, "y_test": 6}
    np.savez(tmp_path / "a.npz", **{name: np.arange(n) % 2 for name, n in rows.items()})
    with pytest.raises(ValueError, match="has 10 inputs and 9 targets in 'train'"):
        dataset_from_files(tmp_path / "a.npz", whole=True)
    np.savez(tmp_path / "a.npz", x=1.0, y=2.0)
    with pytest.raises(ValueError, match="'x' or its targets are a single number"):
        dataset_from_files(tmp_path / "a.npz")


def test_folders_of_splits_without_training_are_all_rows_or_nothing(photos, tmp_path):
    photos.rename(tmp_path / "test")
    draw(tmp_path / "validation" / "red" / "0.png", (255, 0, 0))
    draw(tmp_path / "validation" / "blue" / "0.png", (0, 0, 255))
    with pytest.raises(ValueError, match=r"splits \['test', 'validation'\], but none of training. .* with --split all"):
        dataset_from_files(tmp_path)
    data = dataset_from_files(tmp_path, whole=True)
    assert (data.class_names, len(data.test)) == (("blue", "red"), 22)


@pytest.mark.parametrize(
    ("arrays", "whole", "says"),
    [
        ({"x": (0, 2), "y": (0,)}, False, "has no rows. Add some"),
        ({"x_train": (9, 2), "y_train": (9,), "x_test": (0, 2), "y_test": (0,)}, False, "has no rows in 'test'"),
        (
            {"x_train": (9, 2), "y_train": (9,), "x_test": (9, 3), "y_test": (9,)},
            True,
            r"\(3,\) in 'test' and of .*\(2,\)",
        ),
        ({"x_train": (2, 2), "y_train": (2,)}, False, r"has training rows: 2, too few to .* \['test', 'validation'\]"),
    ],
)
def test_splits_that_cannot_be_used_are_refused_in_words(tmp_path, arrays, whole, says):
    np.savez(tmp_path / "a.npz", **{name: np.zeros(shape) for name, shape in arrays.items()})
    with pytest.raises(ValueError, match=says):
        dataset_from_files(tmp_path / "a.npz", whole=whole, task="regression")


def test_a_table_without_rows_is_refused(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"a": [1.0], "b": ["x"]})[:0], tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="has no rows"):
        dataset_from_files(tmp_path / "a.parquet", "b")


@pytest.mark.parametrize("task", [None, "classification"])
def test_one_hot_rows_are_no_numbers(tmp_path, task):
    np.savez(tmp_path / "a.npz", x=np.zeros((6, 2)), y=np.eye(3)[[0, 1, 2] * 2])
    with pytest.raises(ValueError, match=r"3 columns with one 1 in each row; .*y.argmax\(axis=1\)"):
        dataset_from_files(tmp_path / "a.npz", task=task)
    assert dataset_from_files(tmp_path / "a.npz", task="regression").train.y.shape[1:] == (3,)

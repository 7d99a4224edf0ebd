"""The embedded datasets hold what scikit-learn gives, those of tensorflow-datasets what is prepared, in fixed splits.

A dataset that contradicts itself is refused. The tests of MNIST and Fashion-MNIST run where `TFDS_DATA_DIR` has them.
"""

from __future__ import annotations

import cmath
import dataclasses
import functools
import hashlib
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import sklearn.datasets

import zoo.datasets
from zoo.datasets import (
    DATASETS,
    DataMissingError,
    Dataset,
    Split,
    check_dataset_name,
    list_datasets,
    load_dataset,
    planar,
)
from zoo.datasets.base import SPLIT_NAMES


def rotated_moons() -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """18 groups of 12 + 12 + 100 points, turned about the middle of the circles one point at a time."""
    random = np.random.RandomState(0)
    angles = [math.radians(degrees) for degrees in random.uniform(-60, 60, 18)]
    rows, labels = [], []
    for points in (12, 12, 100):
        for group, angle in enumerate(angles):
            x, y = sklearn.datasets.make_moons(points, noise=0.3, random_state=random)
            for right, up in x - np.array([0.5, 0.25]):
                turned = complex(right, up) * cmath.exp(1j * angle)
                rows.append([turned.real, turned.imag, group])
            labels.extend(y)
    return np.array(rows), np.array(labels)


SOURCES: dict[str, Callable[[], tuple[npt.NDArray[Any], npt.NDArray[Any]]]] = {
    "breast_cancer": lambda: sklearn.datasets.load_breast_cancer(return_X_y=True),
    "circles": lambda: sklearn.datasets.make_circles(1000, noise=0.1, factor=0.5, random_state=0),
    "diabetes": lambda: sklearn.datasets.load_diabetes(return_X_y=True, scaled=False),
    "digits": lambda: sklearn.datasets.load_digits(return_X_y=True),
    "iris": lambda: sklearn.datasets.load_iris(return_X_y=True),
    "moons": lambda: sklearn.datasets.make_moons(1000, noise=0.2, random_state=0),
    "rotated_moons": lambda: rotated_moons(),
    "wine": lambda: sklearn.datasets.load_wine(return_X_y=True),
}

# Sines and cosines differ in the last bit between platforms: these are hashed to four decimals.
COMPUTED = ("circles", "moons", "rotated_moons")

# Number of rows and SHA-256 of train, validation and test. Published numbers belong to these rows and to no others.
PINNED = {
    "breast_cancer": [
        (364, "21d9dee9cb47634b8fb62eb14c3988decdd484f73a5a1b7c5d9c404721eabbdc"),
        (91, "ef0ceb1381a12cd867e32c7c5f9dae6f5690f6e8eb78fd857c980e2b7943203a"),
        (114, "d127f07df360f857d157056a55b22c04c51680db5d3b81827b8ea039dd63778d"),
    ],
    "circles": [
        (640, "b6c6ee7020598f69327ef497f8b579032790fcfd00322892ba57be9cbace0b22"),
        (160, "91a10cbcf83edf1b95009222b2d6ed328dac8ac2455e54eb734d80771a95d658"),
        (200, "3295018cff54fb4c4f2fbe33d24d783ed4b792508fa382a67825a4ebf6c3b1af"),
    ],
    "diabetes": [
        (282, "4b33d0b43bd8abde0830565a6bda62e6debeb7aacf6a6aa1d99ff40fa4a21d86"),
        (71, "855e53cec91c781a92a182078d3757015ef6b4c043a72576e30b506c3a1a4505"),
        (89, "b4d44c8cf97c39d29c8a4ed9ed7ac32c22dfe7f25b1abd34dbb1683b9d51584f"),
    ],
    "digits": [
        (1149, "a1262e119e51e51364dcb7bc6f46073c76187da8303a11113c63909a0e8ee026"),
        (288, "a5ec1ea1ac6e00940597cfed25db2b14470f9a311d6a9457fc05a037ed0cbe81"),
        (360, "bdde269783a00ee6488580c4a7f04a18d9d5507dcbec64200ade7d3a05c98b97"),
    ],
    "iris": [
        (96, "b8985dadb99b0b634bd08098c3d75a94ed5a758eb5b6cc75e5373160f4d86d08"),
        (24, "eb5e08b57a5351967c7cc92b599541c919fa2726049295f33658d3d1c9a9fb8e"),
        (30, "7296772c7a3ce22b8e525c6ef22d34ec4f2f5bb4442a08783f15a97e386a9960"),
    ],
    "moons": [
        (640, "8729709ac8452650f3fe427742c4fa62faa1836da5b7fea9f0655d2c56927d76"),
        (160, "53d60a792b0f97beef231fa685315ed07eb103d898dac56db71fbfc8e76d7b79"),
        (200, "4bce80bc241470e825d1205b8682ab865c2af22a97c048fd06ea0a8d077ac2cd"),
    ],
    "rotated_moons": [
        (216, "7540f9ed8d8d0382328b70b26ee80b6c7c89f1b54ce698b0ced0ecb14c2d1472"),
        (216, "2dcce0adedd12676355c21a0e8a432cb6c3024f7d89e3970ee92c377c7f8d28a"),
        (1800, "88e0b0387c4d56453e47a6ddc271482c1cc620d3aa63e4cc504f09c3ab9c6673"),
    ],
    "wine": [
        (113, "7fa7747eb0cc85c59b253f2801c18ae7f52d130596db57343a17041ae75c6673"),
        (29, "fcd4b7dba9346cf3b0ba71757a5b587e71427d28bd2f47630e15cce07f9e3d8c"),
        (36, "c4bb1fa22cf5cfc2d851fcfa2a9352121223baf9c80c9a5cb26902ed6d54dfb9"),
    ],
}

# The same for those that tensorflow-datasets prepares: the last 10,000 training images are the validation split.
PREPARED = {
    "fashion_mnist": [
        (50000, "267f630e3f6bc449067b86e71ae27621b145b41d5e8bcd7784cc1e7bef951711"),
        (10000, "a8e8c030d38d6e08e5415844bb971847bb729ed59c1947accdd2abe8b0c1be58"),
        (10000, "303d266957a881e810afa7b3030d59e4f10f6b2ab2c3b03cf20e177d30040aa1"),
    ],
    "mnist": [
        (50000, "911324ecbffd391742066170fbd8e814a1c44ae21ec5cfbc23ce7cc333ac8e69"),
        (10000, "1c9e31a6f4b6ea320d183db7cae3ba1bf5b3debe194beba51b3e1a7c8fdf810e"),
        (10000, "cc0f0e6abba8cb2cb5d829e9e6906e71f4ee76d3fa29cdbdced4f28d3daa6eef"),
    ],
}

INPUT_SHAPES = {
    "breast_cancer": (30,),
    "circles": (2,),
    "diabetes": (10,),
    "digits": (8, 8, 1),
    "iris": (4,),
    "moons": (2,),
    "rotated_moons": (3,),
    "wine": (13,),
}

embedded = pytest.mark.parametrize("name", sorted(PINNED))


def digest(split: Split, decimals: int | None) -> str:
    """Of shapes and little-endian bytes, floating-point numbers rounded to `decimals` if given."""
    sha = hashlib.sha256()
    for array in (split.x, split.y):
        if decimals is not None and array.dtype.kind == "f":
            # Adding 0 turns -0 into 0.
            array = array.astype(np.float64).round(decimals) + 0.0
        sha.update(str(array.shape).encode())
        sha.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return sha.hexdigest()


def rows_of(x: npt.NDArray[Any], y: npt.NDArray[Any]) -> Counter[bytes]:
    table = np.concatenate([x.reshape(len(x), -1), y.reshape(len(y), -1)], axis=1).astype(np.float32)
    return Counter(row.tobytes() for row in table)


def with_split(split_name: str, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> Dataset:
    """Iris with one split replaced."""
    return dataclasses.replace(load_dataset("iris"), **{split_name: Split(x, y)})


# === What the embedded datasets hold ===


@embedded
def test_splits_are_the_pinned_ones(name: str) -> None:
    dataset = load_dataset(name)
    decimals = 4 if name in COMPUTED else None
    splits = [dataset.split(split_name) for split_name in SPLIT_NAMES]
    assert [(len(split), digest(split, decimals)) for split in splits] == PINNED[name]


@embedded
def test_splits_cover_every_row_once_and_share_none(name: str) -> None:
    dataset = load_dataset(name)
    splits = [rows_of(dataset.split(split_name).x, dataset.split(split_name).y) for split_name in SPLIT_NAMES]
    train, validation, test = splits
    assert train + validation + test == rows_of(*SOURCES[name]())
    assert not train & validation
    assert not train & test
    assert not validation & test


@embedded
def test_shapes_dtypes_and_names(name: str) -> None:
    dataset = load_dataset(name)
    assert dataset.name == name
    assert dataset.input_shape == INPUT_SHAPES[name]
    assert dataset.description
    assert dataset.source
    for split_name in SPLIT_NAMES:
        split = dataset.split(split_name)
        assert split.x.dtype == np.float32
        if dataset.task == "classification":
            assert split.y.dtype == np.int64
            assert split.y.shape == (len(split),)
        else:
            assert split.y.dtype == np.float32
            assert split.y.shape == (len(split), 1)


@pytest.mark.parametrize("name", sorted(PINNED.keys() - {"diabetes"}))
def test_classes_keep_their_share_of_each_split(name: str) -> None:
    dataset = load_dataset(name)
    _, labels = SOURCES[name]()
    share = np.bincount(labels) / len(labels)
    assert dataset.num_classes == len(share)
    for split_name in SPLIT_NAMES:
        split = dataset.split(split_name)
        assert np.abs(np.bincount(split.y) - share * len(split)).max() < 2


def test_digits_keep_their_raw_pixels() -> None:
    x = load_dataset("digits").train.x
    assert set(np.unique(x)) == set(range(17))


def test_regression_has_no_classes() -> None:
    dataset = load_dataset("diabetes")
    assert dataset.task == "regression"
    assert dataset.class_names is None
    assert dataset.num_classes is None


def test_a_dataset_is_made_afresh_at_each_call() -> None:
    load_dataset("iris").train.x[:] = 0
    assert load_dataset("iris").train.x.all()


# === What tensorflow-datasets has prepared ===


@pytest.fixture(scope="module", params=sorted(PREPARED))
def prepared(request: pytest.FixtureRequest) -> Dataset:
    try:
        return load_dataset(request.param)
    except DataMissingError:
        pytest.skip(
            f"{request.param} is not prepared: set TFDS_DATA_DIR to a folder of tensorflow-datasets that has it"
        )


def test_prepared_splits_are_the_pinned_ones(prepared: Dataset) -> None:
    splits = [prepared.split(split_name) for split_name in SPLIT_NAMES]
    assert [(len(split), digest(split, None)) for split in splits] == PREPARED[prepared.name]


def test_prepared_images_and_labels(prepared: Dataset) -> None:
    assert prepared.task == "classification"
    assert prepared.input_shape == (28, 28, 1)
    assert prepared.num_classes == 10
    assert prepared.feature_names is None
    assert "tensorflow-datasets" in prepared.source
    assert prepared.description
    for split_name in SPLIT_NAMES:
        split = prepared.split(split_name)
        assert (split.x.dtype, split.y.dtype) == (np.uint8, np.int64)
        assert (split.x.min(), split.x.max()) == (0, 255)
        assert set(np.unique(split.y)) == set(range(10))
        # Not sorted by class: a tenth of each split, more or less.
        assert np.abs(np.bincount(split.y) / len(split) - 0.1).max() < 0.02
    names = {"mnist": tuple("0123456789"), "fashion_mnist": ("T-shirt/top", "Trouser", "Pullover")}
    assert prepared.class_names[: len(names[prepared.name])] == names[prepared.name]


def test_prepared_splits_share_no_image_by_chance(prepared: Dataset) -> None:
    """Fashion-MNIST has a few images twice; a split that overlaps another would have thousands."""
    images = [{row.tobytes() for row in prepared.split(split_name).x} for split_name in SPLIT_NAMES]
    train, validation, test = images
    assert max(len(train & validation), len(train & test), len(validation & test)) < 50


def test_data_that_are_not_here_are_named_with_the_way_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds, "builder", functools.partial(tfds.builder, data_dir=tmp_path))
    with pytest.raises(
        DataMissingError, match=r"'mnist' is not prepared: .*TFDS_DATA_DIR.*load\(\"mnist\"\)"
    ) as caught:
        load_dataset("mnist")
    assert str(tmp_path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("features", "splits", "message"),
    [
        ({"text": SimpleNamespace()}, ["train", "test"], "is no classification of images of one size"),
        ({"image": SimpleNamespace(shape=(None, None, 3))}, ["train", "test"], "of images of one size"),
        ({"image": SimpleNamespace(shape=(9, 9)), "label": SimpleNamespace(num_classes=2)}, ["train"], "one size"),
        ({"image": SimpleNamespace(shape=(8, 8, 3)), "label": SimpleNamespace()}, ["train", "test"], "no classific"),
        (
            {"image": SimpleNamespace(shape=(8, 8, 3)), "label": SimpleNamespace(num_classes=2)},
            ["train"],
            "'test' were",
        ),
    ],
)
def test_sets_that_are_no_image_classification_are_refused(
    features: dict[str, Any], splits: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow_datasets as tfds

    info = SimpleNamespace(features=features, splits=dict.fromkeys(splits))
    monkeypatch.setattr(tfds, "builder", lambda name: SimpleNamespace(is_prepared=lambda: True, info=info))
    with pytest.raises(ValueError, match=message):
        load_dataset("cifar10")


# === Names ===


def test_names_of_tensorflow_datasets_are_known_without_their_data() -> None:
    assert check_dataset_name("cifar10") == "cifar10"
    assert "cifar10" not in list_datasets()
    assert {"mnist", "fashion_mnist"} <= set(list_datasets())
    with pytest.raises(ValueError, match=r"Unknown dataset 'cifar1'\. Did you mean 'cifar10"):
        check_dataset_name("cifar1")


def test_every_registration_in_the_package_is_found() -> None:
    files = Path(zoo.datasets.__file__).parent.glob("*.py")
    registrations = sum(file.read_text(encoding="utf-8").count("\n@DATASETS.register(") for file in files)
    assert [DATASETS.package_of(name) for name in DATASETS].count("zoo") == registrations
    assert set(PINNED) <= set(list_datasets())
    assert list_datasets() == sorted(DATASETS)


def test_unknown_dataset_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"Unknown dataset 'digit'\. Did you mean 'digits'\?"):
        load_dataset("digit")


def test_unknown_split_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"split of the dataset 'iris': 'tests'\. Did you mean 'test'\?"):
        load_dataset("iris").split("tests")


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="'iris' is already registered"):
        DATASETS.register("iris")(lambda: load_dataset("wine"))


# === Datasets that contradict themselves ===


@pytest.mark.parametrize("split_name", SPLIT_NAMES)
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((0, 4)), np.zeros(0, int), "got 0 rows, expected at least one"),
        (np.zeros((2, 4)), np.zeros(3, int), r"got 2 rows of x and y of shape \(3,\)"),
        (np.zeros((2, 4)), np.int64(0), r"got 2 rows of x and y of shape \(\)"),
        (np.zeros(2), np.zeros(2, int), r"got x of shape \(2,\)"),
        (np.diag([0, np.nan, 0, 0]), np.zeros(4, int), r"got 1 NaN .* in x, the first at index \(1, 1\)"),
        (np.full((2, 4), np.inf), np.zeros(2, int), "got 8 NaN or infinite values in x"),
        (np.full((2, 4), "a"), np.zeros(2, int), "got x of dtype <U1, expected numbers"),
        (np.zeros((2, 4)), np.array([0, 3]), "got labels from 0 to 3, expected 0 to 2 for 3 class names"),
        (np.zeros((2, 4)), np.array([-1, 0]), "got labels from -1 to 0"),
        (np.zeros((2, 4)), np.zeros(2), r".* dtype float64, expected integer labels .* y\.astype"),
        (np.zeros((2, 4)), np.eye(3, dtype=int)[:2], r"got y of shape \(2, 3\) .* y\.argmax\(axis=1\)"),
    ],
)
def test_a_bad_split_is_refused(split_name: str, x: npt.NDArray[Any], y: npt.NDArray[Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"Dataset 'iris', split '{split_name}': {message}"):
        with_split(split_name, x, y)


def test_splits_of_different_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"split 'test': got x of shape \(2, 5\), expected \(rows, \*\(4,\)\)"):
        with_split("test", np.zeros((2, 5)), np.zeros(2, int))


def test_a_feature_name_is_needed_for_every_column() -> None:
    with pytest.raises(ValueError, match=r"rows of shape \(4,\), expected \(1,\), one column per feature name"):
        dataclasses.replace(load_dataset("iris"), feature_names=("sepal length",))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("iris", {"task": "classificaton"}, "Dataset 'iris': Unknown task .* Did you mean 'classification'"),
        ("iris", {"class_names": None}, "got class_names=None, expected at least two names"),
        ("iris", {"class_names": ("setosa",)}, "expected at least two names"),
        ("diabetes", {"class_names": ("ill", "well")}, "expected None for regression"),
    ],
)
def test_names_that_do_not_fit_the_task_are_refused(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(load_dataset(name), **changes)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros(2, np.float32), r"got y of shape \(2,\) .* y\.reshape\(-1, 1\)"),
        (np.zeros((2, 1), int), ".* dtype int64, expected floating-point targets"),
        (np.array([[0.0], [np.nan]]), r"got 1 NaN or infinite values in y, the first at index \(1, 0\)"),
    ],
)
def test_bad_regression_targets_are_refused(y: npt.NDArray[Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"Dataset 'diabetes', split 'train': {message}"):
        dataclasses.replace(load_dataset("diabetes"), train=Split(np.zeros((2, 10)), y))


@pytest.mark.parametrize(("group", "text"), [(18, "18"), (-1, "-1"), (0.5, "0.5")])
def test_groups_that_do_not_exist_are_refused(group: float, text: str) -> None:
    dataset = load_dataset("rotated_moons")
    assert dataset.num_groups == 18
    message = f"split 'test': got the group {text} in the last column of x, expected 0 to 17 for num_groups=18"
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(dataset, test=Split(np.array([[0.0, 0.0, group]]), np.zeros(1, int)))


def test_groups_are_turned_by_another_angle_with_another_seed() -> None:
    one, other = planar.rotated_moons(seed=1), planar.rotated_moons(seed=2)
    np.testing.assert_array_equal(one.train.x, planar.rotated_moons(seed=1).train.x)
    assert (one.train.x[:, :2] != other.train.x[:, :2]).all()
    for split_name, points in (("train", 12), ("validation", 12), ("test", 100)):
        np.testing.assert_array_equal(np.bincount(one.split(split_name).x[:, 2].astype(int)), np.full(18, points))


def test_datasets_are_frozen() -> None:
    dataset = load_dataset("iris")
    with pytest.raises(dataclasses.FrozenInstanceError):
        dataset.name = "wine"  # type: ignore[misc]

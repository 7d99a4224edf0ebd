"""The embedded datasets hold what scikit-learn gives, those of tensorflow-datasets what is prepared, in fixed splits.

A dataset that contradicts itself is refused. The tests of MNIST and Fashion-MNIST run where `TFDS_DATA_DIR` has them.
"""

from __future__ import annotations

import cmath
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

from zoo.datasets import (
    DataMissingError,
    Dataset,
    Split,
    load_dataset,
)
from zoo.datasets.base import SPLIT_NAMES
from zoo.datasets.tfds_images import load_tfds_images

from .dataset_parts import PINNED


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
# The same for those that tensorflow-datasets prepares: the validation split is the last 10,000 training images, and
# the last 5,000 for CIFAR-10.
PREPARED = {
    "cifar10": [
        (45000, "132a0a3440eb7536aae1574416cc245c0c662d3bd2d133a378e7eb51fe8d49fc"),
        (5000, "958310f59795c1b682e38990c22577654bb2b4f111ad5f069a44a8fed4ee5ccd"),
        (10000, "1c3ac3c662a888b706a8df5bdfa7a6a6e6f2ede034dc519f708d51b7a9932fe1"),
    ],
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
    assert dataset.citation
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


@pytest.fixture(
    scope="module",
    params=["mnist", *[pytest.param(name, marks=pytest.mark.slow) for name in ("fashion_mnist", "cifar10")]],
)
def prepared(request: pytest.FixtureRequest) -> Dataset:
    try:
        return load_dataset(request.param)
    except DataMissingError:
        pytest.skip(
            f"{request.param} is not prepared: set TFDS_DATA_DIR to a folder of tensorflow-datasets that has it"
        )


def test_prepared_splits_are_the_pinned_ones(prepared: Dataset) -> None:
    assert set(PREPARED) == {"cifar10", "fashion_mnist", "mnist"}
    splits = [prepared.split(split_name) for split_name in SPLIT_NAMES]
    assert [(len(split), digest(split, None)) for split in splits] == PREPARED[prepared.name]


def test_prepared_images_and_labels(prepared: Dataset) -> None:
    assert prepared.task == "classification"
    assert prepared.input_shape == ((32, 32, 3) if prepared.name == "cifar10" else (28, 28, 1))
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
    names = {
        "cifar10": ("airplane", "automobile", "bird"),
        "fashion_mnist": ("T-shirt/top", "Trouser", "Pullover"),
        "mnist": tuple("0123456789"),
    }
    assert prepared.class_names[: len(names[prepared.name])] == names[prepared.name]


def test_prepared_splits_share_no_image_by_chance(prepared: Dataset) -> None:
    """Fashion-MNIST has a few images twice; a split that overlaps another would have thousands."""
    images = [{row.tobytes() for row in prepared.split(split_name).x} for split_name in SPLIT_NAMES]
    train, validation, test = images
    assert max(len(train & validation), len(train & test), len(validation & test)) < 50


def test_data_that_are_not_here_are_named_with_the_way_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow_datasets  # noqa: F401  reads the variable now, and never again

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(
        DataMissingError, match=r"'mnist' is not prepared: .*TFDS_DATA_DIR.*load\(\"mnist\"\)"
    ) as caught:
        load_dataset("mnist")
    assert str(tmp_path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("features", "splits", "message"),
    [
        ({"text": SimpleNamespace()}, ["train", "test"], "is not a classification of images of one size"),
        ({"image": SimpleNamespace(shape=(None, None, 3))}, ["train", "test"], "of images of one size"),
        ({"image": SimpleNamespace(shape=(9, 9)), "label": SimpleNamespace(num_classes=2)}, ["train"], "one size"),
        ({"image": SimpleNamespace(shape=(8, 8, 3)), "label": SimpleNamespace()}, ["train", "test"], "not a classific"),
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
    monkeypatch.setattr(tfds, "builder", lambda name, data_dir: SimpleNamespace(is_prepared=lambda: True, info=info))
    with pytest.raises(ValueError, match=message):
        load_dataset("cifar100")


@pytest.mark.parametrize("held", [0, 6, 7])
def test_a_validation_split_leaves_both_parts_rows(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow_datasets as tfds

    info = SimpleNamespace(
        features={"image": SimpleNamespace(shape=(8, 8, 1)), "label": SimpleNamespace(num_classes=2)},
        splits={"train": None, "test": None},
    )
    six = {"image": np.zeros((6, 8, 8, 1), np.uint8), "label": np.zeros(6)}
    builder = SimpleNamespace(is_prepared=lambda: True, info=info, as_dataset=lambda **how: six)
    monkeypatch.setattr(tfds, "builder", lambda name, data_dir: builder)
    monkeypatch.setattr(tfds, "as_numpy", lambda arrays: arrays)
    with pytest.raises(ValueError, match=f"`num_validation` got {held}: .* has 6 images of training"):
        load_tfds_images("cifar100", held)

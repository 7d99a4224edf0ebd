"""Names of datasets that do not exist, and datasets that contradict themselves."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import zoo.datasets
from zoo.datasets import (
    DATASETS,
    Dataset,
    Split,
    check_dataset_name,
    list_datasets,
    load_dataset,
    planar,
)
from zoo.datasets.base import SPLIT_NAMES

from .dataset_parts import PINNED


def with_split(split_name: str, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> Dataset:
    """Iris with one split replaced."""
    return dataclasses.replace(load_dataset("iris"), **{split_name: Split(x, y)})


# === Names ===


def test_names_of_tensorflow_datasets_are_known_without_their_data() -> None:
    assert check_dataset_name("cifar100") == "cifar100"
    assert "cifar100" not in list_datasets()
    assert {"cifar10", "mnist", "fashion_mnist"} <= set(list_datasets())
    with pytest.raises(ValueError, match=r"Unknown dataset 'cifar1'\. Did you mean 'cifar10"):
        check_dataset_name("cifar1")


def test_every_registration_in_the_package_is_found() -> None:
    files = Path(zoo.datasets.__file__).parent.glob("*.py")
    registrations = sum(file.read_text(encoding="utf-8").count("\n@DATASETS.register(") for file in files)
    assert len(DATASETS) == registrations
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
        ("iris", {"class_names": ("a", "b", "a")}, "got 'a' 2 times in class_names, expected each name once"),
        ("iris", {"feature_names": ("u", "v", "w", "u")}, "got 'u' 2 times in feature_names"),
        ("diabetes", {"target_units": ("mm", "kg")}, "expected 1 names, one for each target"),
        ("iris", {"target_units": ("mm",)}, "expected None for classification"),
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

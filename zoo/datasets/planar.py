"""Noisy classes in the plane, where a predictive distribution can be plotted."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.datasets import make_circles, make_moons

from zoo.datasets.base import DATASETS, GENERATED, Dataset, Split, split_rows

NUM_POINTS = 1000
POINT_SEED = 0
NUM_GROUPS = 18
_CITATION = (
    "F. Pedregosa et al., Scikit-learn: Machine Learning in Python, Journal of Machine Learning Research 12, "
    "2825-2830, 2011"
)
GROUP_POINTS = {"train": 12, "validation": 12, "test": 100}


@DATASETS.register("moons")
def moons() -> Dataset:
    """Two interleaved half circles, 1,000 points with noise of standard deviation 0.2."""
    x, y = make_moons(NUM_POINTS, noise=0.2, random_state=POINT_SEED)
    return _planar(
        "moons",
        x,
        y,
        class_names=("upper", "lower"),
        description="Two interleaved half circles of 500 points each, with normal noise of standard deviation 0.2.",
        source="sklearn.datasets.make_moons",
    )


@DATASETS.register("circles")
def circles() -> Dataset:
    """A circle around another of half its radius, 1,000 points with noise of standard deviation 0.1."""
    x, y = make_circles(NUM_POINTS, noise=0.1, factor=0.5, random_state=POINT_SEED)
    return _planar(
        "circles",
        x,
        y,
        class_names=("outer", "inner"),
        description="Circles of radius 1 and 0.5 about the origin, 500 points each, with normal noise of standard "
        "deviation 0.1.",
        source="sklearn.datasets.make_circles",
    )


@DATASETS.register("rotated_moons")
def rotated_moons(seed: int = POINT_SEED) -> Dataset:
    """Two interleaved half circles in 18 groups, each rotated by its own angle, with 12 training points per group.

    For hierarchical models: a group has too few points for its own model, and a single model for all groups cannot know
    the angles.

    Args:
        seed: Seed of angles and points. Default: that of the registered dataset.
    """
    random = np.random.RandomState(seed)
    angles = np.deg2rad(random.uniform(-60, 60, NUM_GROUPS))
    splits: dict[str, Any] = {}
    for name, points in GROUP_POINTS.items():
        groups = [_turned_moons(points, angle, group, random) for group, angle in enumerate(angles)]
        x, y = (np.concatenate(parts) for parts in zip(*groups, strict=True))
        splits[name] = Split(x.astype(np.float32), y.astype(np.int64))
    return Dataset(
        name="rotated_moons",
        task="classification",
        **splits,
        feature_names=("x1", "x2", "group"),
        class_names=("upper", "lower"),
        description="Two interleaved half circles with normal noise of standard deviation 0.3, in 18 groups. Each is "
        "turned about the middle of its circles by an angle of its own, between -60 and 60 degrees, and has 12 points "
        "for training, 12 for validation and 100 for testing. The last column is the group.",
        source="sklearn.datasets.make_moons",
        num_groups=NUM_GROUPS,
        license=GENERATED,
        citation=_CITATION,
    )


def _turned_moons(
    points: int, angle: float, group: int, random: np.random.RandomState
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    x, y = make_moons(points, noise=0.3, random_state=random)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.column_stack([(x - (0.5, 0.25)) @ turn, np.full(points, group)]), y


def _planar(
    name: str, x: npt.NDArray[Any], y: npt.NDArray[Any], *, class_names: tuple[str, str], description: str, source: str
) -> Dataset:
    return Dataset(
        name=name,
        task="classification",
        **split_rows(x.astype(np.float32), y.astype(np.int64), stratify=True),
        feature_names=("x1", "x2"),
        class_names=class_names,
        description=description,
        source=source,
        license=GENERATED,
        citation=_CITATION,
    )

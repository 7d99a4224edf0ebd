"""Two noisy classes in the plane, where a predictive distribution can be looked at."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.datasets import make_circles, make_moons

from zoo.datasets.base import DATASETS, Dataset, split_rows

NUM_POINTS = 1000
POINT_SEED = 0


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
    )

"""A tiny dataset of images, and a network for it."""

from __future__ import annotations

from typing import Any

import numpy as np

import zoo
from zoo.datasets import Dataset, Split

SIDE, CLASSES = 8, 3


def tiny_images(name: str = "tiny_images", seed: int = 0, rows: int = 60, side: int = SIDE) -> Dataset:
    """Grey images of a bright row whose height tells the class, with noise, uint8."""
    rng = np.random.default_rng(seed)

    def split(count: int) -> Split:
        labels = rng.integers(CLASSES, size=count)
        images = rng.integers(0, 120, size=(count, side, side, 1))
        for image, label in zip(images, labels, strict=True):
            image[2 * label + 1] += 130
        return Split(images.astype(np.uint8), labels)

    return Dataset(
        name=name,
        task="classification",
        train=split(rows),
        validation=split(rows),
        test=split(rows),
        feature_names=None,
        class_names=("top", "middle", "bottom"),
        description="Bright rows.",
        source="Made here.",
    )


def tiny_classifier(num_outputs: int = CLASSES) -> Any:
    """An untrained network, which is unsure of most images."""
    # tanh, because dead units would make entropies equal.
    settings = {"hidden": (4,), "activation": "tanh", "pixel_max": 40.0}
    return zoo.create_model("mlp_flipout", input_shape=(SIDE, SIDE, 1), num_outputs=num_outputs, **settings)

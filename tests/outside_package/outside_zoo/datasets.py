"""Three noisy rings in the plane."""

import numpy as np

import zoo
from zoo.datasets import Dataset, Split


@zoo.register_dataset("outside_rings")
def outside_rings():
    """Three rings about the origin, 600 points."""
    random = np.random.default_rng(0)
    label = random.integers(3, size=600)
    angle = random.uniform(0, 2 * np.pi, 600)
    radius = label + 0.5 + random.normal(scale=0.1, size=600)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype("float32")
    return Dataset(
        name="outside_rings",
        task="classification",
        train=Split(points[:400], label[:400]),
        validation=Split(points[400:500], label[400:500]),
        test=Split(points[500:], label[500:]),
        feature_names=("x", "y"),
        class_names=("inner", "middle", "outer"),
        description="Three rings of radius 0.5, 1.5 and 2.5, with normal noise of standard deviation 0.1.",
        source="numpy",
    )

"""Handwritten digits of 8 x 8 pixels, an image dataset that needs no download."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from zoo.datasets.base import DATASETS, Dataset, split_rows


@DATASETS.register("digits")
def digits() -> Dataset:
    """Ten handwritten digits, 1,797 images of shape `(8, 8, 1)` with pixel values from 0 to 16."""
    table = load_digits()
    return Dataset(
        name="digits",
        task="classification",
        **split_rows(table.images[..., np.newaxis].astype(np.float32), table.target.astype(np.int64), stratify=True),
        feature_names=None,
        class_names=tuple(str(label) for label in table.target_names),
        description="Handwritten digits 0 to 9 of 13 writers, as 8 x 8 counts of dark pixels from 0 to 16.",
        source="E. Alpaydin, C. Kaynak, Optical recognition of handwritten digits (the test part), 1998, UCI Machine "
        "Learning Repository; via sklearn.datasets.load_digits.",
        license="CC BY 4.0",
        citation="E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, "
        "1998, https://doi.org/10.24432/C50P49",
    )

"""Image-classification datasets of tensorflow-datasets by name: `mnist`, `fashion_mnist`, `cifar10`, ..."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from zoo.datasets.base import DATASETS, DataMissingError, Dataset, Split

# Share of the training split that is held out where no number is given.
_VALIDATION_FRACTION = 1 / 6
# Of the pages of the datasets; tensorflow-datasets does not tell.
_LICENSES = {"mnist": "CC BY-SA 3.0", "fashion_mnist": "MIT"}


def load_tfds_images(name: str, num_validation: int | None = None) -> Dataset:
    """Loads an image-classification dataset prepared by tensorflow-datasets, in its original order.

    Images are uint8 of shape `(height, width, channels)`, labels are int64. The test split is that of the dataset. So
    is the validation split if there is one; otherwise it is the end of the training split.

    Args:
        name: Name of a builder of tensorflow-datasets.
        num_validation: Number of images at the end of the training split that are held out for validation, if there is
            no validation split. Default: a sixth of them.

    Returns:
        The dataset.

    Raises:
        DataMissingError: If it is not prepared in `TFDS_DATA_DIR`. Nothing is downloaded.
        ValueError: If it is not an image classification, its images differ in size, it has no test split, or
            `num_validation` leaves no image for a split.
    """
    import tensorflow_datasets as tfds

    # tensorflow-datasets reads the variable once, when it is imported.
    builder = tfds.builder(name, data_dir=os.environ.get("TFDS_DATA_DIR") or None)
    if not builder.is_prepared():
        raise DataMissingError(
            f"The dataset {name!r} is not prepared: expected it in {str(builder.data_dir)!r}. Set TFDS_DATA_DIR to the "
            "folder that has it, or download it with: "
            f"python -c 'import tensorflow_datasets; tensorflow_datasets.load(\"{name}\")'"
        )
    info = builder.info
    _check_features(name, info.features)
    if "train" not in info.splits or "test" not in info.splits:
        raise ValueError(
            f"The dataset {name!r} has the splits {sorted(info.splits)}; 'train' and 'test' were expected."
        )

    def read(split: str) -> Split:
        arrays = tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1, shuffle_files=False))
        return Split(arrays["image"], arrays["label"].astype(np.int64))

    train = read("train")
    if "validation" in info.splits:
        validation = read("validation")
    else:
        held = round(len(train) * _VALIDATION_FRACTION) if num_validation is None else num_validation
        if not 0 < held < len(train):
            raise ValueError(
                f"`num_validation` got {held}: the dataset {name!r} has {len(train):,} images of training, of which at "
                "least one is held out and one is kept."
            )
        kept = len(train) - held
        train, validation = Split(train.x[:kept], train.y[:kept]), Split(train.x[kept:], train.y[kept:])
    return Dataset(
        name=name,
        task="classification",
        train=train,
        validation=validation,
        test=read("test"),
        feature_names=None,
        class_names=tuple(info.features["label"].names),
        description=" ".join(info.description.split()),
        source=f"{info.homepage}; via tensorflow-datasets, {info.full_name}.",
        license=_LICENSES.get(name),
        citation=" ".join(info.citation.split()) or None,
    )


@DATASETS.register("mnist")
def mnist() -> Dataset:
    """Handwritten digits, 70,000 images of shape `(28, 28, 1)`, uint8; from tensorflow-datasets."""
    return load_tfds_images("mnist", num_validation=10_000)


@DATASETS.register("fashion_mnist")
def fashion_mnist() -> Dataset:
    """Articles of clothing, 70,000 images of shape `(28, 28, 1)`, uint8; from tensorflow-datasets."""
    return load_tfds_images("fashion_mnist", num_validation=10_000)


@DATASETS.register("cifar10")
def cifar10() -> Dataset:
    """Photographs of animals and vehicles, 60,000 images of shape `(32, 32, 3)`, uint8; from tensorflow-datasets."""
    return load_tfds_images("cifar10", num_validation=5_000)


def _check_features(name: str, features: Any) -> None:
    image, label = (features[key] if key in features else None for key in ("image", "label"))
    shape = getattr(image, "shape", None)
    if getattr(label, "num_classes", None) is None or not shape or len(shape) != 3 or None in shape:
        raise ValueError(
            f"The dataset {name!r} is not a classification of images of one size: expected the features 'image', of a "
            f"fixed shape (height, width, channels), and 'label', a class; found {features!r}."
        )

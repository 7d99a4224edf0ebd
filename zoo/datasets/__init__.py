"""Datasets with fixed train, validation and test splits, by name.

Every module of this package is imported here, so a new file that registers a dataset in `DATASETS` is all that it takes
to add one.
"""

from __future__ import annotations

import importlib
import pkgutil

from zoo.datasets.base import DATASETS, Dataset, Split

__all__ = ["DATASETS", "Dataset", "Split", "list_datasets", "load_dataset"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


def list_datasets() -> list[str]:
    """The names that `load_dataset` takes, sorted."""
    return sorted(DATASETS)


def load_dataset(name: str) -> Dataset:
    """Loads a dataset by its name.

    Args:
        name: one of `list_datasets()`.

    Returns:
        The dataset, made afresh at each call: its arrays may be changed in place.

    Raises:
        ValueError: for an unknown name; the message gives the nearest.

    Example:
        >>> from zoo.datasets import load_dataset
        >>> iris = load_dataset("iris")
        >>> iris.train.x.shape, iris.num_classes
        ((96, 4), 3)
    """
    return DATASETS[name]()

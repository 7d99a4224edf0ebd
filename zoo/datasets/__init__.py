"""Datasets with fixed train, validation and test splits, by name.

Every module of this package is imported here, so a new file that registers a dataset is all it takes to add one. Other
packages register theirs with `register_dataset`.
"""

from __future__ import annotations

import importlib
import pkgutil

from tfp_bnn.core.plugins import load_plugins
from tfp_bnn.core.registry import unknown_name_message
from zoo.datasets.base import DATASETS, DataMissingError, Dataset, Split, register_dataset

__all__ = [
    "DATASETS",
    "DataMissingError",
    "Dataset",
    "Split",
    "check_dataset_name",
    "list_datasets",
    "load_dataset",
    "register_dataset",
]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


def list_datasets() -> list[str]:
    """The names of the registered datasets, sorted; `load_dataset` knows those of tensorflow-datasets too.

    Raises:
        PluginError: When a plug-in fails to load.
    """
    load_plugins()
    return sorted(DATASETS)


def load_dataset(name: str) -> Dataset:
    """Loads a dataset by its name.

    Args:
        name: One of `list_datasets()`, or an image-classification dataset of tensorflow-datasets that is prepared in
            `TFDS_DATA_DIR`, such as `"cifar100"`.

    Returns:
        A new dataset at each call, whose arrays may be changed in place.

    Raises:
        ValueError: for an unknown name (the message gives the nearest), a set that is no image classification, or a
            registered function that returns something else than a `Dataset` of that name.
        PluginError: when a plug-in fails to load.
        DataMissingError: when the data are not on this machine; the message says how to get them.

    Example:
        >>> from zoo.datasets import load_dataset
        >>> iris = load_dataset("iris")
        >>> iris.train.x.shape, iris.num_classes
        ((96, 4), 3)
    """
    load_plugins()
    if check_dataset_name(name) in DATASETS:
        dataset = DATASETS[name]()
        # An artifact records this name, and `verify` loads the data by it.
        if not isinstance(dataset, Dataset) or dataset.name != name:
            raise ValueError(
                f"The function {DATASETS.origin_of(name)}, registered as the dataset {name!r}, returned "
                f"{getattr(dataset, 'name', dataset)!r}; a zoo.datasets.Dataset with name={name!r} was expected."
            )
        return dataset
    from zoo.datasets.tfds_images import load_tfds_images

    return load_tfds_images(name)


def check_dataset_name(name: str) -> str:
    """Returns the name if `load_dataset` knows it, even if its data are not on this machine.

    Raises:
        ValueError: If the name is unknown. The message gives the nearest.
    """
    if name in DATASETS:
        return name
    # Only for other names, because the import takes a while.
    import tensorflow_datasets as tfds

    of_tfds = tfds.list_builders(with_community_datasets=False)
    if name not in of_tfds:
        raise ValueError(unknown_name_message("dataset", name, sorted({*DATASETS, *of_tfds})))
    return name

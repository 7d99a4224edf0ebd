"""What the command line refuses before it imports TensorFlow, which takes seconds: names, trust, files.

Only what is certain is refused. Plug-ins may register further recipes and datasets, and are only known once they are
imported.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from zoo.core.declared import Declarations
from zoo.core.names import unknown_name_message
from zoo.core.paths import found_inputs
from zoo.core.shown import shown
from zoo.hub.locating import locate
from zoo.hub.manifest import bundled_models
from zoo.hub.remote.addresses import is_address, parse_address

ZOO = Path(__file__).parents[1]
"""Folder of the package."""
# Of `tfp_bnn.core.plugins`, which cannot be imported without TensorFlow.
_GROUP, _VARIABLE = "tfp_bnn.plugins", "TFP_BNN_PLUGINS"
_DATASETS = Declarations(ZOO / "datasets")


def check_model(name: str, trust: bool = True) -> None:
    """Checks the name of a pretrained model, or the folder or address of an artifact.

    Args:
        name: Name, folder or address.
        trust: Whether `--trust` was given. A folder or an address needs it.

    Raises:
        ValueError: For an unknown name (the message gives the nearest), no artifact, or no trust.
    """
    models = bundled_models()
    if name in models:
        return
    if is_address(name):
        parse_address(name)
    else:
        tags = ", ".join(known for known in models if known.startswith(f"{name}."))
        if tags and not Path(name).is_dir():
            raise ValueError(f"{name!r} is an architecture without weights. Pretrained: {tags}.")
        locate(name)
    if not trust:
        kind = "an address" if is_address(name) else "a folder"
        raise ValueError(
            f"{shown(name)} is {kind} outside of the package. If you know where it comes from, give --trust; a bundled "
            "model is opened by its name."
        )


def check_criterion(name: str) -> None:
    """Checks the name of a criterion of pruning. Raises a ValueError for another."""
    known = Declarations(ZOO.parent / "tfp_bnn" / "compression").alias("Criterion").texts
    if name not in known:
        raise ValueError(unknown_name_message("criterion of pruning", name, known))


def check_recipe(source: str) -> None:
    """Checks the name of a recipe, or its file.

    Raises:
        ValueError: If there is no such recipe; the message gives the nearest.
    """
    if Path(source).suffix in (".yaml", ".yml"):
        if not Path(source).is_file():
            raise ValueError(f"There is no recipe file {source!r}.")
        return
    known = bundled_recipes()
    if source not in known and not may_have_plugins():
        raise ValueError(unknown_name_message("recipe", source, known) + " A file of your own must end in .yaml.")


def bundled_recipes() -> list[str]:
    """Returns the names of the zoo's recipes, sorted."""
    return sorted(path.stem for path in (ZOO / "recipes").glob("*.yaml"))


def check_dataset(name: str) -> None:
    """Checks the name of a dataset.

    Raises:
        ValueError: If there is no such dataset on this machine; the message gives the nearest.
    """
    known = registered_datasets()
    if name in known or may_have_plugins():
        return
    prepared = Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    if not re.fullmatch(r"\w+", name) or not (prepared / name).is_dir():
        raise ValueError(
            f"{unknown_name_message('dataset', name, known)} One of tensorflow-datasets has to be in "
            f"{str(prepared)!r} (TFDS_DATA_DIR): python -c 'import tensorflow_datasets as d; d.load(\"NAME\")'."
        )


def check_inputs(files: Sequence[str]) -> None:
    """Checks the inputs of `predict`: files, folders of images and patterns, or the name of a dataset alone.

    Raises:
        ValueError: If there is no such file. The message gives the nearest dataset for a word that could be one.
    """
    if len(files) == 1 and is_name_of_dataset(files[0]):
        try:
            check_dataset(files[0])
        except ValueError as error:
            raise ValueError(f"There is no file {files[0]!r}, nor a dataset: {error}") from None
        return
    found_inputs(files)


def is_name_of_dataset(name: str) -> bool:
    """Whether an input of `predict` can only be the name of a dataset."""
    return re.fullmatch(r"[a-z0-9_]+", name, re.ASCII) is not None and not Path(name).exists()


def registered_datasets() -> list[str]:
    """Returns the names of the zoo's datasets, sorted, read from the code that registers them."""
    return _DATASETS.registered("DATASETS.register")


def may_have_plugins() -> bool:
    """Whether there may be other names: of plug-ins that are installed, in the environment, or imported by --plugin."""
    named = "tfp_bnn" in sys.modules or os.environ.get(_VARIABLE)
    return bool(named or importlib.metadata.entry_points(group=_GROUP))

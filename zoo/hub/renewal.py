"""Writes the data, the licences and the cards of the bundled artifacts again: `python -m zoo.hub.renewal`.

Cards and descriptions are made from other files and from the datasets. After a change to either, this brings the
bundled artifacts up to date. Weights, metrics, recipes and golden outputs stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.core.files import write_atomically
from zoo.datasets import load_dataset
from zoo.hub.cards import model_card
from zoo.hub.manifest import (
    MANIFEST_NAME,
    bundled_models,
    describe_files,
    read_manifest,
    saved_models_folder,
    to_json,
    write_package_manifest,
)
from zoo.hub.members import number_of_members, split_records
from zoo.hub.reading import parse_tensors, read_artifact

LICENSE = "Apache-2.0"
"""Of this package, and so of the models in it."""


def renew(name: str) -> Path:
    """Renews the description of the data and the card of a bundled artifact.

    Args:
        name: Name of a bundled model, whose dataset is on this machine.

    Returns:
        Its folder.

    Raises:
        DataMissingError: If the dataset is not on this machine.
        ValueError: If a file is missing, changed or malformed.
    """
    folder, artifact = saved_models_folder() / name, read_artifact(name)
    config = artifact["config"]
    # The bundled models are part of this package.
    config["license"] = LICENSE
    config["data"] = {**config["data"], **load_dataset(config["data"]["dataset"]).about()}
    write_atomically(folder / "config.json", to_json(config))
    write_card(folder, config, artifact["metrics"])
    return folder


def write_card(folder: Path, config: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
    """Writes the card of an artifact, after another file in its folder was changed, and the manifest in the folder.

    Args:
        folder: Folder of the artifact. What is in it is trusted.
        config: Contents of `config.json`.
        metrics: Contents of `metrics.json`.

    Raises:
        ValueError: If the weights are malformed.
    """
    weights = folder / "weights.safetensors"
    arrays = parse_tensors(weights.read_bytes(), str(weights))
    records = split_records(arrays, number_of_members(config, str(folder)))
    recipe = (folder / "recipe.yaml").read_text("utf-8")
    write_atomically(folder / "README.md", model_card(config, metrics, recipe, *records))
    manifest = {**read_manifest(folder), "metrics": metrics.get("test", {}), "files": describe_files(folder)}
    write_atomically(folder / MANIFEST_NAME, to_json(manifest))


if __name__ == "__main__":
    for _name in bundled_models():
        print(renew(_name))
    print(write_package_manifest())

"""Reads what an artifact says, without building its model. Imports no TensorFlow: `tfp-bnn show` needs only this."""

from __future__ import annotations

import os
from typing import Any

import numpy.typing as npt
import safetensors
import safetensors.numpy

from zoo.hub.manifest import locate, parse_json, read_verified, require


def read_artifact(name_or_path: str | os.PathLike[str]) -> dict[str, Any]:
    """The verified `config`, `metrics`, `card` and `golden` arrays of an artifact, without building the model.

    Args:
        name_or_path: a name of the zoo, or else the path of an artifact's folder.

    Raises:
        ValueError: for an unknown name (names the nearest), or when any file is missing, changed or malformed.
    """
    folder, entry = locate(name_or_path)
    files = read_verified(folder, entry)
    return {
        "config": parse_json(require(files, "config.json", folder), str(folder / "config.json")),
        "metrics": parse_json(require(files, "metrics.json", folder), str(folder / "metrics.json")),
        "card": require(files, "README.md", folder).decode("utf-8"),
        "golden": parse_tensors(require(files, "golden.safetensors", folder), str(folder / "golden.safetensors")),
    }


def parse_tensors(data: bytes, what: str) -> dict[str, npt.NDArray[Any]]:
    """Parses safetensors that may come from anywhere.

    Args:
        data: the bytes of a file.
        what: it is, for messages.

    Raises:
        ValueError: when they are not safetensors of NumPy dtypes.
    """
    try:
        return safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{what} is not a safetensors file: {error}. Restore it from where it came.") from None

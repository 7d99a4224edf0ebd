"""Reading of artifacts without building their models. Imports no TensorFlow: `tfp-bnn show` only needs this module."""

from __future__ import annotations

import os
from typing import Any

import numpy.typing as npt
import safetensors
import safetensors.numpy

from zoo.hub.manifest import locate, parse_json, read_verified, require

REFERENCE_NAME = "reference.safetensors"
"""File of an artifact with the predictions of Markov chains for the test split; optional."""


def read_artifact(name_or_path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads the verified contents of an artifact, without building the model.

    Args:
        name_or_path: Name of a model of the zoo, or path of an artifact's folder.

    Returns:
        `config`, `metrics`, `card`, and the arrays by name in `golden` and `reference`; the last is empty if the
        artifact has no reference.

    Raises:
        ValueError: If the name is unknown (the message gives the nearest), or a file is missing, changed or malformed.
    """
    folder, entry = locate(name_or_path)
    files = read_verified(folder, entry)
    reference = files.get(REFERENCE_NAME)
    return {
        "config": parse_json(require(files, "config.json", folder), str(folder / "config.json")),
        "metrics": parse_json(require(files, "metrics.json", folder), str(folder / "metrics.json")),
        "card": require(files, "README.md", folder).decode("utf-8"),
        "golden": parse_tensors(require(files, "golden.safetensors", folder), str(folder / "golden.safetensors")),
        "reference": {} if reference is None else parse_tensors(reference, str(folder / REFERENCE_NAME)),
    }


def parse_tensors(data: bytes, what: str) -> dict[str, npt.NDArray[Any]]:
    """Parses safetensors from an untrusted source.

    Args:
        data: Bytes of a file.
        what: Description of the data in messages.

    Raises:
        ValueError: If they are not safetensors of NumPy dtypes.
    """
    try:
        return safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{what} is not a safetensors file: {error}. Restore it from where it came.") from None

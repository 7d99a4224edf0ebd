"""Reading of artifacts without building their models. Imports no TensorFlow: `tfp-bnn show` only needs this module."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.core.shown import shown
from zoo.core.untrusted import artifact_errors, parse_json
from zoo.core.validation import validate
from zoo.hub.locating import read_files
from zoo.hub.manifest import require
from zoo.hub.schemas import ArtifactConfig, Metrics

if TYPE_CHECKING:
    import numpy.typing as npt

_LENGTH = 8
# 6,000 tensors with names of 100 characters: those of an ensemble of 100 networks with 60 each.
_MAX_HEADER_BYTES = 2**20
# 10,000 columns with names of 200 characters, each with its range, mean and scale.
_MAX_CONFIG_BYTES = 2**22

REFERENCE_NAME = "reference.safetensors"
"""File of an artifact with the predictions of Markov chains for the test split; optional."""


@artifact_errors()
def read_artifact(name_or_path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads the verified contents of an artifact, without building the model.

    Args:
        name_or_path: Name of a model of the zoo, or folder or address of an artifact.

    Returns:
        `config`, `metrics`, `card`, and the arrays by name in `golden` and `reference`; the last is empty if the
        artifact has no reference.

    Raises:
        ArtifactError: If the name is unknown (the message gives the nearest), or a file is missing, changed or
            malformed.
    """
    folder, _, files = read_files(name_or_path)
    reference = files.get(REFERENCE_NAME)
    return {
        **read_texts(files, folder),
        "golden": parse_tensors(require(files, "golden.safetensors", folder), str(folder / "golden.safetensors")),
        "reference": {} if reference is None else parse_tensors(reference, str(folder / REFERENCE_NAME)),
    }


def read_texts(files: Mapping[str, bytes], folder: Path) -> dict[str, Any]:
    """Returns the validated `config` and `metrics`, the `card` and the text of the `recipe` of verified files.

    Raises:
        ValueError: If one is missing or malformed.
    """
    found: dict[str, Any] = {}
    for key, schema in (("config", ArtifactConfig), ("metrics", Metrics)):
        what = str(folder / f"{key}.json")
        value = parse_json_file(require(files, f"{key}.json", folder), what)
        if not isinstance(value, dict):
            raise ValueError(f"{what} holds {type(value).__name__}; a mapping of keys was expected.")
        # A model that was saved without measurements has no numbers.
        if value or key == "config":
            validate(schema, value, what)
        found[key] = value
    try:
        found["card"] = require(files, "README.md", folder).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{folder / 'README.md'} is not a text in UTF-8: {error}") from None
    found["recipe"] = files.get("recipe.yaml", b"").decode("utf-8", errors="replace")
    return found


def parse_json_file(data: bytes, what: str) -> Any:
    """Parses `config.json` or `metrics.json` from an untrusted source; see `zoo.core.untrusted.parse_json`."""
    return parse_json(data, what, _MAX_CONFIG_BYTES)


def parse_tensors(data: bytes, what: str) -> dict[str, npt.NDArray[Any]]:
    """Parses safetensors from an untrusted source.

    Args:
        data: Bytes of a file.
        what: Description of the data in messages.

    Raises:
        ValueError: If they are not safetensors of NumPy dtypes.
    """
    # Not at the top: a card is shown without tensors.
    import safetensors.numpy

    check_header(data, what)
    try:
        return safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        reason = shown(str(error))
        raise ValueError(f"{what} is not a safetensors file: {reason}. Restore it from where it came.") from None


def check_header(data: bytes, what: str) -> None:
    """Refuses safetensors whose header is too long, before it is parsed.

    Args:
        data: Bytes of a file.
        what: Description of the data in messages.

    Raises:
        ValueError: If it is.
    """
    # A header of many empty tensors costs hundreds of times its size.
    length = int.from_bytes(data[:_LENGTH], "little")
    if _LENGTH <= len(data) and _MAX_HEADER_BYTES < length <= len(data):
        raise ValueError(
            f"{what} has a header of {length} bytes; at most {_MAX_HEADER_BYTES} were expected. An artifact has fewer "
            "arrays: use fewer members or layers."
        )

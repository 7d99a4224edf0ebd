"""Index files, by which others publish a zoo of their own: names of models, their addresses and their hashes.

    schema: 1
    models:
      mlp_flipout.penguins:
        address: https://example.org/penguins
        sha256: 52bf...
        architecture: mlp_flipout
        dataset: penguins
        task: classification
        num_weights: 1230
        license: MIT
        metrics: {accuracy: 0.97, nll: 0.1}

An address is `https://host/folder`, `hf://user/name@revision`, or a folder relative to the index. The hash is that of
the artifact's `manifest.json`, which has those of all other files. Only these two are needed; the others are for lists.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, field_validator

from zoo.core.files import write_atomically
from zoo.core.names import check_name, unknown_name_message
from zoo.core.shown import shown
from zoo.core.untrusted import artifact_errors, open_regular
from zoo.core.validation import Strict, validate
from zoo.core.yaml_text import parse_mapping
from zoo.hub.locating import read_files
from zoo.hub.manifest import MANIFEST_NAME, check_sha256, digest
from zoo.hub.reading import read_texts
from zoo.hub.remote.addresses import is_address, parse_address
from zoo.hub.schemas import Count, Name, Numbers

INDEX_VERSION = 1
MAX_INDEX_BYTES = 2**18
MOST_MODELS = 1000

_RELATIVE = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$"


class IndexEntry(Strict):
    """A model in an index.

    Attributes:
        address: `https://host/folder`, `hf://user/name`, perhaps with `@revision`, or a folder relative to the index.
        sha256: SHA-256 of its `manifest.json`.
        architecture: Name of its architecture.
        dataset: Name of its dataset.
        task: Task of its likelihood.
        num_weights: Number of its weights.
        license: Its licence.
        metrics: Its numbers on the test split.
    """

    address: Annotated[str, Field(strict=True, max_length=1000)]
    sha256: Annotated[str, Field(strict=True, pattern=r"^[0-9a-fA-F]{64}$")]
    architecture: Name | None = None
    dataset: Name | None = None
    task: Name | None = None
    num_weights: Count | None = None
    license: Name | None = None
    metrics: Numbers = Field(default_factory=dict)


class Index(Strict):
    """An index file.

    Attributes:
        version: Version of the schema.
        models: The models by name.
    """

    version: Annotated[int, Field(strict=True, alias="schema", ge=1, le=INDEX_VERSION)]
    models: Annotated[dict[str, IndexEntry], Field(min_length=1, max_length=MOST_MODELS)]

    @field_validator("models")
    @classmethod
    def _names_of_the_zoo(cls, models: dict[str, IndexEntry]) -> dict[str, IndexEntry]:
        for name in models:
            check_name(name)
        return models


@artifact_errors()
def read_index(index: str | os.PathLike[str]) -> dict[str, IndexEntry]:
    """Reads an index file.

    Args:
        index: Path of the file, or its address, `https://...`. `#sha256=` and the SHA-256 of the file can follow that.

    Returns:
        The models by name, sorted. Each address is that of an artifact or the path of a folder.

    Raises:
        ArtifactError: If it is missing, larger than 256 KiB or malformed, cannot be downloaded, or does not have the
            SHA-256 of its address.
    """
    data = _download(index) if is_address(index) else _read(Path(index))
    what = f"The index {str(index)!r}"
    found = validate(Index, parse_mapping(data, what), what)
    return {name: _resolved(entry, index, f"{what}: {name}") for name, entry in sorted(found.models.items())}


@artifact_errors()
def find_in_index(name: str, index: str | os.PathLike[str]) -> IndexEntry:
    """Returns the entry of a model in an index.

    Raises:
        ArtifactError: As in `read_index`, or if there is no such model (the message gives the nearest).
    """
    models = read_index(index)
    if check_name(name) not in models:
        raise ValueError(f"The index {str(index)!r}: {unknown_name_message('model', name, models)}")
    return models[name]


def write_index(path: str | os.PathLike[str], models: Mapping[str, str]) -> Path:
    """Writes an index of published artifacts, which are fetched and verified first.

    Args:
        path: YAML file to write. One that exists is replaced.
        models: Address of each model by its name: `https://host/folder`, `hf://user/name@revision`, or a folder
            relative to the index.

    Returns:
        The path.

    Raises:
        ArtifactError: If an artifact cannot be fetched, or a file of it is missing, changed or malformed.
        ValueError: If a name or an address is malformed.
        OSError: If the file cannot be written.

    Example:
        >>> import tempfile, zoo
        >>> model = zoo.create_model("mlp_flipout", input_shape=(4,), num_outputs=3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     artifact = zoo.save_artifact(model, f"{folder}/untrained", license="MIT")
        ...     index = zoo.write_index(f"{folder}/index.yaml", {"mlp_flipout.untrained": "untrained"})
        ...     zoo.list_models(index=index)
        ['mlp_flipout.untrained']
    """
    path = Path(path)
    entries = {name: _entry_of(address, path) for name, address in models.items()}
    values = {"schema": INDEX_VERSION, "models": entries}
    validate(Index, values, f"The index {str(path)!r}")
    write_atomically(path, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
    return path


def _entry_of(address: str, index: Path) -> dict[str, Any]:
    place = _place(address, index, f"The index {str(index)!r}")
    if not is_address(place) and not Path(place).is_dir():
        raise ValueError(f"There is no folder {place!r}. Expected an artifact, in a folder relative to the index.")
    folder, entry, files = read_files(place)
    config = read_texts(files, folder)["config"]
    keys = ("architecture", "dataset", "task", "num_weights", "metrics")
    return {
        "address": str(parse_address(address)) if is_address(address) else address,
        "sha256": digest((folder / MANIFEST_NAME).read_bytes()),
        **{key: entry[key] for key in keys if entry.get(key) is not None},
        **({"license": config["license"]} if config.get("license") else {}),
    }


def _resolved(entry: IndexEntry, index: str | os.PathLike[str], what: str) -> IndexEntry:
    return entry.model_copy(update={"address": _place(entry.address, index, what)})


def _place(address: str, index: str | os.PathLike[str], what: str) -> str:
    """Returns the address of an artifact, or the path of its folder, as an index says it."""
    if is_address(address):
        parse_address(address)
        return address
    if not re.fullmatch(_RELATIVE, address):
        raise ValueError(
            f"{what}: 'address' is {shown(address)}; expected https://host/folder, hf://user/name@revision, or a "
            "folder below that of the index, such as models/penguins."
        )
    if is_address(index):
        return f"{index.rpartition('/')[0]}/{address}"
    # Absolute: a folder, even if it is called like a bundled model.
    return str(Path(index).absolute().parent / address)


def _read(path: Path) -> bytes:
    if not os.path.lexists(path):
        raise ValueError(f"There is no index {str(path)!r}. Expected a YAML file written by zoo.write_index.")
    with open_regular(path) as file:
        data: bytes = file.read(MAX_INDEX_BYTES + 1)
    if len(data) > MAX_INDEX_BYTES:
        raise ValueError(f"The index {str(path)!r} has more than {MAX_INDEX_BYTES} bytes.")
    return data


def _download(address: str) -> bytes:
    # Not at the top, because it imports what only downloads need.
    from zoo.hub.remote.downloading import RefusedError, UnreachableError, download, https_session

    place = parse_address(address)
    url = place.url
    if url is None:
        raise ValueError(f"{shown(address)} is no address of an index. Expected a path, or https://host/index.yaml.")
    with tempfile.TemporaryDirectory() as folder, https_session() as session:
        path = Path(folder) / url.rpartition("/")[2]
        try:
            download(session, url, path, MAX_INDEX_BYTES)
        except (RefusedError, UnreachableError) as error:
            raise ValueError(
                f"The index {url} cannot be downloaded: {error}. Without a network, pass the path of a copy."
            ) from error
        data = path.read_bytes()
    if place.sha256 is not None:
        check_sha256(data, place.sha256, f"The index {url}")
    return data

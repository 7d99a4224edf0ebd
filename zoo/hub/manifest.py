"""Manifests: the files of an artifact with their lengths and SHA-256.

This module imports nothing heavy, because `tfp-bnn list` imports only this.

The manifest of the bundled models, `zoo/hub/manifest.json`, is part of the package and separate from the files that it
vouches for. It is written by `python -m zoo.hub.manifest`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.core.files import check_folder_target, write_atomically
from zoo.core.shown import encodable, listed, shown
from zoo.core.untrusted import MAX_JSON_BYTES, artifact_errors, open_regular, parse_json

if TYPE_CHECKING:
    from zoo.hub.schemas import FileEntry, Manifest

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
# The largest network of the zoo has 4.6 million weights, with two numbers each for posterior and prior: 71 MiB.
MAX_FILE_BYTES = 96 * 2**20
MAX_TOTAL_BYTES = 128 * 2**20
# Of a folder, before its names are compared.
_MOST_LISTED = 64
# Of a file of the wrong size, enough to see what it is.
_DIAGNOSED = 2**16

# Names of files have at most 255 bytes, and that of a model is the folder's.
_LONGEST_FOLDER = 200

_PACKAGE = Path(__file__).parents[1]
_BUNDLED = Path(__file__).parent / MANIFEST_NAME
_LFS_SIGN = b"version https://git-lfs"


def saved_models_folder() -> Path:
    """Returns the folder of the bundled artifacts: in the package if installed from a wheel, else in the repository."""
    installed = _PACKAGE / "saved_models"
    return installed if installed.is_dir() else _PACKAGE.parent / "saved_models"


def bundled_models() -> dict[str, dict[str, Any]]:
    """Returns the manifest entries of the bundled models by name, sorted."""
    if not _BUNDLED.is_file():
        return {}
    return dict(sorted(json.loads(_BUNDLED.read_text("utf-8"))["models"].items()))


def check_target(path: str | os.PathLike[str], overwrite: bool) -> Path:
    """Returns the absolute path of the folder to write an artifact to.

    Raises:
        ValueError: If it exists and must not be replaced, or its name is too long. A folder that is not an artifact is
            never replaced, nor is the current folder.
        OSError: If it could not be made.
    """
    target = Path(path).absolute()
    is_artifact = (target / MANIFEST_NAME).is_file()
    if target.exists() and not (overwrite and is_artifact):
        hint = (
            "Pass overwrite=True (on the command line: --overwrite) to replace it"
            if is_artifact
            else "It is not an artifact; choose another folder"
        )
        raise ValueError(f"The folder {str(target)!r} exists. {hint}.")
    if len(os.fsencode(target.name)) > _LONGEST_FOLDER:
        raise ValueError(
            f"The name of the folder {str(target)!r} has {len(os.fsencode(target.name))} bytes, and at most "
            f"{_LONGEST_FOLDER} leave room for what is next to it while it is written. Choose a shorter one."
        )
    check_folder_target(target)
    return target


@artifact_errors()
def read_manifest(folder: Path, sha256: str | None = None) -> Any:
    """Reads the manifest in the folder of an artifact.

    Args:
        folder: Folder of the artifact.
        sha256: SHA-256 that the manifest must have, or None for any.

    Raises:
        ArtifactError: If there is none, it is another one, or it is not JSON in a regular file.
    """
    manifest = folder / MANIFEST_NAME
    if not os.path.lexists(manifest):
        raise ValueError(
            f"{str(folder)!r} has no {MANIFEST_NAME}: it is not an artifact. Expected a folder written by "
            "save_artifact."
        )
    with open_regular(manifest) as file:
        data = file.read(MAX_JSON_BYTES + 1)
    if sha256 is not None:
        check_sha256(data, sha256, str(manifest))
    return parse_json(data, str(manifest))


def check_sha256(data: bytes, sha256: str, what: str) -> None:
    """Checks the SHA-256 of some bytes.

    Raises:
        ValueError: If they have another one. The message has both.
    """
    if digest(data) != sha256.lower():
        raise ValueError(
            f"{what}{diagnosis(data)} has the SHA-256 {digest(data)}; {sha256} was expected. Compare that with "
            "what its author publishes now."
        )


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns length and SHA-256 of each file of an artifact except its manifest, by name."""
    return describe({path.name: path.read_bytes() for path in folder.iterdir() if path.name != MANIFEST_NAME})


def describe(files: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    """Returns length and SHA-256 of files, by name, as a manifest lists them."""
    return {name: {"bytes": len(data), "sha256": digest(data)} for name, data in sorted(files.items())}


@artifact_errors()
def read_verified(folder: Path, entry: Mapping[str, Any], max_bytes: int | None = MAX_FILE_BYTES) -> dict[str, bytes]:
    """Reads all files of an artifact and checks them against a manifest entry before anything is parsed.

    Args:
        folder: Folder of the artifact.
        entry: Entry of a manifest.
        max_bytes: Maximum size of a file, or None for files that this machine wrote itself.

    Returns:
        The checked bytes by file name: nothing can change between the check and the use.

    Raises:
        ArtifactError: If a file is missing, extra or changed, with expected and actual length and SHA-256; or if the
            manifest has no hashes or a newer schema.
    """
    files = listed_files(str(folder), entry, max_bytes)
    if not folder.is_dir():
        raise ValueError(f"The folder {str(folder)!r} does not exist. Install tfp_bnn again, or check the path.")
    with os.scandir(folder) as found:
        present = {path.name for path in itertools.islice(found, _MOST_LISTED)} - {MANIFEST_NAME}
    if present != set(files):
        raise ValueError(
            f"The files in {str(folder)!r} are not those of its manifest: missing {listed(set(files) - present)}, "
            f"unlisted {listed(present - set(files))}. Restore the folder from where it came."
        )
    return {name: _read_one(folder / name, expected) for name, expected in files.items()}


def listed_files(place: str, entry: Any, max_bytes: int | None = MAX_FILE_BYTES) -> dict[str, FileEntry]:
    """Returns the files that a manifest entry lists, by name, once the entry is validated and their sizes are bounded.

    Args:
        place: Folder or address of the artifact, for messages.
        entry: Entry of a manifest, from any source.
        max_bytes: Maximum size of a file, or None for files that this machine wrote itself.

    Raises:
        ValueError: If the entry is malformed or of a newer schema, or a file or all together are too large.
    """
    files = _checked_entry(place, entry).files
    if max_bytes is None:
        return files
    for name, expected in files.items():
        if expected.bytes > max_bytes:
            path = os.path.join(place, name)
            raise ValueError(
                f"The manifest says that {path!r} has {expected.bytes} bytes; 0 to {max_bytes} were expected."
            )
    total = sum(expected.bytes for expected in files.values())
    if total > MAX_TOTAL_BYTES:
        raise ValueError(
            f"The manifest for {place!r} lists {total} bytes in all; at most {MAX_TOTAL_BYTES} were expected."
        )
    return files


def require(files: Mapping[str, bytes], name: str, folder: Path) -> bytes:
    """Returns the bytes of a required file of an artifact. ValueError if it is missing."""
    if name not in files:
        raise ValueError(f"The artifact {str(folder)!r} has no {name}. Restore the folder from where it came.")
    return files[name]


def _checked_entry(place: str, entry: Any) -> Manifest:
    # Not at the top: `tfp-bnn list` needs no schema.
    from zoo.core.validation import validate
    from zoo.hub.schemas import Manifest

    what = f"The manifest for {place!r}"
    if not isinstance(entry, Mapping):
        raise ValueError(f"{what} holds {type(entry).__name__}; a mapping was expected. Save the artifact again.")
    version = entry.get("schema")
    if type(version) is not int or version > SCHEMA_VERSION:
        raise ValueError(
            f"{what} has the schema version {shown(version)}; this release reads up to {SCHEMA_VERSION}. Update "
            "tfp_bnn."
        )
    return validate(Manifest, entry, what)


def _read_one(path: Path, expected: FileEntry) -> bytes:
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        # A sparse file of the wrong size costs nothing to refuse.
        data = file.read(expected.bytes + 1) if size == expected.bytes else file.read(_DIAGNOSED)
    if size == len(data) == expected.bytes and digest(data) == expected.sha256.lower():
        return data
    found = digest(data) if size == len(data) else "a SHA-256 that was not computed"
    raise ValueError(
        f"The file {str(path)!r} is not the one that was published{diagnosis(data)}: expected {expected.bytes} "
        f"bytes with SHA-256 {expected.sha256}, found {size} bytes with {found}. Restore the file, or install "
        "tfp_bnn again."
    )


def diagnosis(data: bytes) -> str:
    """Returns what some bytes are instead of a file of an artifact, for messages, or nothing if they do not show it."""
    if data.startswith(_LFS_SIGN):
        return " (it is a Git-LFS pointer: run `git lfs pull`)"
    if data.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        return " (it is an HTML page)"
    return " (it is empty)" if not data else ""


def digest(data: bytes) -> str:
    """Returns the SHA-256 of some bytes in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def to_json(value: Any) -> str:
    """Serializes a value to JSON: indented, in the given order, without NaN."""
    return encodable(json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False)) + "\n"


def write_package_manifest() -> Path:
    """Collects the manifests of all bundled artifacts into the one of the package.

    Raises:
        ValueError: If a file of an artifact is not the one that its own manifest lists.
    """
    models = {}
    for path in sorted(saved_models_folder().glob(f"*/{MANIFEST_NAME}")):
        entry = json.loads(path.read_text("utf-8"))
        read_verified(path.parent, entry)
        models[path.parent.name] = entry
    write_atomically(_BUNDLED, to_json({"schema": SCHEMA_VERSION, "models": models}))
    return _BUNDLED


if __name__ == "__main__":
    print(write_package_manifest())

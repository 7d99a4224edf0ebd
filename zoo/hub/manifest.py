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

from zoo.core.files import write_atomically
from zoo.core.names import check_name
from zoo.core.shown import listed, shown
from zoo.core.untrusted import MAX_JSON_BYTES, ArtifactError, artifact_errors, open_regular, parse_json

if TYPE_CHECKING:
    from zoo.hub.schemas import FileEntry, Manifest

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
MAX_FILE_BYTES = 20 * 2**20
MAX_TOTAL_BYTES = 40 * 2**20
# Of a folder, before its names are compared.
_MOST_LISTED = 64
# While another process replaces the artifact.
_MOST_ATTEMPTS = 20
# Of a file of the wrong size, enough to see what it is.
_DIAGNOSED = 2**16

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


@artifact_errors()
def locate(name_or_path: str | os.PathLike[str]) -> tuple[Path, Any]:
    """Returns folder and manifest entry of a bundled model, by its name, or of an artifact, by its folder.

    Raises:
        ArtifactError: If the name is unknown (the message gives the nearest), or the folder has no manifest.
    """
    models, folder = bundled_models(), Path(name_or_path)
    if str(name_or_path) in models:
        return saved_models_folder() / name_or_path, models[str(name_or_path)]
    if folder.is_dir():
        return folder, read_manifest(folder)
    # Not at the top, because it imports TensorFlow.
    from tfp_bnn.core.registry import unknown_name_message

    raise ValueError(unknown_name_message("pretrained model", check_name(str(name_or_path)), models))


@artifact_errors()
def read_files(name_or_path: str | os.PathLike[str]) -> tuple[Path, Any, dict[str, bytes]]:
    """Reads all files of an artifact, checked as by `read_verified`.

    If another process replaces the artifact meanwhile, they are all of the old one or all of the new one.

    Returns:
        Folder, manifest entry, and the bytes by file name.

    Raises:
        ArtifactError: As in `locate` and `read_verified`.
    """
    for _ in range(_MOST_ATTEMPTS):
        before = _identity(name_or_path)
        try:
            folder, entry = locate(name_or_path)
            return folder, entry, read_verified(folder, entry)
        except ArtifactError:
            # What does not fit together may be of two folders.
            if _identity(name_or_path) == before:
                raise
    raise ValueError(f"{str(name_or_path)!r} is replaced again and again. Read it when that is over.")


def _identity(folder: str | os.PathLike[str]) -> tuple[int, int, int] | None:
    """Returns what changes when another folder takes the place of this one; None if there is none."""
    try:
        found = os.stat(folder)
    except (OSError, ValueError):
        return None
    # A number can be given to another folder once this one is removed, but not at the same time.
    return found.st_dev, found.st_ino, found.st_ctime_ns


@artifact_errors()
def read_manifest(folder: Path) -> Any:
    """Reads the manifest in the folder of an artifact.

    Raises:
        ArtifactError: If there is none, or it is not JSON in a regular file.
    """
    manifest = folder / MANIFEST_NAME
    if not os.path.lexists(manifest):
        raise ValueError(
            f"{str(folder)!r} has no {MANIFEST_NAME}: it is not an artifact. Expected a folder written by "
            "save_artifact."
        )
    with open_regular(manifest) as file:
        return parse_json(file.read(MAX_JSON_BYTES + 1), str(manifest))


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns length and SHA-256 of each file of an artifact except its manifest, by name."""
    files = sorted(path for path in folder.iterdir() if path.name != MANIFEST_NAME)
    return {path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path.read_bytes())} for path in files}


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
    files = _checked_entry(folder, entry).files
    if not folder.is_dir():
        raise ValueError(f"The folder {str(folder)!r} does not exist. Install tfp_bnn again, or check the path.")
    with os.scandir(folder) as found:
        present = {path.name for path in itertools.islice(found, _MOST_LISTED)} - {MANIFEST_NAME}
    if present != set(files):
        raise ValueError(
            f"The files in {str(folder)!r} are not those of its manifest: missing {listed(set(files) - present)}, "
            f"unlisted {listed(present - set(files))}. Restore the folder from where it came."
        )
    total = sum(expected.bytes for expected in files.values())
    if max_bytes is not None and total > MAX_TOTAL_BYTES:
        raise ValueError(
            f"The manifest for {str(folder)!r} lists {total} bytes in all; at most {MAX_TOTAL_BYTES} were expected."
        )
    return {name: _read_one(folder / name, expected, max_bytes) for name, expected in files.items()}


def require(files: Mapping[str, bytes], name: str, folder: Path) -> bytes:
    """Returns the bytes of a required file of an artifact. ValueError if it is missing."""
    if name not in files:
        raise ValueError(f"The artifact {str(folder)!r} has no {name}. Restore the folder from where it came.")
    return files[name]


def _checked_entry(folder: Path, entry: Any) -> Manifest:
    # Not at the top: `tfp-bnn list` needs no schema.
    from zoo.core.validation import validate
    from zoo.hub.schemas import Manifest

    what = f"The manifest for {str(folder)!r}"
    if not isinstance(entry, Mapping):
        raise ValueError(f"{what} holds {type(entry).__name__}; a mapping was expected. Save the artifact again.")
    version = entry.get("schema")
    if type(version) is not int or version > SCHEMA_VERSION:
        raise ValueError(
            f"{what} has the schema version {shown(version)}; this release reads up to {SCHEMA_VERSION}. Update "
            "tfp_bnn."
        )
    return validate(Manifest, entry, what)


def _read_one(path: Path, expected: FileEntry, max_bytes: int | None) -> bytes:
    if max_bytes is not None and expected.bytes > max_bytes:
        raise ValueError(
            f"The manifest says that {str(path)!r} has {expected.bytes} bytes; 0 to {max_bytes} were expected."
        )
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        # A sparse file of the wrong size costs nothing to refuse.
        data = file.read(expected.bytes + 1) if size == expected.bytes else file.read(_DIAGNOSED)
    if size == len(data) == expected.bytes and _sha256(data) == expected.sha256.lower():
        return data
    found = _sha256(data) if size == len(data) else "a SHA-256 that was not computed"
    raise ValueError(
        f"The file {str(path)!r} is not the one that was published{_diagnosis(data)}: expected {expected.bytes} "
        f"bytes with SHA-256 {expected.sha256}, found {size} bytes with {found}. Restore the file, or install "
        "tfp_bnn again."
    )


def _diagnosis(data: bytes) -> str:
    if data.startswith(_LFS_SIGN):
        return " (it is a Git-LFS pointer: run `git lfs pull`)"
    if data.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        return " (it is an HTML page)"
    return " (it is empty)" if not data else ""


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def to_json(value: Any) -> str:
    """Serializes a value to JSON: indented, in the given order, without NaN."""
    return json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


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

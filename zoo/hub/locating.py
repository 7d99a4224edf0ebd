"""Finds the files of an artifact: by the name of a bundled model, by a folder, or by an address on the network.

Imports nothing heavy: `tfp-bnn show` only needs this to find what it reads.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from zoo.core.names import check_name, unknown_name_message
from zoo.core.untrusted import ArtifactError, artifact_errors
from zoo.hub.manifest import bundled_models, read_manifest, read_verified, saved_models_folder
from zoo.hub.remote.addresses import Address, is_address, parse_address

# While another process replaces the artifact.
_MOST_ATTEMPTS = 20


@artifact_errors()
def local(name_or_path: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """Returns a name or a folder as it is, and for an address the folder of its copy in the cache.

    Raises:
        ArtifactError: If the address is malformed, or what it leads to cannot be fetched.
    """
    return fetched(parse_address(name_or_path)) if is_address(name_or_path) else name_or_path


def fetched(address: Address) -> Path:
    """Returns the folder in the cache with the artifact at an address; see `zoo.hub.remote.fetching.fetch`."""
    # Not at the top, because it imports what only downloads need.
    from zoo.hub.remote.fetching import fetch

    return fetch(address)


@artifact_errors()
def locate(name_or_path: str | os.PathLike[str], sha256: str | None = None) -> tuple[Path, Any]:
    """Returns folder and manifest entry of a bundled model, by its name, or of an artifact, by its folder or address.

    Args:
        name_or_path: Name, folder or address.
        sha256: SHA-256 that the manifest in the folder must have, or None.

    Raises:
        ArtifactError: If the name is unknown (the message gives the nearest), the folder has no manifest, or another
            one.
    """
    models, place = bundled_models(), local(name_or_path)
    # A name is text; a path is a folder, even if it is called like a model.
    if isinstance(place, str) and place in models:
        return saved_models_folder() / place, models[str(place)]
    folder = Path(place)
    if folder.is_dir():
        return folder, read_manifest(folder, sha256)
    raise ValueError(unknown_name_message("pretrained model", check_name(str(place)), models))


@artifact_errors()
def read_files(name_or_path: str | os.PathLike[str], sha256: str | None = None) -> tuple[Path, Any, dict[str, bytes]]:
    """Reads all files of an artifact, checked as by `read_verified`.

    If another process replaces the artifact meanwhile, they are all of the old one or all of the new one.

    Args:
        name_or_path: Name, folder or address.
        sha256: SHA-256 that the manifest in the folder must have, or None.

    Returns:
        Folder, manifest entry, and the bytes by file name.

    Raises:
        ArtifactError: As in `locate` and `read_verified`.
    """
    place = local(name_or_path)
    for _ in range(_MOST_ATTEMPTS):
        before = _identity(place)
        try:
            folder, entry = locate(place, sha256)
            return folder, entry, read_verified(folder, entry)
        except ArtifactError:
            # What does not fit together may be of two folders.
            if _identity(place) == before:
                raise
    raise ValueError(f"{str(place)!r} is replaced again and again. Read it when that is over.")


def _identity(folder: str | os.PathLike[str]) -> tuple[int, int, int] | None:
    """Returns what changes when another folder takes the place of this one; None if there is none."""
    try:
        found = os.stat(folder)
    except (OSError, ValueError):
        return None
    # A number can be given to another folder once this one is removed, but not at the same time.
    return found.st_dev, found.st_ino, found.st_ctime_ns

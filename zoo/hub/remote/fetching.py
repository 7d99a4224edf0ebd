"""Fetches artifacts from the network into the cache."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import requests

from zoo.core.files import remove_unfinished, written_whole
from zoo.core.untrusted import MAX_JSON_BYTES, ArtifactError, parse_json
from zoo.hub.manifest import MANIFEST_NAME, check_sha256, diagnosis, digest, listed_files, read_manifest, read_verified
from zoo.hub.remote.addresses import Address
from zoo.hub.remote.cache import VARIABLE, alone, cache_folder
from zoo.hub.remote.downloading import RefusedError, UnreachableError, download, https_session
from zoo.hub.remote.hugging_face import place_of


def fetch(address: Address) -> Path:
    """Returns the folder in the cache with the artifact at an address, after it was downloaded if needed.

    The manifest comes first. It must have the hash of the address, if that has one, and it bounds the number and the
    sizes of the files before any of them is asked for. The folder takes its place in the cache in one step: it is never
    there in part. Of two processes, one downloads and the other one waits.

    Unless the address has a hash or a commit, the network is asked each time whether the copy in the cache is still the
    current one. If there is no answer, the copy is used, with a warning.

    Args:
        address: Where the artifact is.

    Raises:
        ValueError: If it cannot be reached and is not in the cache, it is not the one that was expected, or the cache
            cannot be written. The message says what to do.
    """
    target = cache_folder() / address.key
    if address.is_pinned and _is_whole(target, address.sha256):
        return target
    try:
        url, headers = place_of(address)
        with https_session(headers) as session:
            manifest = _manifest_at(session, url)
            if address.sha256 is not None:
                check_sha256(manifest, address.sha256, f"{address}/{MANIFEST_NAME}")
            if not _is_whole(target, digest(manifest)):
                _fill(target, session, url, manifest)
    except UnreachableError as error:
        if not _is_whole(target, address.sha256):
            raise ValueError(
                f"{address} cannot be reached, and it is not in the cache {str(target.parent)!r}: {error}. Connect to "
                f"the network, or set {VARIABLE} to a folder that has it. Bundled models need no network."
            ) from error
        warnings.warn(
            f"{address} cannot be reached ({error}). The copy in the cache is used, {str(target)!r}.",
            UserWarning,
            stacklevel=2,
        )
    except RefusedError as error:
        raise ValueError(f"{address} cannot be used: {error}.") from error
    return target


def _is_whole(folder: Path, sha256: str | None) -> bool:
    """Whether a folder is an artifact without faults, with a manifest of that hash if there is one."""
    try:
        read_verified(folder, read_manifest(folder, sha256))
    except ArtifactError:
        return False
    return True


def _manifest_at(session: requests.Session, url: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MANIFEST_NAME
        download(session, f"{url}/{MANIFEST_NAME}", path, MAX_JSON_BYTES)
        data = path.read_bytes()
    if found := diagnosis(data):
        raise RefusedError(f"{url}/{MANIFEST_NAME} is not a manifest{found}")
    return data


def _fill(target: Path, session: requests.Session, url: str, manifest: bytes) -> None:
    """Downloads the files that a manifest lists to a folder of the cache."""
    files = listed_files(url, parse_json(manifest, f"{url}/{MANIFEST_NAME}"))
    with alone(target):
        # Another process may have been faster.
        if _is_whole(target, digest(manifest)):
            return
        remove_unfinished(target)
        with written_whole(target) as working:
            (working / MANIFEST_NAME).write_bytes(manifest)
            for name, expected in files.items():
                download(session, f"{url}/{name}", working / name, expected.bytes, expected.sha256)

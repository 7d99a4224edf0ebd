"""The folder where downloaded artifacts are kept."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import filelock
import pooch

VARIABLE = "TFP_BNN_CACHE"
"""Environment variable with the folder."""

# A download is given up before that.
_MOST_SECONDS = 900.0


def cache_folder() -> Path:
    """Returns the folder of downloaded artifacts: `TFP_BNN_CACHE`, or that of this platform for caches."""
    chosen = os.environ.get(VARIABLE)
    return Path(chosen).expanduser().absolute() if chosen else Path(pooch.os_cache("tfp_bnn"))


@contextlib.contextmanager
def alone(target: Path, most_seconds: float = _MOST_SECONDS) -> Iterator[None]:
    """Keeps other processes and threads from writing a folder of the cache while a block runs.

    A process that is killed gives way at once: the system holds the lock, not the file.

    Args:
        target: The folder, which need not exist.
        most_seconds: How long to wait for others.

    Raises:
        ValueError: If another one takes longer, or the cache cannot be written, for example because it is full. The
            message names the variable to set.
    """
    lock = target.with_name(f".{target.name}.lock")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(lock, timeout=most_seconds):
            yield
    except filelock.Timeout:
        raise ValueError(
            f"Another process has been writing {str(target)!r} for {most_seconds:.0f} seconds; it holds {str(lock)!r}. "
            f"Wait for it, end it, or set {VARIABLE} to another folder."
        ) from None
    except OSError as error:
        raise ValueError(
            f"The cache {str(target.parent)!r} cannot be written: {error.strerror or error}. Make room or give "
            f"permission there, or set {VARIABLE} to a folder that can be written."
        ) from error

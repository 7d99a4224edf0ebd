"""Atomic writing of files and folders: completely or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


def write_atomically(path: Path, contents: str | bytes) -> None:
    """Writes a file atomically, a string in UTF-8: a reader sees either the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(contents.encode() if isinstance(contents, str) else contents)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """Yields a working folder next to the target, which replaces the target when the block ends without an error.

    An existing target is replaced. If the process is killed at that moment, the old one is left under a hidden name
    next to it.

    Args:
        target: Absolute path of the folder to create. Its parents are created if needed.

    Raises:
        OSError: If the working folder cannot be created (before the block is entered) or cannot replace the target.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    working = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield working
        working.chmod(0o755)
        _replace_folder(working, target)
    finally:
        shutil.rmtree(working, ignore_errors=True)


def _replace_folder(working: Path, target: Path) -> None:
    if not target.exists():
        working.rename(target)
        return
    aside = target.with_name(f".{target.name}.{os.getpid()}.old")
    target.rename(aside)
    try:
        working.rename(target)
    except OSError:
        aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)

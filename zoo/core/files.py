"""Atomic writing of files and folders: completely or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

UNFINISHED = ".unfinished"
"""End of the hidden names of folders that are not whole."""
# Of Linux: <fcntl.h> and <linux/fs.h>.
_RELATIVE_TO_HERE, _EXCHANGE = -100, 2


def write_atomically(path: Path, contents: str | bytes) -> None:
    """Writes a file atomically, a string in UTF-8: a reader sees either the old file or the new one.

    Raises:
        ValueError: If the path is that of a folder, a device or a pipe.
        OSError: If the file cannot be written.
    """
    path = replaceable(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(contents.encode() if isinstance(contents, str) else contents)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def replaceable(path: Path) -> Path:
    """Returns the file that is replaced when a path is written: that behind a link.

    Raises:
        ValueError: If it is a folder, a device or a pipe, which a file would replace for all others, too.
    """
    # Before links are followed: the pipe behind /dev/stdout has no path of its own.
    if path.is_dir():
        raise ValueError(f"{str(path)!r} is a folder. Give the name of a file in it.")
    if path.exists() and not path.is_file():
        raise ValueError(
            f"{str(path)!r} is a device or a pipe, which a file would replace. Give the name of a file, or leave the "
            "option out."
        )
    return path.resolve()


def check_file_target(path: Path | None) -> None:
    """Refuses early a file that could not be written after long work.

    Raises:
        ValueError: If its folder does not exist or cannot be written to, or it is no regular file; see `replaceable`.
    """
    if path is None:
        return
    target = replaceable(path)
    if not target.parent.is_dir():
        place = target if path.is_symlink() else path
        raise ValueError(f"There is no folder {str(place.parent)!r} for the file {place.name!r}. Make it first.")
    # A file is written next to its place first.
    if not os.access(target.parent, os.W_OK):
        raise ValueError(f"The folder of {str(path)!r} cannot be written to. Choose another place.")


def check_folder_target(target: Path) -> None:
    """Refuses early a folder whose place could not be taken after long work; see `written_whole`.

    Raises:
        ValueError: If it is the current folder or has that in it, or where a file system is mounted.
        OSError: If it could not be made.
    """
    target = target.resolve()
    what = "where a file system is mounted" if os.path.ismount(target) else _as_current_folder(target)
    if what is not None:
        raise ValueError(f"{str(target)!r} is {what}. It cannot be replaced by a new one: give a folder below it.")
    parent = next(folder for folder in target.parents if os.path.lexists(folder))
    if not parent.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(parent))
    if not os.access(parent, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(parent))


def _as_current_folder(folder: Path) -> str | None:
    """What a folder is to the current one, which would be deleted with it; None if nothing."""
    with contextlib.suppress(FileNotFoundError):
        if (here := Path.cwd()).is_relative_to(folder):
            return "the current folder" if here == folder else "a folder around the current one"
    return None


@contextlib.contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """Yields a working folder next to the target, which takes its place when the block ends without an error.

    Whenever the process is killed, the target is the old folder or the new one, each whole; see `take_place`. The
    working folder of a killed process stays under a hidden name; see `remove_unfinished`.

    Args:
        target: Absolute path of the folder to create, or of one to replace. Its parents are created if needed.

    Raises:
        OSError: If the working folder cannot be created (before the block is entered) or cannot replace the target.
    """
    # Behind a link, it is the folder that is replaced.
    target = target.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    working = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=UNFINISHED, dir=target.parent))
    try:
        yield working
        working.chmod(0o755)
        for path in working.rglob("*"):
            sync(path)
        sync(working)
        take_place(working, target)
        sync(target.parent)
    except OSError as error:
        # What is written to an open file does not know its name.
        if error.errno is not None and error.filename is None:
            error.filename = str(target)
        raise
    finally:
        shutil.rmtree(working, ignore_errors=True)


def take_place(working: Path, target: Path) -> None:
    """Moves a folder to the place of another one on the same file system, which may exist.

    Where a name exists, the two change places in one step, and the old folder has the working name then. So the target
    is whole at every moment, the old or the new. Only Linux can do that, on its usual file systems. Elsewhere the old
    folder is moved aside first: it is whole under its name or that of the working folder with `.old`, and between two
    renames there is no target.

    Raises:
        OSError: If the folder cannot be moved. The target is the old one then.
    """
    if not target.exists():
        working.rename(target)
        return
    with contextlib.suppress(OSError):
        _swap(working, target)
        return
    aside = working.with_name(f"{working.name}.old")
    target.rename(aside)
    try:
        working.rename(target)
    except OSError:
        aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def remove_unfinished(target: Path) -> None:
    """Removes working folders of `written_whole` whose processes were killed. No other process may write the target."""
    for working in target.parent.glob(f".{glob.escape(target.name)}.????????{UNFINISHED}"):
        shutil.rmtree(working, ignore_errors=True)


def sync(path: Path) -> None:
    """Waits until a file, or the list of files of a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _swap(first: Path, second: Path) -> None:
    """Exchanges two names in one step. Raises an OSError if the system or the file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError) as error:
        raise OSError("this system cannot exchange two names") from error
    names = (os.fsencode(first), os.fsencode(second))
    if renameat2(_RELATIVE_TO_HERE, names[0], _RELATIVE_TO_HERE, names[1], _EXCHANGE):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(second))

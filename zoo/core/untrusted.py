"""Reading of files that anyone may have made. Imports nothing heavy.

Every function refuses early and in few words: what a file costs is bounded before it is paid.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo.core.shown import in_one_line, shown

MAX_JSON_BYTES = 2**20
MOST_DIGITS = 20
"""Of an integer in JSON: all of 64 bits have fewer."""

_KINDS = (
    (stat.S_ISLNK, "a link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


class ArtifactError(ValueError):
    """Raised for an artifact that cannot be used: unknown, missing, not trusted, damaged, malformed or too large.

    Everything that reads an artifact raises it, whatever is wrong with the files. The message is one line that names
    the file, what was found and what was expected.

    Example:
        >>> import zoo
        >>> try:
        ...     zoo.load_artifact("downloads/a_model", trust=True)
        ... except zoo.ArtifactError as error:
        ...     print(error)
        There is no folder 'downloads/a_model'. Expected a folder written by save_artifact.
    """


@contextlib.contextmanager
def artifact_errors() -> Iterator[None]:
    """Raises every error of a block, or of a decorated function, that reads an artifact as an `ArtifactError`."""
    try:
        yield
    except ArtifactError:
        raise
    except (OSError, ValueError) as error:
        raise ArtifactError(in_one_line(str(error))) from error
    except Exception as error:
        reason = shown(str(error), 1000)
        raise ArtifactError(f"The artifact cannot be used: {type(error).__name__} {reason}.") from error


def open_regular(path: Path) -> Any:
    """Opens a regular file for reading bytes; never a link, and nothing that could block or be without end.

    Raises:
        ValueError: If it is anything else. The message says what.
        OSError: If there is none, or it cannot be read.
    """
    _require_regular(path, os.lstat(path).st_mode)
    # It may have been replaced since: neither a link nor a pipe is followed or waited for.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    try:
        _require_regular(path, os.fstat(descriptor).st_mode)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _require_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "no file")
        raise ValueError(f"{str(path)!r} is {kind}; a regular file was expected. Replace it by the file itself.")


def parse_json(data: bytes, what: str, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Parses JSON from an untrusted source.

    Args:
        data: Bytes of a file.
        what: Description of the data in messages.
        max_bytes: Maximum size.

    Returns:
        The parsed value. Every string in it can be encoded, and every number is finite.

    Raises:
        ValueError: If there are more than `max_bytes`, or for invalid UTF-8 or JSON, a duplicate key, NaN or infinity,
            an integer of more than 20 digits, half of a surrogate pair, or too deep nesting.
    """
    if len(data) > max_bytes:
        raise ValueError(f"{what} has {len(data)} bytes; at most {max_bytes} were expected.")
    try:
        text = data.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=_without_duplicates,
            parse_constant=_no_constant,
            parse_int=_integer,
            parse_float=_number,
        )
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise ValueError(f"{what} is nested too deeply to be one of ours.") from None
    except (UnicodeError, ValueError) as error:
        raise ValueError(f"{what} is not the JSON that was expected: {error}") from None
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {shown(key)} appears twice")
        found[key] = value
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a value")


def _integer(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits is not a value")
    return int(digits)


def _number(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{shown(digits, 40)} is not a finite value")
    return value

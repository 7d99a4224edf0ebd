"""Reading of tables and arrays that anyone may have made: CSV, Parquet, NPY and NPZ files."""

from __future__ import annotations

import csv
import io
import itertools
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from zoo.core.paths import STDIN
from zoo.core.shown import is_number, shown

_ROWS_AT_ONCE = 5000
# What pandas calls an index without a name, in CSV and Parquet files, and when it reads that again.
_INDEX = re.compile(r"|Unnamed: \d+|__index_level_\d+__")

_WHOLE = re.compile(r"-?\d+")
# A whole number with zeros before it, such as a postal code.
_CODE = re.compile(r"-?0\d+")

Chosen = Callable[[Sequence[str]], list[str]]
"""The columns to read, in their order, by the names of all columns; a ValueError if one is missing."""


def read_csv(path: Path, feature_names: Sequence[str] | None) -> npt.NDArray[np.float32]:
    """Reads the numbers of a CSV file, with or without a header, as float32 of shape `(n, columns)`.

    Args:
        path: The file, or - for the standard input.
        feature_names: Names of the model's columns. A header that has one of them must have all, once, and others are
            left out.

    Raises:
        ValueError: If the file cannot be read or holds something else.
    """
    with _csv_rows(path) as rows:
        first = next(rows, [])
        columns = _columns_of_header(path, first, feature_names or ())
        if columns is None:
            rows = itertools.chain([first], rows)
        return _numbers(path, rows, len(first), range(len(first)) if columns is None else columns)


def read_csv_columns(
    path: Path, chosen: Chosen, target: str
) -> tuple[npt.NDArray[np.float32], npt.NDArray[Any], list[str]]:
    """Reads columns of numbers, and one of targets, from a CSV file with a header.

    Args:
        path: The file.
        chosen: Chooses the columns.
        target: Name of the column of targets.

    Returns:
        The numbers, float32 of shape `(n, columns)`; the targets, int64, float64 or text, of shape `(n,)`; and the
        names of the columns.

    Raises:
        ValueError: If the file cannot be read or holds something else.
    """
    targets: list[str] = []
    with _csv_rows(path) as rows:
        header = [name.strip() for name in next(rows, [])]
        names = chosen(header)
        place = header.index(target)

        def seen() -> Iterator[list[str]]:
            for row in rows:
                targets.append(row[place].strip() if place < len(row) else "")
                yield row

        x = _numbers(path, seen(), len(header), [header.index(name) for name in names])
    if "" in targets:
        raise ValueError(f"{str(path)!r}: row {targets.index('')} has no {target!r}. Fill it in, or leave the row out.")
    return x, _numbers_or_text(targets), names


def _numbers_or_text(targets: list[str]) -> npt.NDArray[Any]:
    """Returns numbers, or text where numbers would merge labels: 007 with 7, or long ones."""
    if not all(map(is_number, targets)) or any(map(_CODE.fullmatch, targets)):
        return np.array(targets, str)
    if not all(map(_WHOLE.fullmatch, targets)):
        return np.array(targets, float)
    try:
        return np.array([int(text) for text in targets], np.int64)
    except OverflowError:
        return np.array(targets, str)


def read_parquet(path: Path, chosen: Chosen, target: str | None) -> tuple[npt.NDArray[np.float32], Any, list[str]]:
    """Reads columns of numbers, and one of targets if named, from a Parquet file; see `read_csv_columns`."""
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{str(path)!r} cannot be read as Parquet: {shown(str(error))}") from None
    names = chosen(table.column_names)
    columns = {name: _values(table[name]) for name in [*names, *([] if target is None else [target])]}
    for name in names:
        if columns[name].dtype.kind not in "biuf":
            raise ValueError(
                f"{str(path)!r}: the column {name!r} holds {table[name].type}; numbers were expected. Encode it as "
                "numbers, or leave it out."
            )
    x = np.stack([columns[name] for name in names], axis=1).astype(np.float32)
    if target is None:
        return x, None, names
    y = columns[target]
    if y.dtype.kind not in "biuf":
        # Of dates, a missing one is no None.
        if table[target].null_count:
            raise ValueError(f"{str(path)!r}: a row has no {target!r}. Fill it in, or leave the row out.")
        y = y.astype(str)
    return x, y, names


def _values(column: Any) -> npt.NDArray[Any]:
    import pyarrow

    if pyarrow.types.is_dictionary(column.type):
        # A missing value would become the last entry of the dictionary.
        column = column.cast(column.type.value_type)
    # Decimals would become Python objects, of which NumPy knows nothing.
    is_decimal = pyarrow.types.is_decimal(column.type)
    return (column.cast(pyarrow.float64()) if is_decimal else column).to_numpy()


def read_npy(path: Path) -> npt.NDArray[np.float32]:
    """Reads an array of numbers as float32. A ValueError if the file holds something else."""
    try:
        # Mapped, because the header may declare more than the file holds and than there is memory.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError, OverflowError) as error:
        raise ValueError(f"{str(path)!r} is not an NPY file of numbers, or cut off: {error}") from None
    if not isinstance(array, np.ndarray) or not (
        np.isrealobj(array) and (np.issubdtype(array.dtype, np.number) or array.dtype == bool)
    ):
        raise ValueError(f"{str(path)!r} does not hold an array of real numbers. Save one with numpy.save.")
    return np.array(array, np.float32)


def read_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Reads all arrays of an NPZ file by name. A ValueError if it cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: _as_text(arrays[name]) for name in arrays.files}
    except Exception as error:
        # Besides those of NumPy, errors of zipfile and zlib.
        raise ValueError(f"{str(path)!r} is not an NPZ file of arrays: {shown(str(error))}") from None


def _as_text(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns bytes as text, as they come from HDF5; other arrays as they are."""
    return np.char.decode(array, "utf-8", "backslashreplace") if array.dtype.kind == "S" else array


class _csv_rows:
    """A context: the rows of a CSV file but for blank lines. Errors of reading them are a ValueError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Iterator[list[str]]:
        if str(self._path) == STDIN:
            self._file: TextIO = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", newline="")
        else:
            self._file = self._path.open(encoding="utf-8-sig", newline="")
        return _without_blank_lines(csv.reader(self._file))

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self._file.close()
        if isinstance(error, csv.Error | UnicodeDecodeError):
            raise ValueError(f"{str(self._path)!r} cannot be read as CSV: {error}") from None


def _without_blank_lines(lines: Iterator[list[str]]) -> Iterator[list[str]]:
    """Yields rows without blank lines, but those amid a file of one column, which stand for missing values."""
    width = blank = 0
    usual = None
    for row in lines:
        if not row:
            blank += 1
            continue
        if width == 1:
            # One after every row is of line ends that were written twice, as happens on Windows.
            usual = min(blank, 1) if usual is None else usual
            yield from [[""]] * abs(blank - usual)
        width, blank = width or len(row), 0
        yield row


def _columns_of_header(path: Path, row: list[str], names: Sequence[str]) -> list[int] | None:
    """Returns the columns to read according to a header, in the order of the model; None if the row holds numbers."""
    found = [name.strip() for name in row]
    if set(found) & set(names):
        return [found.index(name) for name in columns_of_model(path, found, names)]
    numbers = sum(map(is_number, row))
    if 0 < numbers < len(row):
        raise ValueError(
            f"{str(path)!r}: the first row, {shown(row)}, is neither a header nor numbers. Correct it: read as a "
            "header, it would be left out."
        )
    return None if numbers else list(range(len(row)))


def columns_of_model(path: Path, found: Sequence[str], names: Sequence[str]) -> list[str]:
    """Returns the names of a model's columns if a table has them all, each once. A ValueError names one it has not."""
    missing = [name for name in names if found.count(name) != 1]
    if missing:
        raise ValueError(
            f"{str(path)!r} has the columns {', '.join(map(repr, found))}; the model needs {missing[0]!r} exactly "
            "once. Add the column, or remove the names (the header of a CSV file, 'feature_names' of an NPZ file) to "
            "pass the columns by position."
        )
    return list(names)


def by_names(
    path: Path, x: npt.NDArray[Any], found: Sequence[str], names: Sequence[str] | None
) -> tuple[npt.NDArray[Any], list[str]]:
    """Returns the columns of an array that a model takes, in its order, and their names.

    Args:
        path: The file, for messages.
        x: Array of shape `(n, columns)`.
        found: Names of its columns.
        names: Names of the model's columns. An array that has none of them is taken as it is.

    Raises:
        ValueError: If there is not one name per column, or a column of the model is missing or there twice.
    """
    if x.ndim != 2 or x.shape[1] != len(found):
        raise ValueError(
            f"{str(path)!r} has {len(found)} feature names for inputs of shape {x.shape[1:]}. Give one to each column "
            "of a table, or leave out 'feature_names'."
        )
    if not set(found) & set(names or ()):
        return x, named_once(path, found)
    chosen = columns_of_model(path, found, names or ())
    return x[:, [found.index(name) for name in chosen]], chosen


def named_once(path: Path, names: Sequence[str]) -> list[str]:
    """Returns the names of columns if each has one of its own; a ValueError names one that does not."""
    numbers = Counter(names)
    for name in names:
        if _INDEX.fullmatch(name):
            raise ValueError(
                f"{str(path)!r}: the column {name!r} has no name, as the index of a table that pandas wrote. Write the "
                "table without it (index=False), remove the column, or give it a name if it is an input."
            )
        if numbers[name] > 1:
            raise ValueError(
                f"{str(path)!r} has {numbers[name]} columns called {name!r}. Give each another name, or remove one."
            )
    return list(names)


def _numbers(path: Path, rows: Iterator[list[str]], width: int, columns: Sequence[int]) -> npt.NDArray[np.float32]:
    # Text takes many times the memory of its numbers, so it is read in parts.
    parts = [*_parts(path, rows, width, columns)]
    if not parts:
        raise ValueError(f"{str(path)!r} has no rows of numbers.")
    return np.concatenate(parts)


def _parts(
    path: Path, rows: Iterator[list[str]], width: int, columns: Sequence[int]
) -> Iterator[npt.NDArray[np.float32]]:
    """Yields some columns of some thousand rows at a time, each row as wide as the first of the file."""
    number = 0
    while chunk := list(itertools.islice(rows, _ROWS_AT_ONCE)):
        for row in chunk:
            if len(row) != width:
                raise ValueError(
                    f"{str(path)!r}: row {number} is {shown(row)}; expected {width} numbers, as in the first row."
                )
            for column in columns:
                if not is_number(row[column]):
                    raise ValueError(
                        f"{str(path)!r}: row {number} is {shown(row)}; expected numbers, but got "
                        f"{shown(row[column])}. Encode text as numbers, fill gaps in, or leave the column out."
                    )
            number += 1
        yield np.array([[row[column] for column in columns] for row in chunk], np.float32)

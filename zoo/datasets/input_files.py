"""Reading of the files that `predict` takes: CSV, NPY or images."""

from __future__ import annotations

import csv
import itertools
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from zoo.core.shown import is_number, shown

# A decoded pixel takes 1 to 4 bytes.
MOST_PIXELS = 2**25
_ROWS_AT_ONCE = 5000
_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")


def read_inputs(
    files: list[Path], input_shape: tuple[int, ...], pixel_max: float, feature_names: Sequence[str] | None = None
) -> tuple[Sequence[str | int], npt.NDArray[np.float32]]:
    """Reads inputs for a model.

    Args:
        files: One `.csv` or `.npy` file, or any number of images.
        input_shape: Shape of one input of the model.
        pixel_max: Maximum of the model's raw pixels, which start at 0.
        feature_names: Names of the model's columns. A CSV file whose header has one of them is read by name: its
            columns may stand in any order, and others are left out.

    Returns:
        A label per input (its row, from 0, or its file name), and the inputs, float32, of shape `(n, *input_shape)`.

    Raises:
        ValueError: If a file is missing, unreadable or of another kind, or inputs have a different shape.
    """
    for path in files:
        if not path.is_file():
            raise ValueError(f"There is no file {str(path)!r}.")
    kinds = {path.suffix.lower() for path in files}
    if kinds <= set(_IMAGES):
        return [path.name for path in files], np.stack([_read_image(path, input_shape, pixel_max) for path in files])
    if len(files) != 1 or kinds - {".csv", ".npy"}:
        raise ValueError(
            f"Expected one .csv or .npy file, or images ({', '.join(_IMAGES)}), but got {', '.join(map(str, files))}."
        )
    x = _read_csv(files[0], feature_names) if kinds == {".csv"} else _read_npy(files[0])
    flat_or_without_channels = ((int(np.prod(input_shape)),), input_shape[:-1] if input_shape[-1] == 1 else None)
    if x.shape[1:] in flat_or_without_channels and x.ndim > 1:
        x = x.reshape(len(x), *input_shape)
    if x.shape[1:] != input_shape:
        raise ValueError(
            f"{str(files[0])!r} holds inputs of shape {x.shape[1:]}, but the model takes {input_shape}, one input for "
            "each row."
        )
    return range(len(x)), x


def _read_csv(path: Path, feature_names: Sequence[str] | None) -> npt.NDArray[np.float32]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows: Iterator[list[str]] = (row for row in csv.reader(file) if row)
            first = next(rows, [])
            columns = _columns_of_header(path, first, feature_names or ())
            if columns is None:
                rows = itertools.chain([first], rows)
            # Text takes many times the memory of its numbers, so it is read in parts.
            parts = [*_parts(path, rows, len(first), range(len(first)) if columns is None else columns)]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{str(path)!r} cannot be read as CSV: {error}") from None
    if not parts:
        raise ValueError(f"{str(path)!r} has no rows of numbers.")
    return np.concatenate(parts)


def _columns_of_header(path: Path, row: list[str], names: Sequence[str]) -> list[int] | None:
    """Returns the columns to read according to a header, in the order of the model; None if the row holds numbers."""
    found = [name.strip() for name in row]
    if set(found) & set(names):
        missing = [name for name in names if found.count(name) != 1]
        if missing:
            raise ValueError(
                f"{str(path)!r} has the columns {', '.join(map(repr, found))}; the model needs {missing[0]!r} exactly "
                "once. Add the column, or remove the header to pass the columns by position."
            )
        return [found.index(name) for name in names]
    numbers = sum(map(is_number, row))
    if 0 < numbers < len(row):
        raise ValueError(
            f"{str(path)!r}: the first row, {shown(row)}, is neither a header nor numbers. Correct it: read as a "
            "header, it would be left out."
        )
    return None if numbers else list(range(len(row)))


def _parts(
    path: Path, rows: Iterator[list[str]], width: int, columns: Sequence[int]
) -> Iterator[npt.NDArray[np.float32]]:
    """Yields some columns of some thousand rows at a time, each row as wide as the first of the file."""
    number = 0
    while chunk := list(itertools.islice(rows, _ROWS_AT_ONCE)):
        for row in chunk:
            if len(row) != width or not all(is_number(row[column]) for column in columns):
                raise ValueError(
                    f"{str(path)!r}: row {number} is {shown(row)}; expected {width} numbers, as in the first row."
                )
            number += 1
        yield np.array([[row[column] for column in columns] for row in chunk], np.float32)


def _read_npy(path: Path) -> npt.NDArray[np.float32]:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{str(path)!r} is not an NPY file of numbers: {error}") from None
    if not isinstance(array, np.ndarray) or not (
        np.isrealobj(array) and (np.issubdtype(array.dtype, np.number) or array.dtype == bool)
    ):
        raise ValueError(f"{str(path)!r} does not hold an array of real numbers. Save one with numpy.save.")
    return array.astype(np.float32)


def _read_image(path: Path, input_shape: tuple[int, ...], pixel_max: float) -> npt.NDArray[np.float32]:
    if len(input_shape) != 3 or input_shape[-1] not in (1, 3):
        raise ValueError(
            f"The model takes inputs of shape {input_shape}, which are not images. Pass a .csv or .npy file."
        )
    rows, columns, channels = input_shape
    try:
        with _opened(path) as image:
            # Nothing is decoded yet.
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(
                    f"{str(path)!r} has {image.width} x {image.height} pixels; at most {MOST_PIXELS:,} are read. Make "
                    f"it smaller: the model takes {columns} x {rows}."
                )
            converted = image.convert("L" if channels == 1 else "RGB").resize(
                (columns, rows), Image.Resampling.BILINEAR
            )
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"{str(path)!r} cannot be read as an image: {error}") from None
    return (np.asarray(converted, np.float32) * (pixel_max / 255.0)).reshape(input_shape)


def _opened(path: Path) -> Image.Image:
    # Our own limit is lower than the one that Pillow warns of.
    with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
        return Image.open(path)

"""Files of data by what users write: names, folders, patterns, or - for the standard input. Imports nothing heavy."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
TABLES = (".csv", ".parquet", ".npy", ".npz")
"""Files that hold inputs of a model, many in each."""
DATA_KINDS = (".csv", ".parquet", ".npz")
"""Files that hold a dataset."""
STDIN = "-"


def images_in(folder: Path) -> list[Path]:
    """Returns the images in a folder and in all folders below it, sorted, without hidden ones."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGES and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    )


def found_files(names: Sequence[str | Path]) -> list[Path]:
    """Returns the files that some names, folders of images and patterns such as `photos/*.png` stand for.

    Raises:
        ValueError: If there is no such file, or no image in a folder.
    """
    return [path for name in names for path in _found(str(name))]


def found_inputs(names: Sequence[str | Path]) -> list[Path]:
    """Returns the files with inputs of a model: one table, or any number of images.

    Raises:
        ValueError: As in `found_files`, and for files of other kinds, or several tables.
    """
    paths = found_files(names)
    kinds = {kind_of(path) for path in paths}
    if kinds <= set(IMAGES) or (len(paths) == 1 and kinds <= set(TABLES)):
        return paths
    raise ValueError(
        f"Expected one .csv, .parquet, .npy or .npz file, or images ({', '.join(IMAGES)}), but got "
        f"{', '.join(map(str, paths[:5]))}{' and others' if len(paths) > 5 else ''}."
    )


def kind_of(path: Path) -> str:
    """Returns the ending of a file in small letters. The standard input is CSV."""
    return ".csv" if str(path) == STDIN else path.suffix.lower()


def _found(name: str) -> list[Path]:
    path = Path(name)
    if name == STDIN or path.is_file():
        return [path]
    if path.is_dir():
        if images := images_in(path):
            return images
        raise ValueError(f"There are no images in the folder {name!r} ({', '.join(IMAGES)}).")
    if glob.has_magic(name):
        if files := sorted(Path(file) for file in glob.glob(name, recursive=True) if Path(file).is_file()):
            return files
        raise ValueError(f"No file matches {name!r}.")
    raise ValueError(f"There is no file {name!r}.")


def is_own_data(name: str) -> bool:
    """Whether the name of a dataset is a path of the user's own data, whether or not it exists."""
    path = Path(name)
    return path.suffix.lower() in DATA_KINDS or len(path.parts) > 1 or path.is_dir()

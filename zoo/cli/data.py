"""Datasets of the command line: registered names, or the user's own files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli.early import check_dataset, registered_datasets
from zoo.cli.progress import say
from zoo.core.paths import DATA_KINDS, is_own_data
from zoo.core.shown import listed

if TYPE_CHECKING:
    from zoo.datasets import Dataset

ALL = "all"
"""Split of own data that is all of its rows."""
_LONGEST_UNIT = 40
FORMS = "name, folder of images (class/file), or .csv, .parquet or .npz file"

TargetOption = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="Column with the targets, for a dataset that is a table of yours.")
]

UnitOption = Annotated[
    str | None,
    typer.Option(metavar="UNIT", help="Unit of targets that are numbers, such as mmHg: stored, and shown with them."),
]


def is_own(dataset: str) -> bool:
    """Whether a dataset is a path of the user's own files. A registered name is that, whatever folders there are."""
    return is_own_data(dataset) and dataset not in registered_datasets()


def check_data(dataset: str, target: str | None) -> None:
    """Checks the dataset of a command before TensorFlow is imported.

    Raises:
        ValueError: For an unknown name, a missing file, or a table without the name of its column of targets.
    """
    if not is_own(dataset):
        if target is not None:
            raise ValueError(
                f"--target names a column of a table of yours, but {dataset!r} is the name of a dataset. Leave it out."
            )
        check_dataset(dataset)
        return
    path = Path(dataset)
    if not path.exists():
        raise ValueError(f"There is no file or folder {dataset!r}. Expected a {FORMS}.")
    if path.is_file() and path.suffix.lower() not in DATA_KINDS:
        raise ValueError(f"{dataset!r} is no dataset. Expected a {FORMS}.")
    is_table = path.suffix.lower() in (".csv", ".parquet")
    if is_table and target is None:
        raise ValueError(f"{dataset!r} is a table: name the column to predict, with --target.{_columns(path)}")
    if target is not None and not is_table:
        raise ValueError(f"--target names a column of a table, but {dataset!r} is none. Leave it out.")


def check_unit(unit: str | None, dataset: str | None) -> None:
    """Checks the unit of the targets before TensorFlow is imported.

    Raises:
        ValueError: If it is empty, too long or not one line, or the dataset is not one of the user's files.
    """
    if unit is None:
        return
    if dataset is None or not is_own(dataset):
        raise ValueError("--target-unit names the unit of data of yours: give them with --dataset.")
    if not unit.strip() or len(unit) > _LONGEST_UNIT or not unit.isprintable():
        raise ValueError(
            f"--target-unit must have 1 to {_LONGEST_UNIT} characters of one line, such as mmHg, but got {unit!r}."
        )


def load_files(path: str, target: str | None, **how: Any) -> Dataset:
    """Returns own files as a dataset, and tells what was found in them; see `dataset_from_files`."""
    from zoo.datasets.own_files import dataset_from_files

    data = dataset_from_files(path, target, **how)
    kind = "numbers" if data.class_names is None else f"{len(data.class_names)} classes, {listed(data.class_names)}"
    sizes = f"{len(data.train):,} to train, {len(data.validation):,} to validate, {len(data.test):,} to test"
    say(f"{path}: {kind}; {f'all {len(data.test):,} rows' if how.get('whole') else sizes}")
    return data


def load_files_like(source: str, path: str, target: str | None, *, keep_classes: bool = True, **how: Any) -> Dataset:
    """Returns own files as a dataset for a model: with its task and its classes, and with its columns by name.

    Args:
        source: Name of the model, or folder or address of its artifact.
        path: The files.
        target: Name of the column of a table that has the targets.
        keep_classes: Whether the outputs stay those of the model, so that the classes are its classes.
        **how: Further arguments of `dataset_from_files`.

    Raises:
        ArtifactError: If there is no such model, or its files are damaged.
        ValueError: As in `dataset_from_files`.
    """
    from zoo.hub.reading import read_artifact

    config = read_artifact(source)["config"]
    about = config.get("data", {})
    how |= {name: about.get(name) for name in ("task", "feature_names")}
    how["images"] = len(config["config"]["input_shape"]) == 3
    return load_files(path, target, class_names=about.get("class_names") if keep_classes else None, **how)


def _columns(path: Path) -> str:
    """Returns the names of the columns of a CSV file for a message."""
    if path.suffix.lower() != ".csv":
        return ""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return f" It has the columns {listed([name.strip() for name in file.readline(10_000).split(',')])}."

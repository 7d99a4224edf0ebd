"""Targets of own files: labels of classes, or numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.core.shown import is_number, listed, shown
from zoo.datasets.base import Task

Parts = dict[str, tuple[npt.NDArray[Any], Any]]
"""Inputs and targets by split; under an empty name if there are no splits."""

# Whole numbers of at most that many different values are classes.
_MOST_CLASSES = 20
_MISSING = {"", "?", "na", "n/a", "#n/a", "<na>", "nan", "nat", "null"}
# Names of classes among text, and nothing but gaps among numbers.
_MISSING_AMONG_NUMBERS = _MISSING | {"-", "none"}
# Above it, floats skip whole numbers.
_MOST_EXACT = 2**53


def with_labels(
    path: Path,
    parts: Parts,
    task: Task | None,
    class_names: Sequence[str] | None,
    own_classes: Sequence[str] | None,
) -> tuple[Parts, tuple[str, ...] | None]:
    """Returns labels or numbers for the targets, and the names of the classes; None for regression.

    Args:
        path: The files, for messages.
        parts: Inputs and targets as they were read.
        task: As in `dataset_from_files`.
        class_names: Names of the classes of a model, or None.
        own_classes: Names that the files give to the positions of their classes, or None.

    Raises:
        ValueError: If the targets are neither, or of other classes.
    """
    if class_names is None or own_classes is None or not set(class_names) & set(own_classes):
        known = "its class_names are" if class_names is None else "the model knows"
        return _labelled(path, parts, task, class_names or own_classes, known)
    labelled, found = _labelled(path, parts, task, own_classes, "its class_names are")
    if found is None:
        return labelled, None
    # A position in the names of the file is another one in those of the model.
    named = {name: (x, np.asarray(found)[y]) for name, (x, y) in labelled.items()}
    return _labelled(path, named, "classification", class_names, "the model knows")


def _labelled(
    path: Path, parts: Parts, task: Task | None, class_names: Sequence[str] | None, known: str
) -> tuple[Parts, tuple[str, ...] | None]:
    values = [np.asarray(y) for _, y in parts.values()]
    values = [y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y for y in values]
    together = np.concatenate(values)
    if together.dtype.kind in "cV":
        raise ValueError(f"{str(path)!r}: the targets are of dtype {together.dtype}; numbers or text were expected.")
    is_text = together.dtype.kind not in "biuf"
    # Folders are always classes.
    is_open = is_text and not path.is_dir() and class_names is None
    if is_open:
        _check_text(path, together, task)
    are_numbers = not is_text or all(is_number(str(value)) for value in together.flat)
    if task != "regression" and _is_one_hot(together):
        raise ValueError(
            f"{str(path)!r}: the targets have {together.shape[1]} columns with one 1 in each row; one class for each "
            "row was expected. Turn one-hot rows into labels with y.argmax(axis=1), or take them as "
            "numbers: task='regression', as with model.likelihood=normal."
        )
    if task is None:
        too_many = is_open and are_numbers and len(np.unique(together)) > math.ceil(len(together) / 2)
        task = "classification" if _are_labels(together) and not too_many else "regression"
    if task == "regression":
        if not are_numbers:
            raise ValueError(
                f"{str(path)!r}: the targets are text, such as {shown(str(together.flat[0]))}; numbers were expected. "
                "Write them as numbers, or train a classifier."
            )
        columns = [y.reshape(len(y), -1).astype(np.float32) for y in values]
        return {name: (x, y) for (name, (x, _)), y in zip(parts.items(), columns, strict=True)}, None
    _check_whole(path, together)
    if together.dtype.kind in "bf":
        values, together = [y.astype(np.int64) for y in values], together.astype(np.int64)
    found = np.unique(together)
    classes = tuple(class_names) if class_names is not None else tuple(map(str, found))
    index = {name: number for number, name in enumerate(classes)}
    unknown = sorted({*map(str, found)} - set(index))
    no_names = len(unknown) == len(found)
    if no_names and together.dtype.kind in "iu" and 0 <= found[0] and found[-1] < len(classes):
        # Numbers of the classes, in their order. One that is a name as well would be of another class.
        index = {str(number): number for number in range(len(classes))}
    elif unknown:
        raise ValueError(
            f"{str(path)!r} has the classes {listed(unknown)}, but {known} {listed(classes)}. Rename them."
        )
    labels = [np.array([index[str(label)] for label in y], np.int64) for y in values]
    return {name: (x, y) for (name, (x, _)), y in zip(parts.items(), labels, strict=True)}, classes


def _check_whole(path: Path, y: npt.NDArray[Any]) -> None:
    """Refuses targets that are not one class for each row."""
    is_class = np.full(y.shape, y.ndim == 1)
    if y.dtype.kind == "f":
        is_class &= np.isfinite(y) & (y == np.round(y)) & (np.abs(y) <= _MOST_EXACT)
    if not is_class.all():
        raise ValueError(
            f"{str(path)!r}: the targets are numbers such as {shown(y[~is_class].flat[0].item())}; one class for each "
            f"row was expected: text, or a whole number of at most {_MOST_EXACT:,}. Write classes, fill in what is "
            "missing, or train on numbers: model.likelihood=normal."
        )


def _is_one_hot(y: npt.NDArray[Any]) -> bool:
    """Whether targets are rows of zeros with a single one."""
    if y.ndim != 2 or y.dtype.kind not in "biuf":
        return False
    return bool(np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all())


def _check_text(path: Path, y: npt.NDArray[Any], task: Task | None) -> None:
    """Refuses text that would be classes although it was hardly meant so."""
    texts = [str(value) for value in y.flat]
    others = [row for row, text in enumerate(texts) if not is_number(text)]
    is_few = len(others) <= y.size / 2
    if task == "classification":
        # Grades K, 1, 2, ... are classes then.
        others = [row for row in others if texts[row].strip().lower() in _MISSING_AMONG_NUMBERS]
    if others and is_few:
        raise ValueError(
            f"{str(path)!r}: the target of row {others[0]} is {shown(texts[others[0]])}, text next to mostly numbers. "
            "Fill in a number, or leave the row out. If it is a class, name the others by text too."
        )
    missing = next((row for row, text in enumerate(texts) if text.strip().lower() in _MISSING), None)
    if missing is not None:
        raise ValueError(
            f"{str(path)!r}: the target of row {missing} is {shown(texts[missing])}, which stands for a missing value. "
            "Fill it in, or leave the row out. If it is a class, give it another name."
        )
    if task is None and others and (found := len(np.unique(y))) > (most := math.ceil(len(y) / 2)):
        raise ValueError(
            f"{str(path)!r}: the targets are text, such as {shown(texts[0])}, with {found:,} different values in "
            f"{len(y):,} rows; as classes at most {most:,} were expected. Write numbers without units and signs, or "
            "merge classes."
        )


def _are_labels(y: npt.NDArray[Any]) -> bool:
    if y.ndim != 1 or y.dtype.kind not in "biuf":
        return y.ndim == 1
    is_whole = bool(np.all(np.isfinite(y)) and np.all(y == np.round(y)))
    return is_whole and len(np.unique(y)) <= min(_MOST_CLASSES, math.ceil(len(y) / 2))

"""Datasets from files of the user: a folder of images, a table as CSV or Parquet, or an NPZ file of arrays."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfp_bnn.core.registry import unknown_name_message
from zoo.core.paths import DATA_KINDS, IMAGES, images_in
from zoo.core.shown import listed, shown
from zoo.datasets.base import SPLIT_NAMES, Dataset, Split, Task, hold_out, split_rows
from zoo.datasets.image_files import decoded_image, image_header
from zoo.datasets.labels import Parts, with_labels
from zoo.datasets.tables import by_names, columns_of_model, named_once, read_csv_columns, read_npz, read_parquet

# Names that people give to the folders of splits.
_SPLITS = {"train": "train", "training": "train", "validation": "validation", "valid": "validation"}
_SPLITS |= {"val": "validation", "test": "test", "testing": "test"}
_MOST_BYTES = 2**31
_MOST_SIDE = 256
# Of each class, for splits with the same share of it.
_FEWEST_TO_STRATIFY = 5


def dataset_from_files(
    path: str | Path,
    target: str | None = None,
    *,
    task: Task | None = None,
    class_names: Sequence[str] | None = None,
    feature_names: Sequence[str] | None = None,
    whole: bool = False,
    target_unit: str | None = None,
    images: bool = True,
) -> Dataset:
    r"""Reads a dataset from files.

    Files without splits of their own are split at random with a fixed seed: 64 % train, 16 % validation and 20 % test,
    with the same share of each class if there are enough rows of each. So the same files give the same splits.

    Args:
        path: One of

            - a folder of images, one subfolder per class: `photos/cat/1.jpg`; perhaps below folders `train`,
              `validation` and `test`. Images become uint8, grey if all are, else RGB. Those of another size than most
              are resized to that, and no side is longer than 256 pixels. White of grey images of 16 bits is 65,535;
              those of 32 bits are refused.
            - a `.csv` file with a header, or a `.parquet` file: numbers in all columns but the target.
            - an `.npz` file with the arrays `x` and `y`, or `x_train`, `y_train`, `x_test`, `y_test`, perhaps
              `x_validation` and `y_validation`, and perhaps `class_names` and `feature_names`.
        target: Name of the column of a table that has the targets.
        task: `"classification"` or `"regression"`. If None, text with at most half as many different values as there
            are rows is classes, and so are whole numbers if they have at most 20 different values as well. Text next to
            mostly numbers is refused, and so is what stands for a missing value, such as `"NA"`.
        class_names: Names of the classes of a model, to whose labels those of the files are matched by name: their
            text, or the `class_names` of an `.npz` file. Whole numbers of which none is a name are positions in this
            list. Default: the `class_names` of an `.npz` file, or else the names in the files, sorted.
        feature_names: Names of the columns of a model. A table that has them, or an `.npz` file with `feature_names`,
            is read by these names, whatever the order and what else it has. One that has none of them is taken as it
            is.
        whole: Whether each split is to be all rows, to judge a model on all of them.
        target_unit: Unit of the targets of a regression, such as `"mmHg"`, or None.
        images: Whether inputs with two axes in an `.npz` file are grey images, which get an axis for the channel. If
            False, they are series of time steps and channels.

    Returns:
        The dataset, with the name of the file or folder.

    Raises:
        ValueError: If something is missing, unreadable or does not fit; the message says where.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "flats.csv"
        ...     _ = file.write_text("area,rooms,price\n" + "50.5,2,100\n70,3,150.5\n" * 20)
        ...     flats = dataset_from_files(file, "price")
        >>> flats.task, flats.feature_names, len(flats.train), len(flats.test)
        ('regression', ('area', 'rooms'), 25, 8)
    """
    path = Path(path)
    names: Sequence[str] | None = None
    own_classes: Sequence[str] | None = None
    if path.is_dir():
        parts = _read_folder(path, whole)
    elif path.suffix.lower() == ".npz" and path.is_file():
        parts, names, own_classes = _read_npz(path, images, feature_names)
    elif path.suffix.lower() in DATA_KINDS and path.is_file():
        x, y, names = _read_table(path, target, feature_names)
        parts = {"": (x, y)}
    else:
        raise ValueError(
            f"Expected a folder of images or a file ({', '.join(DATA_KINDS)}), but {str(path)!r} is none of them."
        )
    if target is not None and names is None:
        raise ValueError("--target (target=...) names a column of a table. Leave it out for images and .npz files.")
    _check_rows(path, parts)
    labelled, found_classes = with_labels(path, parts, task, class_names, own_classes)
    if target_unit is not None and found_classes is not None:
        raise ValueError(
            f"{str(path)!r}: got the unit {shown(target_unit)}, but the targets are {len(found_classes)} classes. "
            "Leave it out, or have them taken as numbers: model.likelihood=normal."
        )
    num_targets = next(iter(labelled.values()))[1][:1].size
    return Dataset(
        name=path.stem or path.resolve().name,
        task="regression" if found_classes is None else "classification",
        **_splits(path, labelled, found_classes is not None, whole),
        feature_names=None if names is None else tuple(names),
        class_names=found_classes,
        description=f"Data of the user, from {path.name}.",
        source=f"own files: {path.name}",
        target_units=None if target_unit is None else (target_unit,) * num_targets,
    )


def _read_folder(folder: Path, whole: bool) -> Parts:
    subfolders = {path.name: path for path in _folders_in(folder)}
    of_splits = {name: _SPLITS.get(name.lower()) for name in subfolders}
    others = [name for name, split in of_splits.items() if split is None]
    if others and "train" in of_splits.values() and len({*of_splits.values()} - {None}) > 1:
        known = [name for name, split in of_splits.items() if split is not None]
        raise ValueError(
            f"{str(folder)!r} has the folders of splits {listed(known)} next to {listed(others)}. Move what is no "
            "split out of it. If all are classes, rename the folders that are called like a split."
        )
    has_train = "train" in of_splits.values()
    # Folders of classes hold images, those of splits hold folders.
    are_splits = not others and (has_train or (subfolders and all(map(_folders_in, subfolders.values()))))
    if are_splits and not has_train and not whole:
        raise ValueError(
            f"{str(folder)!r} has the folders of splits {listed(subfolders)}, but none of training. Add one called "
            "'train', or judge a model on all of them with --split all."
        )
    if not are_splits:
        splits = {"": folder}
    else:
        splits = {str(of_splits[name]): subfolders[name] for name in _one_for_each(folder, of_splits)}
    files = {name: _labelled_images(path) for name, path in splits.items()}
    shape = _common_shape(folder, [path for found in files.values() for path, _ in found])
    return {
        str(name): (np.stack([decoded_image(path, shape) for path, _ in found]), [label for _, label in found])
        for name, found in files.items()
    }


def _folders_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _labelled_images(folder: Path) -> list[tuple[Path, str]]:
    found = [(path, of_class.name) for of_class in _folders_in(folder) for path in images_in(of_class)]
    classes = {label for _, label in found}
    empty = [path.name for path in _folders_in(folder) if path.name not in classes]
    if len(classes) < 2 or empty:
        problem = f"those called {listed(empty)} have no images" if empty else f"got {len(classes)} with images"
        raise ValueError(
            f"{str(folder)!r} must have one subfolder of images per class, at least two, as in {folder.name}/cat/1.jpg "
            f"({', '.join(IMAGES)}); {problem}."
        )
    return found


def _common_shape(folder: Path, paths: Sequence[Path]) -> tuple[int, int, int]:
    """Returns rows, columns and channels of all images: the size of most of them, grey if all are."""
    headers = [image_header(path) for path in paths]
    channels = 1 if all(grey for _, grey in headers) else 3
    sizes = Counter(size for size, _ in headers)
    (width, height), number = sizes.most_common(1)[0]
    shrunk = min(1.0, _MOST_SIDE / max(width, height))
    rows, columns = max(1, round(height * shrunk)), max(1, round(width * shrunk))
    if number < len(paths) or shrunk < 1:
        warnings.warn(
            f"{len(paths) - number if shrunk == 1 else len(paths)} of {len(paths)} images in {str(folder)!r} are "
            f"resized to {columns} x {rows} pixels.",
            UserWarning,
            stacklevel=2,
        )
    if len(paths) * rows * columns * channels > _MOST_BYTES:
        raise ValueError(
            f"{len(paths):,} images of {columns} x {rows} pixels in {str(folder)!r} take more than 2 GiB. Make them "
            "smaller, or use fewer."
        )
    return rows, columns, channels


def _read_npz(
    path: Path, images: bool, feature_names: Sequence[str] | None
) -> tuple[Parts, Sequence[str] | None, Sequence[str] | None]:
    arrays = read_npz(path)
    columns, classes = ([*map(str, arrays[k])] if k in arrays else None for k in ("feature_names", "class_names"))
    by_split: Parts = {}
    of_splits = {"x": "", **{f"x_{suffix}": split for suffix, split in _SPLITS.items()}}
    for key in _one_for_each(path, {key: split for key, split in of_splits.items() if key in arrays}):
        if f"y{key[1:]}" not in arrays:
            raise ValueError(f"{str(path)!r} has the array {key!r} without 'y{key[1:]}'. Add its targets.")
        x, y = arrays[key], arrays[f"y{key[1:]}"]
        if not x.ndim or not y.ndim:
            raise ValueError(f"{str(path)!r}: {key!r} or its targets are a single number. Give one row per example.")
        x, names = (x, None) if columns is None else by_names(path, x, columns, feature_names)
        by_split[of_splits[key]] = (x[..., np.newaxis] if images and x.ndim == 3 else x, y)
    if "" in by_split and len(by_split) > 1:
        raise ValueError(
            f"{str(path)!r} has the arrays {listed(arrays)}: 'x' next to arrays of splits. Call it 'x_train', and its "
            "targets 'y_train', or leave it out."
        )
    if "" not in by_split and "train" not in by_split:
        raise ValueError(
            f"{str(path)!r} has the arrays {listed(arrays)}; 'x' and 'y', or 'x_train', 'y_train', 'x_test' "
            "and 'y_test' were expected."
        )
    return by_split, names, classes


def _one_for_each(path: Path, of_splits: Mapping[str, str | None]) -> Mapping[str, str | None]:
    """Refuses two names of one split; else returns them."""
    for split in of_splits.values():
        if len(names := [name for name, of in of_splits.items() if of == split]) > 1:
            raise ValueError(f"{str(path)!r} has {listed(names)}, all for the {split} split. Join them, or keep one.")
    return of_splits


def _read_table(
    path: Path, target: str | None, feature_names: Sequence[str] | None
) -> tuple[npt.NDArray[np.float32], Any, list[str]]:
    if target is None:
        raise ValueError(f"{str(path)!r} is a table: name the column to predict, with --target (target=...).")
    read = read_parquet if path.suffix.lower() == ".parquet" else read_csv_columns

    def chosen(header: Sequence[str]) -> list[str]:
        if target not in header:
            raise ValueError(f"{str(path)!r}: {unknown_name_message('column', target, header)}")
        named_once(path, [name for name in header if name == target])
        others = [name for name in header if name != target]
        if not others:
            raise ValueError(f"{str(path)!r} has no column but the target {target!r}. Add columns of inputs.")
        names = feature_names or ()
        return columns_of_model(path, header, names) if set(names) & set(header) else named_once(path, others)

    return read(path, chosen, target)


def _check_rows(path: Path, parts: Parts) -> None:
    """Refuses splits without rows, without a target for each input, or with inputs of other shapes than the first."""
    shapes = {name: x.shape[1:] for name, (x, _) in parts.items()}
    first = next(iter(shapes))
    for name, (x, y) in parts.items():
        where = f" in {name!r}" if name else ""
        if len(x) != len(y):
            raise ValueError(
                f"{str(path)!r} has {len(x)} inputs and {len(y)} targets{where}. Give one target per input."
            )
        if not len(x):
            raise ValueError(f"{str(path)!r} has no rows{where}. Add some, or leave the split out.")
        if x.shape[1:] != shapes[first]:
            raise ValueError(
                f"{str(path)!r} has inputs of shape {x.shape[1:]}{where} and of shape {shapes[first]} in {first!r}. "
                "Give all splits inputs of the same shape."
            )


def _splits(path: Path, parts: Parts, is_labelled: bool, whole: bool) -> dict[str, Any]:
    if whole:
        x = np.concatenate([x for x, _ in parts.values()])
        return dict.fromkeys(SPLIT_NAMES, Split(x, np.concatenate([y for _, y in parts.values()])))
    if "" in parts:
        x, y = parts[""]
        if len(x) < _FEWEST_TO_STRATIFY:
            raise ValueError(
                f"{str(path)!r} has {len(x)} rows: too few to split. Give more, or judge with --split all."
            )
        return split_rows(x, y, stratify=_can_stratify(y, is_labelled))
    splits = {name: Split(*part) for name, part in parts.items()}
    missing = [name for name in ("test", "validation") if name not in splits]
    if len(splits["train"]) <= len(missing):
        raise ValueError(
            f"{str(path)!r} has training rows: {len(splits['train'])}, too few to hold some out for {listed(missing)}. "
            "Give more, or these splits too."
        )
    for name in missing:
        rest = splits["train"]
        splits["train"], splits[name] = hold_out(rest, _can_stratify(rest.y, is_labelled))
    return splits


def _can_stratify(y: npt.NDArray[Any], is_labelled: bool) -> bool:
    return is_labelled and min(Counter(y.tolist()).values()) >= _FEWEST_TO_STRATIFY

"""Datasets: three splits with their names, validated on creation."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import train_test_split

from tfp_bnn.core.expected_inputs import ExpectedInputs
from tfp_bnn.core.registry import Registry, unknown_name_message
from zoo.core.names import check_plain_name

Task = Literal["classification", "regression"]


class DataMissingError(OSError):
    """Error for a known dataset whose data are not on this machine."""


SPLIT_NAMES = ("train", "validation", "test")
# The first seed that puts the two identical rows of iris into one split.
SPLIT_SEED = 1
GENERATED = "generated"
"""Licence of data that a function makes."""
# Validation is 20 % of the rows outside the test split: 16 % of all rows.
HELD_OUT_FRACTION = 0.2


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Inputs and targets, one row per example. Checked by the `Dataset` that contains it.

    Attributes:
        x: Inputs of shape `(n, *input_shape)`.
        y: Integer labels of shape `(n,)` for classification, floating-point targets of shape `(n, outputs)` for
            regression.
    """

    x: npt.NDArray[Any]
    y: npt.NDArray[Any]

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.x)

    def __repr__(self) -> str:
        parts = [f"{name} {array.shape} {array.dtype}" for name, array in (("x", self.x), ("y", self.y))]
        return f"<Split of {len(self):,} rows: {', '.join(parts)}>"

    @property
    def digest(self) -> str:
        """SHA-256 of the rows: shapes, dtypes and values."""
        digest = hashlib.sha256()
        for array in (self.x, self.y):
            digest.update(f"{array.dtype.str} {array.shape}".encode())
            # Without the copy of `tobytes`.
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return digest.hexdigest()


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A task with fixed train, validation and test splits.

    Attributes:
        name: Name under which it is registered.
        task: `"classification"` or `"regression"`.
        train: Split for fitting.
        validation: Split for hyperparameters, early stopping and calibration.
        test: Split that is read once, for the published numbers.
        feature_names: One name per column of a table, or None if the inputs are not a table.
        class_names: One name per label, in the order of the labels; None for regression.
        description: One or two sentences.
        source: Origin of the data.
        num_groups: Number of groups for grouped data, such as one group per patient. The last column of the inputs is
            then the group, 0 to `num_groups - 1`. None for data without groups.
        license: Licence of the data, `"generated"` if a program makes them, or None if none is known.
        citation: What to cite for the data, or None.
        target_units: One unit per target of a regression, such as `("mmHg",)`, for predictions and reports; None if
            they have no name.

    Raises:
        ValueError: If the parts are inconsistent, empty or contain NaN. The message names the dataset and the split.
    """

    name: str
    task: Task
    train: Split
    validation: Split
    test: Split
    feature_names: tuple[str, ...] | None
    class_names: tuple[str, ...] | None
    description: str
    source: str
    num_groups: int | None = None
    license: str | None = None
    citation: str | None = None
    target_units: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Refuses inconsistent parts."""
        self._check_names()
        self._check_units()
        for split_name in SPLIT_NAMES:
            self._check_split(split_name)

    def __repr__(self) -> str:
        rows = ", ".join(f"{len(self.split(name)):,} {name}" for name in SPLIT_NAMES)
        targets = "" if self.num_classes is None else f", {self.num_classes} classes"
        return f"<Dataset {self.name!r}, {self.task}: {rows} rows; inputs {self.input_shape}{targets}>"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input, without the row axis."""
        return self.train.x.shape[1:]

    @property
    def num_classes(self) -> int | None:
        """The number of classes, or None for regression."""
        return None if self.class_names is None else len(self.class_names)

    def split(self, name: str) -> Split:
        """Returns the split called `"train"`, `"validation"` or `"test"`.

        Raises:
            ValueError: If the name is unknown. The message gives the nearest.
        """
        if name not in SPLIT_NAMES:
            raise ValueError(unknown_name_message(f"split of the dataset {self.name!r}:", name, SPLIT_NAMES))
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]

    def about(self) -> dict[str, Any]:
        """Returns what an artifact says about the data that its model was trained on."""
        return {
            "dataset": self.name,
            "task": self.task,
            "class_names": self.class_names,
            "feature_names": self.feature_names,
            "inputs": ExpectedInputs.of(self.train.x, self.feature_names).get_config(),
            "source": self.source,
            "license": self.license,
            "citation": self.citation,
            **({} if self.target_units is None else {"target_units": self.target_units}),
        }

    def _check_names(self) -> None:
        if self.task not in get_args(Task):
            raise ValueError(f"Dataset {self.name!r}: {unknown_name_message('task', self.task, get_args(Task))}")
        if self.task == "classification" and (self.class_names is None or len(self.class_names) < 2):
            raise ValueError(
                f"Dataset {self.name!r}: got class_names={self.class_names!r}, expected at least two names for "
                "classification. Give one name per label."
            )
        if self.task == "regression" and self.class_names is not None:
            raise ValueError(
                f"Dataset {self.name!r}: got class_names={self.class_names!r}, expected None for regression. Drop "
                "them, or set task='classification'."
            )
        for what, names in (("feature_names", self.feature_names), ("class_names", self.class_names)):
            for name, number in Counter(names or ()).items():
                if number > 1:
                    raise ValueError(
                        f"Dataset {self.name!r}: got {name!r} {number} times in {what}, expected each name once. "
                        "Rename all but one, or merge what they name."
                    )

    def _check_units(self) -> None:
        units, targets = self.target_units, 0 if self.task == "classification" else self.train.y[0:1].size
        if units is None:
            return
        if isinstance(units, str) or len(units) != targets or not all(unit and isinstance(unit, str) for unit in units):
            expected = f"{targets} names, one for each target" if targets else "None for classification"
            raise ValueError(f"Dataset {self.name!r}: got target_units={units!r}, expected {expected}.")

    def _check_split(self, split_name: str) -> None:
        split = self.split(split_name)
        where = f"Dataset {self.name!r}, split {split_name!r}"
        if split.x.ndim < 2 or split.x.shape[1:] != self.input_shape:
            raise ValueError(
                f"{where}: got x of shape {split.x.shape}, expected (rows, *{self.input_shape}) as in 'train', with at "
                "least one axis after the rows. Reshape x."
            )
        if len(split.x) == 0:
            raise ValueError(f"{where}: got 0 rows, expected at least one. Give every split some rows.")
        if split.y.shape[:1] != (len(split.x),):
            raise ValueError(
                f"{where}: got {len(split.x)} rows of x and y of shape {split.y.shape}, expected as many rows of y. "
                "Give one y per row of x."
            )
        if self.feature_names is not None and self.input_shape != (len(self.feature_names),):
            raise ValueError(
                f"{where}: got x with rows of shape {self.input_shape}, expected ({len(self.feature_names)},), one "
                "column per feature name. Give a name to every column, or feature_names=None for inputs that are not "
                "a table."
            )
        _check_finite(where, "x", split.x)
        if self.num_groups is not None:
            _check_groups(where, split.x[..., -1], self.num_groups)
        if self.class_names is None:
            _check_regression_targets(where, split.y)
        else:
            _check_labels(where, split.y, len(self.class_names))


DATASETS: Registry[Callable[[], Dataset]] = Registry("dataset")


def register_dataset(name: str) -> Callable[[Callable[[], Dataset]], Callable[[], Dataset]]:
    """Returns a decorator that registers a function without arguments that makes a `Dataset`.

    The function runs when the dataset is loaded, not when it is registered.

    Args:
        name: Lower-case letters, digits and underscores; `Dataset.name` must be the same.

    Raises:
        ValueError: For a name that is malformed, or taken by another dataset.

    Example:
        >>> import dataclasses, zoo
        >>> from zoo.datasets import DATASETS
        >>> @zoo.register_dataset("iris_small")
        ... def iris_small():
        ...     iris = zoo.load_dataset("iris")
        ...     train = dataclasses.replace(iris.train, x=iris.train.x[:30], y=iris.train.y[:30])
        ...     return dataclasses.replace(iris, name="iris_small", train=train)
        >>> len(zoo.load_dataset("iris_small").train)
        30
        >>> DATASETS.unregister("iris_small")
    """
    return DATASETS.register(check_plain_name("dataset", name))


def split_rows(x: npt.NDArray[Any], y: npt.NDArray[Any], *, stratify: bool) -> dict[str, Any]:
    """Splits rows randomly with a fixed seed: 20 % test, 16 % validation, the rest train.

    Args:
        x: Inputs of shape `(n, ...)`.
        y: Targets, one per row.
        stratify: Whether every class has the same share of each split; only for integer labels. Splits that are too
            small to hold every class are chosen from all rows alike.

    Returns:
        The splits by name, as keyword arguments for `Dataset`.
    """
    rest, test = hold_out(Split(x, y), stratify)
    train, validation = hold_out(rest, stratify)
    return {"train": train, "validation": validation, "test": test}


def hold_out(split: Split, stratify: bool) -> tuple[Split, Split]:
    """Returns 80 % and 20 % of the rows of a split, chosen at random with a fixed seed; see `split_rows`."""
    labels = split.y if stratify and _holds_every_class(split.y) else None
    kept_x, held_x, kept_y, held_y = train_test_split(
        split.x, split.y, test_size=HELD_OUT_FRACTION, random_state=SPLIT_SEED, stratify=labels
    )
    return Split(kept_x, kept_y), Split(held_x, held_y)


def _holds_every_class(labels: npt.NDArray[Any]) -> bool:
    """Whether both parts of `hold_out` can have a row of each class."""
    counts = np.unique(labels, return_counts=True)[1]
    held = math.ceil(HELD_OUT_FRACTION * len(labels))
    return bool(counts.min() >= 2) and len(counts) <= min(held, len(labels) - held)


def _check_groups(where: str, groups: npt.NDArray[Any], num_groups: int) -> None:
    unknown = groups[~np.isin(groups, np.arange(num_groups))]
    if unknown.size:
        raise ValueError(
            f"{where}: got the group {unknown[0]:g} in the last column of x, expected 0 to {num_groups - 1} for "
            f"num_groups={num_groups}. Number the groups from 0 in the last column, leave out the rows of other "
            "groups, or raise num_groups and train with it. For inputs without a group, drop it."
        )


def _check_labels(where: str, labels: npt.NDArray[Any], num_classes: int) -> None:
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{where}: got y of shape {labels.shape} and dtype {labels.dtype}, expected integer labels of shape "
            "(rows,). Turn one-hot rows into labels with y.argmax(axis=1), other labels with y.astype('int64')."
        )
    low, high = labels.min(), labels.max()
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"{where}: got labels from {low} to {high}, expected 0 to {num_classes - 1} for {num_classes} class names. "
            "Renumber the labels, or give a name to every class."
        )


def _check_regression_targets(where: str, targets: npt.NDArray[Any]) -> None:
    if targets.ndim != 2 or not np.issubdtype(targets.dtype, np.floating):
        raise ValueError(
            f"{where}: got y of shape {targets.shape} and dtype {targets.dtype}, expected floating-point targets of "
            "shape (rows, outputs). For a single output use y.reshape(-1, 1).astype('float32')."
        )
    _check_finite(where, "y", targets)


def _check_finite(where: str, what: str, values: npt.NDArray[Any]) -> None:
    if values.dtype.kind not in "iuf":
        raise ValueError(f"{where}: got {what} of dtype {values.dtype}, expected numbers that are real. Use float32.")
    finite = np.isfinite(values)
    if not finite.all():
        first = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise ValueError(
            f"{where}: got {np.count_nonzero(~finite)} NaN or infinite values in {what}, the first at index {first}, "
            "expected finite numbers. Drop those rows or fill them in."
        )

"""Makes the inputs of a model from columns of a file, and says why a row does not fit."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from tfp_bnn.core.registry import unknown_name_message

_MOST_SHOWN = 20
# Below it, every integer is a float64.
_EXACT_FLOATS = 2.0**53


@dataclass(frozen=True)
class InputColumns:
    """The columns that one input of a model is made of.

    Attributes:
        name: Name of the input.
        columns: One column that has all its values in each row, as a list in row-major order, or a column for each.
        shape: Shape of the input, without the batch.
        dtype: Its NumPy dtype; object for strings.
    """

    name: str
    columns: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype

    def array(self, columns: Mapping[str, pa.Array], faults: dict[int, str]) -> np.ndarray:
        """The input for rows, `(rows, *shape)`. A row that does not fit is zero, and its reason is put into `faults`.

        Raises:
            ValueError: If a column is of a type that has neither numbers nor strings.
        """
        number = len(columns[self.columns[0]])
        width = math.prod(self.shape) // len(self.columns)
        parts = [self._values(name, columns[name], number, width, faults) for name in self.columns]
        values = np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
        return values.reshape(number, *self.shape)

    def _values(self, name: str, column: pa.Array, number: int, width: int, faults: dict[int, str]) -> np.ndarray:
        """The values of one column, `(rows, width)`, in the dtype of the input."""
        flat, owners = flattened(column)
        counts = np.bincount(owners, minlength=number)
        wrong = counts != width
        for row in np.flatnonzero(wrong):
            faults.setdefault(int(row), f"{name!r} has {counts[row]} values; expected {width}")
        values, fits, reason = self._converted(name, flat)
        found = np.zeros((number, width), self.dtype)
        found[~wrong] = values[~wrong[owners]].reshape(-1, width)
        misfits = np.zeros((number, width), bool)
        misfits[~wrong] = ~fits[~wrong[owners]].reshape(-1, width)
        self._blame(misfits, reason, faults)
        found[misfits] = 0
        return found

    def _converted(self, name: str, values: pa.Array) -> tuple[np.ndarray, np.ndarray, str]:
        """Values in the dtype of the input, which of them fit, and what the others have, in words."""
        if self.dtype.kind == "O":
            return strings(values), pc.is_valid(values).to_numpy(zero_copy_only=False), "has values that are missing"
        if self.dtype.kind in "iub":
            reason = f"has values that are missing or no numbers of the type {self.dtype}"
            return *integers(name, values, self.dtype), reason
        with np.errstate(over="ignore"):
            found = numbers(name, values).astype(self.dtype)
        return found, np.isfinite(found), "has values that are missing, no numbers, NaN or infinite"

    def _blame(self, values: np.ndarray, reason: str, faults: dict[int, str]) -> None:
        for row in np.flatnonzero(values.any(axis=1)):
            faults.setdefault(int(row), f"{self.name!r} {reason}")


def flattened(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """The values in the lists of a column, however deep they are, and the row of each; a plain column is its values."""
    owners = np.arange(len(column))
    while True:
        if isinstance(column, pa.ExtensionArray):
            column = column.storage
        elif pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        elif pa.types.is_nested(column.type) and hasattr(column.type, "value_type"):
            owners = owners[pc.list_parent_indices(column).to_numpy()]
            column = pc.list_flatten(column)
        else:
            return column, owners


def numbers(name: str, values: pa.Array) -> np.ndarray:
    """Returns values as float64, `(values,)`; NaN for those that are missing or not numbers.

    Raises:
        ValueError: If they are of a type that has no numbers.
    """
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        with contextlib.suppress(pa.ArrowInvalid):
            return pc.cast(pc.utf8_trim_whitespace(values), pa.float64()).to_numpy(zero_copy_only=False)
        return np.array([_number(text) for text in values.to_pylist()], np.float64)
    if pa.types.is_floating(values.type) or pa.types.is_integer(values.type) or pa.types.is_decimal(values.type):
        return pc.cast(values, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    if pa.types.is_boolean(values.type):
        return pc.cast(values, pa.uint8()).to_numpy(zero_copy_only=False).astype(np.float64)
    raise ValueError(f"The column {name!r} is of the type {values.type}; expected numbers, or lists of numbers.")


def integers(name: str, values: pa.Array, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Values as integers or booleans, 0 for those that a type does not have, and which it has; each `(values,)`.

    Integers, texts and decimals are exact. Floats from 2^53 on do not fit: they may stand for several integers.

    Raises:
        ValueError: As in `numbers`.
    """
    least, most = (0, 1) if dtype.kind == "b" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    if pa.types.is_boolean(values.type):
        values = pc.cast(values, pa.uint8())
    if pa.types.is_integer(values.type):
        found = pc.fill_null(values, 0).to_numpy(zero_copy_only=False)
        fits = pc.is_valid(values).to_numpy(zero_copy_only=False) & (found >= least) & (found <= most)
        return np.where(fits, found, 0).astype(dtype), fits
    found = numbers(name, values)
    is_small = np.abs(found) < _EXACT_FLOATS
    fits = is_small & (found == np.rint(found)) & (found >= least) & (found <= most)
    whole = np.where(fits, found, 0).astype(dtype)
    for place in np.flatnonzero(~is_small & ~np.isnan(found)):
        exact = _integer(values[int(place)].as_py())
        if exact is not None and least <= exact <= most:
            whole[place], fits[place] = exact, True
    return whole, fits


def strings(values: pa.Array) -> np.ndarray:
    """Values as an array of `bytes` or `str` objects, or None."""
    found = np.empty(len(values), object)
    found[:] = values.to_pylist()
    return found


def _number(text: str | None) -> float:
    try:
        # Python takes underscores in numbers; nobody else does.
        return math.nan if text is None or "_" in text else float(text)
    except ValueError:
        return math.nan


def _integer(value: Any) -> int | None:
    """The integer that a text or a decimal is; None for others."""
    try:
        exact = None if isinstance(value, float) else int(value)
    except ValueError:
        return None
    return exact if isinstance(value, str) or exact == value else None


def choose_columns(
    inputs: Mapping[str, tf.TensorSpec],
    columns: Any,
    path: str,
    found: Sequence[str],
    keep: Sequence[str],
) -> list[InputColumns]:
    """The columns of each input of a model.

    Args:
        inputs: The inputs by name.
        columns: What the user said: None; the name of a column or a sequence of names, where there is one input; or
            such by the name of the input.
        path: Path of the first file.
        found: Its columns.
        keep: The columns that are no inputs.

    Raises:
        ValueError: If there are no columns for an input, or not as many as it has values.
    """
    if columns is None:
        by_input: Mapping[str, Any] = {}
    elif isinstance(columns, Mapping):
        by_input = columns
    elif len(inputs) == 1:
        by_input = dict.fromkeys(inputs, columns)
    else:
        raise ValueError(
            f"The model has the inputs {', '.join(inputs)}. Expected `columns` by input, such as "
            f"{{{next(iter(inputs))!r}: ['a', 'b']}}, but got {columns!r}."
        )
    if unknown := sorted(set(by_input) - set(inputs)):
        raise ValueError(f"`columns` has {unknown[0]!r}; the inputs of the model are {', '.join(inputs)}.")
    others = [name for name in found if name not in keep]
    chosen = []
    for name, spec in inputs.items():
        shape = tuple(spec.shape[1:])
        if None in shape:
            raise ValueError(
                f"The input {name!r} of the model has the shape {tuple(spec.shape)}, so rows may differ in size. "
                "Export it with one size: input_signature=[keras.InputSpec(shape=(None, 20), dtype=...)]."
            )
        size = math.prod(shape)
        given = by_input.get(name, name)
        if name not in by_input and name not in found:
            if len(inputs) > 1 or len(others) != size:
                raise ValueError(
                    f"{path!r} has the columns {_shown(found)}, and none that is called {name!r}, as the input of the "
                    f"model is. It has {size} values, of the shape {shape}. Name the columns: "
                    "columns=['a', 'b'], or one that has lists."
                )
            given = others
        names = (given,) if isinstance(given, str) else tuple(given)
        if len(names) not in (1, size):
            raise ValueError(
                f"`columns` has {len(names)} columns for the input {name!r}, which has {size} values, of the shape "
                f"{shape}. Expected a column for each, or one that has lists of them."
            )
        require_columns(path, found, names)
        dtype = np.dtype(object) if spec.dtype == tf.string else np.dtype(spec.dtype.as_numpy_dtype)
        chosen.append(InputColumns(name, names, shape, dtype))
    return chosen


def require_columns(path: str, found: Sequence[str], needed: Sequence[str]) -> None:
    """Raises a ValueError if a file lacks a column, with the name that is nearest."""
    for name in needed:
        if name not in found:
            raise ValueError(f"{path!r}: {unknown_name_message('column', name, found)}")


def _shown(names: Sequence[str]) -> str:
    rest = len(names) - _MOST_SHOWN
    return ", ".join(map(repr, names[:_MOST_SHOWN])) + (f" and {rest} more" if rest > 0 else "")

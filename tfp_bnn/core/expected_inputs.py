"""What inputs of a model look like, and how to notice those that cannot be right."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# A value is far outside if it leaves the range by this share of the range.
_MARGIN = 0.1
# Of that many rows, some are.
_RARE = 0.1
# The mean of an example, or of all values of a column, in standard deviations from that of training.
_FAR = 5.0
# Inputs whose values span less than this share of the range were rescaled.
_SQUEEZED = 0.07
# Of the greatest size of a value. Stored values have six digits, and inputs may be of another float type.
_ROUNDING = 1e-5
_NAMES_SHOWN = 3
_MOST_ROWS = 10_000


class UnlikelyInputsWarning(UserWarning):
    """Inputs are far from those that a model was trained on: predictions for them may be wrong and confident."""


@contextlib.contextmanager
def any_inputs() -> Iterator[None]:
    """Keeps models quiet about inputs that they were not trained for, where these are what is wanted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnlikelyInputsWarning)
        yield


@dataclass(frozen=True)
class ExpectedInputs:
    """Range and moments of the inputs that a model was trained on, for each column of a table or channel of an image.

    Compares whole batches of inputs with simple limits. It finds mistakes (pixels that were divided by 255 already,
    dark ink on white paper, columns in another order), and leaves subtle shifts to the epistemic uncertainty.

    Attributes:
        low: Least value of each column or channel.
        high: Greatest value.
        mean: Mean of the column; for images, of the examples' mean values.
        std: Standard deviation of the same.
        names: Names of the columns; None without names.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Refuses values that are not one finite number for each column, in order."""
        for name in ("low", "high", "mean", "std"):
            values = getattr(self, name)
            numbers = all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values)
            if not numbers or len(values) != len(self.low) or not values:
                raise ValueError(
                    f"Expected inputs: `{name}` is {values!r}. Expected a finite number for each of the "
                    f"{len(self.low)} columns or channels."
                )
        if any(low > high for low, high in zip(self.low, self.high, strict=True)) or min(self.std) < 0:
            raise ValueError("Expected inputs: `low` must not be above `high`, nor `std` below 0.")
        if self.names is not None and len(self.names) != len(self.low):
            raise ValueError(f"Expected inputs: {len(self.names)} names for {len(self.low)} columns.")

    @classmethod
    def of(cls, x: npt.NDArray[Any], names: Sequence[str] | None = None) -> ExpectedInputs:
        """Describes training inputs.

        Args:
            x: Array of shape `(n, columns)`, or `(n, ..., channels)`.
            names: Names of the columns.
        """
        low, high, of_examples = _described(x)
        return cls(
            _rounded(low),
            _rounded(high),
            _rounded(of_examples.mean(axis=0)),
            _rounded(of_examples.std(axis=0)),
            None if names is None else tuple(map(str, names)),
        )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ExpectedInputs:
        """The inverse of `get_config`.

        Raises:
            ValueError: If the config is not one that `get_config` returns.
        """
        if not isinstance(config, Mapping) or not set(config) <= {"low", "high", "mean", "std", "names"}:
            found = sorted(map(str, config)) if isinstance(config, Mapping) else type(config).__name__
            raise ValueError(f"Expected inputs: got {found!s:.200}. Expected 'low', 'high', 'mean', 'std' and 'names'.")
        if not all(isinstance(config.get(key), list | tuple) for key in ("low", "high", "mean", "std")):
            raise ValueError("Expected inputs: 'low', 'high', 'mean' and 'std' must be lists of numbers.")
        names = config.get("names")
        if names is not None and not (isinstance(names, list | tuple) and all(isinstance(n, str) for n in names)):
            raise ValueError("Expected inputs: 'names' must be a list of strings, or null.")
        lists = {key: tuple(config[key]) for key in ("low", "high", "mean", "std")}
        return cls(**lists, names=None if names is None else tuple(names))

    def get_config(self) -> dict[str, Any]:
        """The attributes as lists, for JSON."""
        return {key: None if value is None else list(value) for key, value in asdict(self).items()}

    def complaint(self, x: Any, names: Sequence[str] | None = None) -> str | None:
        """Says how inputs differ from those of training, in a sentence with both numbers; None if they do not.

        Args:
            x: Array of shape `(n, columns)` or `(n, ..., channels)`, n > 0. Of many rows, some are judged.
            names: Names of the columns, as those of a data frame; None if they have none.
        """
        if self.names is not None and names is not None and (found := tuple(map(str, names))) != self.names:
            same = ", in another order" if sorted(found) == sorted(self.names) else ""
            return (
                f"the columns are {_some(found)}, but the model was trained on {_some(self.names)}{same}. Select them "
                "by name, in that order"
            )
        array = np.asarray(x)
        if array.ndim < 2 or array.shape[-1] != len(self.low) or not np.issubdtype(array.dtype, np.number):
            return None
        array = array[:: -(-len(array) // _MOST_ROWS)]
        low, high, of_examples = _described(array)
        return (
            self._squeezed(low, high, array)
            or self._far_outside(array)
            or self._far_mean(of_examples, is_table=array.ndim == 2)
        )

    def _squeezed(self, low: Any, high: Any, array: npt.NDArray[Any]) -> str | None:
        # The difference of two integers of a narrow type may overflow.
        span, expected = float(np.max(high.astype(np.float64) - low)), max(np.subtract(self.high, self.low))
        # Of a single number, or of constant columns, the span says nothing.
        if array.ndim == 2 or span == 0 or span >= _SQUEEZED * expected:
            return None
        return (
            f"their values run from {np.min(low):g} to {np.max(high):g}, those of training from {min(self.low):g} to "
            f"{max(self.high):g}. Were they rescaled already? Pass raw values: the model does its own preprocessing"
        )

    def _far_outside(self, array: npt.NDArray[Any]) -> str | None:
        low, high = np.asarray(self.low), np.asarray(self.high)
        margin = _MARGIN * (high - low) + self._rounding
        outside = (array < low - margin) | (array > high + margin)
        rows = outside.reshape(len(array), -1, len(low)).any(axis=1)
        share = float(rows.any(axis=1).mean())
        if share <= _RARE:
            return None
        column = int(rows.mean(axis=0).argmax())
        values = array[..., column]
        advice = "the units and the order of the columns" if array.ndim == 2 else "the scale of the pixels"
        return (
            f"{share:.0%} of them have values far outside the range of training: {self._name(column, array.ndim)} runs "
            f"from {values.min():g} to {values.max():g}, in training from {low[column]:g} to {high[column]:g}. Check "
            f"{advice}"
        )

    def _far_mean(self, of_examples: npt.NDArray[np.float64], is_table: bool) -> str | None:
        means, expected, std = of_examples.mean(axis=0), np.asarray(self.mean), np.asarray(self.std)
        # Of a column with less spread than its rounding, a standard deviation says nothing; of a constant one, 1 does.
        unit = np.where(std > self._rounding, std, np.maximum(self._rounding, 1.0))
        distance = np.maximum(np.abs(means - expected) - self._rounding, 0.0) / unit
        column = int(distance.argmax())
        if distance[column] <= _FAR:
            return None
        inverted = np.asarray(self.low) + np.asarray(self.high) - means
        advice = "Check how the images were made"
        if is_table:
            advice = "Check the units and the order of the columns"
        elif abs(inverted[column] - expected[column]) < _FAR * std[column]:
            advice = "Are light and dark exchanged? Subtract the pixels from their greatest value"
        return (
            f"the mean of {self._name(column, 2 if is_table else 3)} is {means[column]:.4g}, in training "
            f"{expected[column]:.4g} +- {std[column]:.2g}. {advice}"
        )

    @property
    def _rounding(self) -> npt.NDArray[np.float64]:
        """The difference of a column that says nothing."""
        return _ROUNDING * np.maximum(np.abs(self.low), np.abs(self.high))

    def _name(self, column: int, rank: int) -> str:
        if self.names is not None:
            return f"the column {self.names[column]!r}"
        if rank == 2:
            return f"column {column}"
        return "a pixel" if len(self.low) == 1 else f"channel {column}"


def _described(x: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[np.float64]]:
    """Least and greatest value of each column, and the mean of each example by column, `(n, columns)`."""
    flat = x.reshape(len(x), -1, x.shape[-1])
    return flat.min(axis=(0, 1)), flat.max(axis=(0, 1)), flat.mean(axis=1, dtype=np.float64)


def _rounded(values: Any) -> tuple[float, ...]:
    """Six digits, which a card can show. The comparison allows for the rounding."""
    return tuple(float(f"{value:.6g}") for value in np.asarray(values, np.float64))


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:_NAMES_SHOWN]))
    return shown + (", ..." if len(names) > _NAMES_SHOWN else "")

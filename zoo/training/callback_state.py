"""State of callbacks: a resumed run continues to count patience from where it was."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

_SCALARS = (bool, int, float, str, type(None))
_PREFIX = "callback"
_OWN = "state_arrays"
# Attributes of every callback, and a threshold whose sign Keras flips once, at the first epoch of a callback.
_LEFT_OUT = ("params", "model", "min_delta")


def callback_states(
    callbacks: Sequence[keras.callbacks.Callback], stopped: bool, arrays: dict[str, npt.NDArray[Any]]
) -> list[dict[str, Any]]:
    """Collects the public attributes of callbacks that are numbers, strings or lists of arrays.

    That covers `EarlyStopping` and `ReduceLROnPlateau`: patience, best value, best weights. A callback with the methods
    `state_arrays()` and `restore_arrays(arrays)`, such as `SwagIterates`, adds arrays by name.

    Args:
        callbacks: Callbacks of the run.
        stopped: Whether a callback stopped the run.
        arrays: Mapping to which arrays are added, under names that start with `callback`.

    Returns:
        First `{"stopped": ...}`, then class and attributes of each callback. JSON values only.
    """
    states: list[dict[str, Any]] = [{"stopped": bool(stopped)}]
    for index, callback in enumerate(callbacks):
        scalars: dict[str, Any] = {}
        for name, value in _remembered(callback).items():
            if isinstance(value, list):
                for position, array in enumerate(value):
                    arrays[f"{_PREFIX}/{index}/{name}/{position}"] = np.asarray(array)
                scalars[name] = {"arrays": len(value)}
            else:
                scalars[name] = value
        if hasattr(callback, _OWN):
            own = getattr(callback, _OWN)()
            arrays |= {f"{_PREFIX}/{index}/{_OWN}/{name}": array for name, array in own.items()}
        states.append({"class": type(callback).__name__, "attributes": scalars})
    return states


def restore_callbacks(
    callbacks: Sequence[keras.callbacks.Callback],
    states: Sequence[Mapping[str, Any]],
    arrays: Mapping[str, npt.NDArray[Any]],
) -> bool:
    """Restores the state of callbacks. A callback that is new, or of a different class, starts from scratch.

    Attributes that are named like an argument of the constructor keep the value of this call: a resumed run may have
    more patience.

    Args:
        callbacks: Callbacks of the run.
        states: Result of `callback_states`.
        arrays: Mapping to which `callback_states` added arrays.

    Returns:
        Whether a callback had stopped the run.
    """
    for index, (callback, state) in enumerate(zip(callbacks, states[1:], strict=False)):
        if state["class"] != type(callback).__name__:
            continue
        given = inspect.signature(type(callback).__init__).parameters
        for name, value in state["attributes"].items():
            if name in given:
                continue
            if isinstance(value, dict):
                value = [arrays[f"{_PREFIX}/{index}/{name}/{position}"] for position in range(value["arrays"])]
            setattr(callback, name, value)
        if hasattr(callback, _OWN):
            prefix = f"{_PREFIX}/{index}/{_OWN}/"
            own = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
            callback.restore_arrays(own)
    return bool(states and states[0]["stopped"])


def without_callbacks(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Returns the arrays that `callback_states` did not add."""
    return {name: array for name, array in arrays.items() if not name.startswith(f"{_PREFIX}/")}


def _remembered(callback: keras.callbacks.Callback) -> dict[str, Any]:
    remembered = {}
    for name, value in vars(callback).items():
        if name.startswith("_") or name in _LEFT_OUT:
            continue
        if isinstance(value, np.generic):
            value = value.item()
        # Keras returns a weight of shape () as a NumPy scalar.
        is_arrays = isinstance(value, list) and value and all(isinstance(v, np.ndarray | np.generic) for v in value)
        if isinstance(value, _SCALARS) or is_arrays:
            remembered[name] = value
    return remembered

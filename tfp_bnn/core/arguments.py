"""Validation of arguments: which ones a constructor takes, and what counts as a number (not booleans)."""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np


def is_number(value: Any) -> TypeGuard[float]:
    """Whether `value` is a real number."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_positive(value: Any) -> TypeGuard[float]:
    """Whether `value` is a finite real number larger than 0."""
    return is_number(value) and 0 < value < math.inf


def is_integer(value: Any) -> TypeGuard[int]:
    """Whether `value` is an integer."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def require_integer(name: str, value: object, least: int | None = None) -> int:
    """Returns the value of an argument that must be an integer.

    Args:
        name: Name of the argument.
        value: Value to check.
        least: Smallest value allowed; None for any.

    Raises:
        ValueError: If the value is not an integer, or is smaller than `least`.
    """
    if not is_integer(value) or (least is not None and value < least):
        raise ValueError(f"`{name}` must be an integer{'' if least is None else f' >= {least}'}, but got {value!r}.")
    return int(value)


def require_bool(name: str, value: object) -> bool:
    """Returns a truth value. Raises a ValueError with the name of the argument for anything else, such as 1."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"`{name}` must be True or False, but got {value!r}.")
    return bool(value)


def require_positive(owner: str, name: str, value: object) -> float:
    """Returns the value of an argument as a float, if it is positive and finite.

    Args:
        owner: Owner of the argument, such as `"the prior 'normal'"`.
        name: Name of the argument.
        value: Value that was passed.

    Raises:
        ValueError: If the value is not a finite number larger than 0.
    """
    if not is_positive(value):
        raise ValueError(f"`{name}` of {owner} must be a finite number larger than 0, but got {value!r}.")
    return float(value)


def require_array(
    owner: str, values: Mapping[str, Any], name: str, shape: Sequence[int], least: float = -math.inf
) -> np.ndarray:
    """Returns one of several named arrays in float32, if it is valid.

    Args:
        owner: Owner of the arrays, such as `"posterior"`.
        values: Arrays by name.
        name: Name of the array to return.
        shape: Required shape.
        least: Smallest allowed value.

    Raises:
        ValueError: If the array is missing, has a different shape, or contains a NaN or a value that as float32 is
            infinite or less than `least`.
    """
    if name not in values:
        raise ValueError(f"The {owner} needs the value {name!r}, but got only {sorted(values)}.")
    with np.errstate(over="ignore"):
        array = np.asarray(values[name]).astype(np.float32)
    if array.shape != tuple(shape):
        raise ValueError(f"The {owner} {name} must have the shape {tuple(shape)}, but got an array of {array.shape}.")
    bad = ~(np.isfinite(array) & (array >= least))
    if bad.any():
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        bound = "" if least == -math.inf else f" and at least {least:.2g}"
        raise ValueError(
            f"The {owner} {name} must be finite{bound}, but {int(bad.sum())} of {bad.size} values are not; the first "
            f"is {array[index]} at index {index}."
        )
    return array


def constructor_arguments(cls: type) -> tuple[dict[str, bool], bool]:
    """The arguments of a constructor that can be passed by name.

    If a constructor takes `**kwargs`, they are assumed to be passed on to the next constructor in the MRO.

    Args:
        cls: A class.

    Returns:
        Whether each argument is required, by name, and whether the constructor takes any other argument too.
    """
    required: dict[str, bool] = {}
    passes_on = False
    for owner in cls.__mro__:
        if "__init__" not in vars(owner) or owner is object:
            continue
        _, *parameters = inspect.signature(vars(owner)["__init__"]).parameters.values()
        for parameter in parameters:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                required.setdefault(parameter.name, parameter.default is parameter.empty)
        passes_on = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        if not passes_on:
            break
    return required, passes_on

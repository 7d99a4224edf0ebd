"""What counts as a number in an argument: Python's and NumPy's numbers, but no booleans."""

from __future__ import annotations

import numbers
from typing import Any, TypeGuard


def is_number(value: Any) -> TypeGuard[float]:
    """Whether `value` is a real number."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_integer(value: Any) -> TypeGuard[int]:
    """Whether `value` is an integer."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)

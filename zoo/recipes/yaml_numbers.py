"""Numbers in YAML from the command line."""

from __future__ import annotations

from typing import Any


def with_numbers(value: Any) -> Any:
    """Returns a value parsed from YAML with each string that is a number converted, also within mappings and lists.

    YAML 1.1 reads 1e-3, without a decimal point, as a string.

    Example:
        >>> with_numbers({"name": "laplace", "scale": "1e-1"})
        {'name': 'laplace', 'scale': 0.1}
    """
    if isinstance(value, dict):
        return {key: with_numbers(part) for key, part in value.items()}
    if isinstance(value, list):
        return [with_numbers(part) for part in value]
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value

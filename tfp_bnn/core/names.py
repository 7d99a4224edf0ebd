"""Attributes that are lists of names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from typing import Any


class Names:
    """An attribute that is a list of texts, kept as a tuple, or None, which it is at first.

    Args:
        example: One of the texts, for messages.
        count: Function that returns how many there must be for an object, or None for any number.
    """

    def __init__(self, example: str, count: Callable[[Any], int] | None = None) -> None:
        self._example, self._count = example, count

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type | None = None) -> tuple[str, ...] | None:
        return None if instance is None else vars(instance).get(self._name)

    def __set__(self, instance: object, values: Iterable[Any] | None) -> None:
        # Keras, too, keeps it as it is.
        vars(instance)[self._name] = None if values is None else self._checked(instance, values)

    def _checked(self, instance: object, values: Any) -> tuple[str, ...]:
        # The letters of a text are texts too, and a set has no order.
        if isinstance(values, str | bytes | Set) or not isinstance(values, Iterable):
            raise ValueError(
                f"`{self._name}` must be a list of texts, such as [{self._example!r}], or None, but got {values!r}."
            )
        found = tuple(map(str, values))
        expected = len(found) if self._count is None else self._count(instance)
        if len(found) != expected:
            number = f"{expected} texts, one for each target" if expected else "None, because the targets are classes"
            raise ValueError(f"`{self._name}` must be {number}, but got {list(found)!r}.")
        return found

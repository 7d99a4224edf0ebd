"""YAML that can be read in one way only: recipes, and values on the command line."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

_MOST_LEVELS = 20
# The scanner in Python takes a second for a thousand open brackets.
_Events = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# YAML 1.1 reads 010 as 8 and 1:30 as 90; YAML 1.2 as 10 and as text.
_AMBIGUOUS = re.compile(r"[-+]?(0[0-9_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")


def parse_yaml(text: str | bytes) -> Any:
    """Parses YAML of plain values, lists and mappings.

    Args:
        text: The YAML, as text or in UTF-8.

    Returns:
        The value. Numbers such as 1e-3 may stay strings; see `with_numbers`.

    Raises:
        ValueError: If it is not valid YAML, has a key twice, an alias or a tag, a number that versions of YAML read in
            different ways, or more than 20 levels. The message has one line and says where.
    """
    try:
        _check_events(text)
        return _Loader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        raise ValueError(_at(error.problem or "invalid YAML", error.problem_mark or error.context_mark)) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(" ".join(str(error).split())) from None


def parse_mapping(text: str | bytes, what: str) -> dict[Any, Any]:
    """Parses YAML that must be a mapping of keys.

    Args:
        text: The YAML, as text or in UTF-8.
        what: Description of the file for messages, such as `"The recipe 'x.yaml'"`.

    Raises:
        ValueError: As in `parse_yaml`, or if it holds anything else.
    """
    try:
        values = parse_yaml(text)
    except ValueError as error:
        raise ValueError(f"{what} is not valid YAML: {error}.") from None
    if not isinstance(values, dict):
        raise ValueError(f"{what} holds {type(values).__name__}; a mapping of keys was expected.")
    return values


def parse_changes(changes: Sequence[str]) -> dict[str, Any]:
    """Parses changes to a recipe from the command line.

    Args:
        changes: Strings `key=value` with the value in YAML, such as `"optimizer.learning_rate=1e-3"`.

    Returns:
        Values by dotted key, for `zoo.recipes.change_recipe`.

    Raises:
        ValueError: If a change has no `=`, or its value is not valid YAML.
    """
    parsed = {}
    for change in changes:
        key, sign, value = change.partition("=")
        if not sign or not key:
            raise ValueError(f"Got the change {change!r}; KEY=VALUE was expected, as in optimizer.learning_rate=1e-3.")
        try:
            parsed[key] = with_numbers(parse_yaml(value))
        except ValueError as error:
            raise ValueError(f"The value of the change {change!r} is not valid YAML: {error}.") from None
    return parsed


def check_grid(values: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Returns a grid of values by dotted key. A ValueError names a key without a list of values."""
    for key, listed in values.items():
        if not isinstance(listed, list) or not listed:
            raise ValueError(f"The grid has {key}={listed!r}; a list of values was expected, as in {key}=[1, 2].")
    return {key: tuple(listed) for key, listed in values.items()}


def changed(values: Mapping[str, Any], changes: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Returns a mapping of mappings with some values changed.

    Args:
        values: Values by key. They are not changed. None stands for an empty mapping.
        changes: New values by dotted key.
        what: Description of the mapping for messages, such as `"The recipe 'x'"`.

    Raises:
        ValueError: If a key leads through something else than a mapping.

    Example:
        >>> changed({"epochs": 5, "optimizer": {"name": "adam"}}, {"optimizer.name": "sgd"}, "The recipe")
        {'epochs': 5, 'optimizer': {'name': 'sgd'}}
    """
    new = copy.deepcopy(dict(values))
    for key, value in changes.items():
        *parents, last = key.split(".")
        place = new
        for parent in parents:
            inner = place[parent] = {} if place.get(parent) is None else place[parent]
            if not isinstance(inner, dict):
                raise ValueError(f"{what} has no key {key!r}: {parent!r} is {inner!r}, not a mapping.")
            place = inner
        place[last] = value
    return new


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


class _Loader(yaml.SafeLoader):
    """Refuses what `yaml.safe_load` would overwrite."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise ValueError(_at(f"the key {key.value[:100]!r} appears twice", key.start_mark))
            seen.add(key.value)
        return super().construct_mapping(node, deep=True)


def _check_events(text: str | bytes) -> None:
    """Refuses what would be read in more than one way, or be expensive, before anything is built."""
    level = 0
    for event in yaml.parse(text, Loader=_Events):
        if getattr(event, "anchor", None) is not None:
            raise ValueError(_at("anchors and aliases are not allowed; write the value out", event.start_mark))
        if isinstance(event, yaml.CollectionStartEvent):
            level += 1
        if isinstance(event, yaml.CollectionEndEvent):
            level -= 1
        if level > _MOST_LEVELS:
            raise ValueError(_at(f"there are more than {_MOST_LEVELS} levels", event.start_mark))
        if isinstance(event, yaml.ScalarEvent) and event.implicit[0] and _AMBIGUOUS.fullmatch(event.value):
            problem = f"{event.value[:100]} is read in different ways; write the number plainly, or quote it"
            raise ValueError(_at(problem, event.start_mark))


def _at(problem: str, mark: Any) -> str:
    where = "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"
    return f"{problem}{where}"

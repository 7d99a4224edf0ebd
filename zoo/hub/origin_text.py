"""What a card says of where its data come from, and under which licences it and its data are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.datasets.base import GENERATED

_UNKNOWN = "not stated"


def origin_lines(config: Mapping[str, Any]) -> list[str]:
    """Returns source, licences and citation as lines of a list. What is not known is said to be so.

    Args:
        config: Contents of `config.json`.
    """
    data = config["data"]
    of_data = "none needed, a program makes them" if data.get("license") == GENERATED else data.get("license")
    citation = data.get("citation")
    return [
        f"- source of the data: {data.get('source') or _UNKNOWN}",
        f"- licence of the data: {of_data or _UNKNOWN}",
        *([f"- citation of the data: {citation}"] if citation else []),
        f"- licence of this model: {config.get('license') or _UNKNOWN}",
    ]

"""The card of a loaded model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_MOST_NUMBERS = 4


class LoadedCard(Mapping[str, Any]):
    """A mapping with the `config`, the `metrics`, the `recipe` (YAML) and the card `text` (Markdown) of an artifact.

    `print(model.card)` prints the text, and a notebook renders it.

    Args:
        config: Contents of `config.json`.
        metrics: Contents of `metrics.json`.
        text: The card.
        recipe: Text of `recipe.yaml`, or empty.
    """

    def __init__(self, config: Mapping[str, Any], metrics: Mapping[str, Any], text: str, recipe: str = "") -> None:
        self._parts = {"config": config, "metrics": metrics, "text": text, "recipe": recipe}

    def __getitem__(self, key: str) -> Any:
        return self._parts[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def __repr__(self) -> str:
        test = self["metrics"].get("test", {})
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in list(test.items())[:_MOST_NUMBERS])
        measured = f": {numbers} on the test split" if numbers else ""
        return f"<Card of {self['config']['name']!r}{measured}; keys {', '.join(map(repr, self))}>"

    def __str__(self) -> str:
        return self["text"]

    def _repr_markdown_(self) -> str:
        return self["text"]

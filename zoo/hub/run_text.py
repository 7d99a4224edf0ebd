"""What a card says of how to run its recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from zoo.recipes import RECIPES, load_recipe

# Keys of a recipe that do not change what `train` makes.
_BESIDE = {"notes", "comparison"}


def how_to_run(recipe: str, config: Mapping[str, Any]) -> str:
    """Returns the command that runs the recipe of an artifact, or what to know where there is none, as Markdown.

    Args:
        recipe: Text of `recipe.yaml`.
        config: Contents of `config.json`.
    """
    values = yaml.safe_load(recipe)
    start = values.get("start_from")
    if "pruning" in config["data"]:
        return "How it was trained before it was pruned"
    if start is not None and start["model"] is None:
        return "It started from a model that had no name"
    if config["data"].get("dataset") is None:
        return '`zoo.train("recipe.yaml", data=...)` runs it on the data that it was trained on, which have no name'
    source = values["name"] if start is None and _is_registered(values) else "recipe.yaml"
    trust = " --trust" if config["data"].get("fine_tuning", {}).get("trust") else ""
    return f"`tfp-bnn train {source}{trust}` runs it"


def _is_registered(values: dict[str, Any]) -> bool:
    """Whether the name of a recipe leads to it. A recipe that was changed for a run only exists in its artifact."""
    if values["name"] not in RECIPES:
        return False
    try:
        stored, registered = (load_recipe(recipe).model_dump(exclude=_BESIDE) for recipe in (values, values["name"]))
    except ValueError:
        # Of another version.
        return False
    return stored == registered

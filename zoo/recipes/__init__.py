"""Recipes: one YAML file per pretrained model, and their schemas."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from tfp_bnn.core.plugins import load_plugins
from tfp_bnn.core.registry import unknown_name_message
from zoo.core.shown import differences
from zoo.core.validation import validate
from zoo.core.yaml_text import changed, parse_changes, parse_mapping
from zoo.recipes.comparison import ComparisonRecipe
from zoo.recipes.fine_tuning import FineTuneRecipe, StartFromRecipe
from zoo.recipes.inference import HmcRecipe, LaplaceRecipe, NutsRecipe, SgldRecipe, SwagRecipe
from zoo.recipes.pruning import PruningRecipe
from zoo.recipes.registered import RECIPES, register_recipes
from zoo.recipes.schema import (
    AugmentationRecipe,
    ConformalRecipe,
    DeterministicStartRecipe,
    EvaluationRecipe,
    NaturalGradientRecipe,
    OptimizerRecipe,
    Recipe,
)

__all__ = [
    "RECIPES",
    "AugmentationRecipe",
    "ComparisonRecipe",
    "ConformalRecipe",
    "DeterministicStartRecipe",
    "EvaluationRecipe",
    "FineTuneRecipe",
    "HmcRecipe",
    "LaplaceRecipe",
    "NaturalGradientRecipe",
    "NutsRecipe",
    "OptimizerRecipe",
    "PruningRecipe",
    "Recipe",
    "SgldRecipe",
    "StartFromRecipe",
    "SwagRecipe",
    "change_recipe",
    "list_recipes",
    "load_recipe",
    "parse_changes",
    "recipe_text",
    "register_recipes",
    "setting_differences",
]

AnyRecipe = TypeVar("AnyRecipe", Recipe, FineTuneRecipe)

_MAX_BYTES = 2**18


def list_recipes() -> list[str]:
    """Returns the names of all registered recipes, sorted, including those of plug-ins.

    Raises:
        PluginError: If a plug-in fails to load.
    """
    load_plugins()
    return sorted(RECIPES)


def load_recipe(source: str | Path | dict[str, Any] | Recipe | FineTuneRecipe) -> Recipe | FineTuneRecipe:
    """Reads and validates a recipe. A recipe with the key `start_from` describes a fine-tuning.

    Args:
        source: Name of a registered recipe, path of a YAML file, mapping, or recipe, which is returned unchanged.

    Returns:
        The validated recipe.

    Raises:
        ValueError: For an unknown name, invalid YAML, an unknown or missing key (the message gives the nearest) or a
            value out of bounds.
        PluginError: If a plug-in fails to load.
    """
    load_plugins()
    if isinstance(source, Recipe | FineTuneRecipe):
        return source
    if isinstance(source, dict):
        return validate(_schema_of(source), source, "The recipe")
    path = _path_of(source)
    with path.open("rb") as file:
        text = file.read(_MAX_BYTES + 1)
    what = f"The recipe {str(path)!r}"
    if len(text) > _MAX_BYTES:
        raise ValueError(f"{what} has more than {_MAX_BYTES} bytes.")
    values = parse_mapping(text, what)
    return validate(_schema_of(values), values, what)


def change_recipe(recipe: AnyRecipe, changes: Mapping[str, Any]) -> AnyRecipe:
    """Returns a recipe with some values changed. The changes are recorded in its `overrides`.

    Args:
        recipe: Recipe to start from. It is not changed.
        changes: New values by dotted key, such as `{"optimizer.learning_rate": 1e-3}`.

    Returns:
        The validated new recipe.

    Raises:
        ValueError: For an unknown key or a value out of bounds.

    Example:
        >>> from zoo.recipes import change_recipe, load_recipe
        >>> changed = change_recipe(load_recipe("mlp_flipout.iris"), {"optimizer.learning_rate": 1e-3})
        >>> changed.optimizer.learning_rate, changed.overrides
        (0.001, {'optimizer.learning_rate': 0.001})
    """
    what = f"The recipe {recipe.name!r}"
    values = changed(recipe.model_dump(mode="json"), changes, what)
    values["overrides"] = {**recipe.overrides, **changes}
    return validate(type(recipe), values, what)


def setting_differences(
    before: Recipe | FineTuneRecipe, now: Recipe | FineTuneRecipe, exclude: Collection[str]
) -> list[str]:
    """Returns a phrase for each setting in which two recipes differ, but for those named in `exclude`."""
    first, second = (recipe.model_dump(mode="json", exclude=set(exclude)) for recipe in (before, now))
    return differences(first, second)


def recipe_text(recipe: Recipe | FineTuneRecipe) -> str:
    """Formats the recipe as YAML, with every key."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _schema_of(values: Mapping[str, Any]) -> type[Recipe] | type[FineTuneRecipe]:
    return FineTuneRecipe if "start_from" in values else Recipe


def _path_of(source: str | Path) -> Path:
    path = Path(source)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise ValueError(f"There is no recipe file {str(path)!r}.")
        return path
    if str(source) not in RECIPES:
        raise ValueError(unknown_name_message("recipe", source, RECIPES) + " A file of your own must end in .yaml.")
    return RECIPES[str(source)]

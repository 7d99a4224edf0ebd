"""Recipes: one YAML file for each pretrained model, and the schema that they are held against."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tfp_bnn.registry import unknown_name_message
from zoo.recipes.schema import EvaluationRecipe, OptimizerRecipe, Recipe
from zoo.validation import validate

__all__ = ["EvaluationRecipe", "OptimizerRecipe", "Recipe", "list_recipes", "load_recipe", "recipe_text"]

_FOLDER = Path(__file__).parent
_MAX_BYTES = 2**18


def list_recipes() -> list[str]:
    """The names of the recipes that come with the zoo, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def load_recipe(source: str | Path | dict[str, Any] | Recipe) -> Recipe:
    """Reads and validates a recipe.

    Args:
        source: the name of a recipe of the zoo, the path of a YAML file, a mapping, or a recipe, which is returned as
            it is.

    Returns:
        The validated recipe.

    Raises:
        ValueError: for an unknown name, invalid YAML, an unknown or missing key (names the nearest) or a value out of
            bounds.
    """
    if isinstance(source, Recipe):
        return source
    if isinstance(source, dict):
        return validate(Recipe, source, "The recipe")
    path = _path_of(source)
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
        if len(text) > _MAX_BYTES:
            raise ValueError(f"The recipe {str(path)!r} has more than {_MAX_BYTES} bytes.")
        values = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"The recipe {str(path)!r} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"The recipe {str(path)!r} holds {type(values).__name__}; a mapping of keys was expected.")
    return validate(Recipe, values, f"The recipe {str(path)!r}")


def recipe_text(recipe: Recipe) -> str:
    """The recipe as YAML, every key spelled out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _path_of(source: str | Path) -> Path:
    path = Path(source)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise ValueError(f"There is no recipe file {str(path)!r}.")
        return path
    if str(source) not in list_recipes():
        raise ValueError(
            unknown_name_message("recipe", source, list_recipes()) + " A file of your own must end in .yaml."
        )
    return _FOLDER / f"{source}.yaml"

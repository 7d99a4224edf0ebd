"""The recipe of a model, for another inference method: its baselines, and the point estimate that it may start from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.architectures import ARCHITECTURES
from zoo.core.validation import validate
from zoo.recipes.comparison import Baseline, ComparisonRecipe
from zoo.recipes.inference import SETTINGS_OF_WAYS
from zoo.recipes.schema import NATURAL_GRADIENT, Recipe

_LEARNS_A_SCALE = ("empirical_bayes", "hyperprior", "shared", "groups")
_DROPOUT = 0.1
# Of the natural gradient and of others. The scales that Adam starts from can be too wide for a first Newton step, which
# divides by the precision that they stand for; see "Where to start" in docs/natural_gradient.md.
_DEFAULTS: Mapping[bool, Mapping[str, Any]] = {
    True: {"name": NATURAL_GRADIENT, "learning_rate": 0.03, "natural_gradient": {"initial_precision": 0.1}},
    False: {"name": "adam"},
}
_POINTS = ("map", "mc_dropout", "ensemble")


def baseline(recipe: Recipe, inference: Baseline) -> Recipe:
    """Returns the recipe with another inference method, and nothing else changed that need not be.

    Points have priors with a fixed scale: what was learned, or inferred, stays at its start, because weights and scale
    together have no most probable value. Epochs of a deterministic start are epochs of a method that has none. The
    natural gradient, and methods without it, have the default settings of their optimizer if the recipe has another;
    the natural gradient then starts at the precision 0.1 instead of at an `initial_scale`.
    An ensemble has the members, and their share of the epochs, of `comparison`. Notes are left out, because they are
    about the method of the recipe.

    Args:
        recipe: Recipe of a network and its data.
        inference: The method.

    Returns:
        A valid recipe with the name of the first.

    Raises:
        ValueError: If the network and the method do not fit.
    """
    values = recipe.model_dump(mode="json")
    optimizer = values["optimizer"]
    if (optimizer["name"] == NATURAL_GRADIENT) != (inference == NATURAL_GRADIENT):
        optimizer = {**_DEFAULTS[inference == NATURAL_GRADIENT], "decay": optimizer["decay"]}
        if inference == NATURAL_GRADIENT:
            values["model"] = {key: value for key, value in recipe.model.items() if key != "initial_scale"}
            values["warmup"] = 0.0
    values |= {"inference": inference, "optimizer": optimizer, "notes": ""}
    if inference in _POINTS:
        values |= {"model": _of_points(recipe, inference), "warmup": 0.0, "objective": "elbo", "num_draws": 1}
        start = values.pop("deterministic_start", None)
        values["epochs"] += 0 if start is None else start["epochs"]
    values |= dict.fromkeys(("members", *SETTINGS_OF_WAYS))
    if inference == "ensemble":
        how = recipe.comparison or ComparisonRecipe()
        values |= {"members": how.members, "epochs": max(1, round(how.member_epochs * values["epochs"]))}
    return validate(Recipe, values, f"The recipe {recipe.name!r} with inference: {inference}")


def starting_recipe(recipe: Recipe) -> Recipe:
    """Returns the recipe of the point estimate from which a recipe with a `deterministic_start` starts."""
    if recipe.deterministic_start is None:
        raise ValueError(f"The recipe {recipe.name!r} has no deterministic_start. Add one, as in {{epochs: 5}}.")
    start = recipe.deterministic_start
    return baseline(recipe, "map").model_copy(update={"epochs": start.epochs, "optimizer": start.optimizer})


def _of_points(recipe: Recipe, inference: Baseline) -> dict[str, Any]:
    fields = ARCHITECTURES[recipe.architecture].config.model_fields
    defaults = {key: field.default for key, field in fields.items() if key.endswith("_prior")}
    # A default that learns its scale is spelled out without it.
    learned = {key: value for key, value in defaults.items() if _fixed(value) != value}
    given = {**learned, **recipe.model}
    model = {key: _fixed(value) if key.endswith("_prior") else value for key, value in given.items()}
    model.pop("kernel_posterior", None)
    dropout = model.pop("dropout", 0.0)
    return {**model, "dropout": dropout or _DROPOUT} if inference == "mc_dropout" else model


def _fixed(prior: Any) -> Any:
    if not isinstance(prior, Mapping):
        return prior
    return {key: value for key, value in prior.items() if key not in _LEARNS_A_SCALE}

"""The deterministic start of a recipe: the means are trained first, as a point estimate, and then the posterior."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tfp_bnn
from tfp_bnn.models.weight_record import Role, WeightRecord
from zoo.hub.loading import load_model
from zoo.recipes import Recipe, setting_differences
from zoo.recipes.baselines import starting_recipe
from zoo.training.pruning import recipe_of

_PART = "start"
# What the weights of a point do not depend on.
_NO_SETTINGS = {"name", "notes", "evaluation", "comparison", "overrides", "calibration", "conformal"}
_NO_SETTINGS_OF_MODEL = ("initial_scale",)

GoOn = Callable[[Recipe, tfp_bnn.VariationalModel, str, int], object]
"""Function that trains a network in a part of a run: `go_on(recipe, network, name of the part, epochs)`."""


def start_at_a_point(
    model: tfp_bnn.VariationalModel, recipe: Recipe, build: Callable[[Recipe], tfp_bnn.VariationalModel], go_on: GoOn
) -> None:
    """Trains the same network as a maximum a posteriori estimate, or loads it, and moves the means of a model there.

    The posterior scales, the scales of its priors and its optimizer stay at their start. Weights without a distribution
    and the parameters of the likelihood move to those of the estimate. The estimate has checkpoints of its own, so a
    run can be killed and resumed in either part; when it is resumed in the second, the first takes no step.

    Args:
        model: Untrained model of the recipe.
        recipe: Recipe with a `deterministic_start`.
        build: Function that builds the network of a recipe.
        go_on: Function that trains it.

    Raises:
        ValueError: As `trained_start`.
    """
    of_start = starting_recipe(recipe)
    point = trained_start(recipe)
    if point is None:
        point = build(of_start)
        go_on(of_start, point, _PART, of_start.epochs)
    found = {entry.name: entry.array for entry in WeightRecord.of(point) if _is_value(entry.role, entry.parameter)}
    WeightRecord.from_arrays({**WeightRecord.of(model).arrays(), **found}).assign_to(model)


def trained_start(recipe: Recipe) -> Any:
    """Loads the point estimate that a recipe starts from, if its `deterministic_start` names a pretrained model.

    Args:
        recipe: Recipe with a `deterministic_start`.

    Returns:
        The `VariationalModel`; None if the start is still to be trained.

    Raises:
        ValueError: If there is no such model, or if it was trained by another recipe than the start would be.
    """
    name = None if recipe.deterministic_start is None else recipe.deterministic_start.model
    if name is None:
        return None
    point = load_model(name)
    before, now = (_without_scale(of) for of in (recipe_of(point), starting_recipe(recipe)))
    differences = setting_differences(before, now, _NO_SETTINGS)
    if differences:
        raise ValueError(
            f"The start of {recipe.name!r} is not what {name!r} was trained by: {'; '.join(differences)}. Remove "
            "deterministic_start.model to train the start, or use the settings of the model, and its seed alone "
            "(evaluation.spread_seeds: [], --seeds 1)."
        )
    return point


def check_start(recipe: Recipe, named: bool, seeds: Sequence[int]) -> None:
    """Checks that all that a run needs of a start by a pretrained model is there, for each seed.

    Args:
        recipe: Recipe.
        named: Whether it is trained on the dataset that it names.
        seeds: Training seeds.

    Raises:
        ValueError: As `trained_start`, and for other data.
    """
    if recipe.deterministic_start is None or recipe.deterministic_start.model is None:
        return
    if not named:
        raise ValueError(
            f"{recipe.deterministic_start.model!r}, the start of {recipe.name!r}, was trained on the dataset "
            f"{recipe.dataset!r}. Leave out `data` to train on it, or remove deterministic_start.model to train the "
            "start, too."
        )
    for seed in seeds:
        trained_start(recipe.model_copy(update={"seed": seed}))


def _without_scale(recipe: Any) -> Any:
    """The recipe without what only a posterior with a spread has."""
    if not isinstance(recipe, Recipe):
        return recipe
    model = {name: value for name, value in recipe.model.items() if name not in _NO_SETTINGS_OF_MODEL}
    return recipe.model_copy(update={"model": model})


def _is_value(role: Role, parameter: str) -> bool:
    return role in (Role.VALUE, Role.LIKELIHOOD) or (role is Role.POSTERIOR and parameter == "loc")

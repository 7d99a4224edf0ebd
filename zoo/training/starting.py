"""The deterministic start of a recipe: the means are trained first, as a point estimate, and then the posterior."""

from __future__ import annotations

from collections.abc import Callable

import tfp_bnn
from tfp_bnn.models.weight_record import Role, WeightRecord
from zoo.recipes import Recipe
from zoo.recipes.baselines import starting_recipe

_PART = "start"

GoOn = Callable[[Recipe, tfp_bnn.VariationalModel, str, int], object]
"""Function that trains a network in a part of a run: `go_on(recipe, network, name of the part, epochs)`."""


def start_at_a_point(
    model: tfp_bnn.VariationalModel, recipe: Recipe, build: Callable[[Recipe], tfp_bnn.VariationalModel], go_on: GoOn
) -> None:
    """Trains the same network as a maximum a posteriori estimate, and moves the means of a model there.

    The posterior scales, the scales of its priors and its optimizer stay at their start. Weights without a distribution
    and the parameters of the likelihood move to those of the estimate. The estimate has checkpoints of its own, so a
    run can be killed and resumed in either part; when it is resumed in the second, the first takes no step.

    Args:
        model: Untrained model of the recipe.
        recipe: Recipe with a `deterministic_start`.
        build: Function that builds the network of a recipe.
        go_on: Function that trains it.
    """
    of_start = starting_recipe(recipe)
    point = build(of_start)
    go_on(of_start, point, _PART, of_start.epochs)
    found = {entry.name: entry.array for entry in WeightRecord.of(point) if _is_value(entry.role, entry.parameter)}
    WeightRecord.from_arrays({**WeightRecord.of(model).arrays(), **found}).assign_to(model)


def _is_value(role: Role, parameter: str) -> bool:
    return role in (Role.VALUE, Role.LIKELIHOOD) or (role is Role.POSTERIOR and parameter == "loc")

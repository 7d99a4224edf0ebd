"""What a training is going to run, said before it runs, and what is wrong with how it ended."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfp_bnn.core.arguments import is_number
from tfp_bnn.likelihoods import LIKELIHOODS, Likelihood
from zoo.architectures import ARCHITECTURES
from zoo.architectures.moments import column_moments
from zoo.datasets import Dataset
from zoo.datasets.base import Task
from zoo.datasets.images import UINT8_RANGE, pixels_fit
from zoo.evaluation.card_numbers import UNIFORM
from zoo.hub.reading import read_artifact
from zoo.recipes import FineTuneRecipe, Recipe, change_recipe, load_recipe
from zoo.training.inference import member_recipes

# What no training needs to lose against one prediction for all inputs.
_DIVERGED_NATS = 10.0
_LONGEST_TAG = 60
_OUTSIDE, _SPREAD = "evaluation.out_of_distribution", "evaluation.spread_seeds"


def planned(
    recipe: str | Path | dict[str, Any] | Recipe | FineTuneRecipe,
    overrides: Mapping[str, Any] | None = None,
    *,
    epochs: int | None = None,
    seed: int | None = None,
    seeds: int | None = None,
) -> Recipe | FineTuneRecipe:
    """Returns the recipe that `train` runs for these arguments, which it can be passed instead of them.

    With another dataset than the recipe's, the model is named after it, as in `mlp_flipout.wine`, and the
    out-of-distribution data become `"uniform"`, unless `overrides` has the name or these: those of the recipe were
    chosen for its dataset, and may be the new one. Spread seeds that count up from the
    recipe's seed count up from another seed as well.

    Raises:
        ValueError: As in `train`.
    """
    recipe = load_recipe(recipe)
    short = {key: value for key, value in (("epochs", epochs), ("seed", seed)) if value is not None}
    changes = {**(overrides or {}), **short}
    if changes.get("dataset", recipe.dataset) == recipe.dataset:
        changes.pop("dataset", None)
    else:
        # The recipe's own name would say that it is trained on the recipe's dataset. Own files are named once read.
        if changes["dataset"] is not None:
            changes = {"name": named_after(recipe, str(changes["dataset"])).name, **changes}
        if recipe.evaluation.out_of_distribution != UNIFORM:
            changes = {_OUTSIDE: UNIFORM, **changes}
    changed: Recipe | FineTuneRecipe = change_recipe(recipe, changes)  # type: ignore[type-var]
    spread = recipe.evaluation.spread_seeds
    counted_up = spread == tuple(range(recipe.seed + 1, recipe.seed + 1 + len(spread)))
    as_before = changed.evaluation.spread_seeds == spread and _SPREAD not in changes
    if seeds is None and spread and counted_up and changed.seed != recipe.seed and as_before:
        # Else the seed could be one of the others, and there would be fewer.
        seeds = 1 + len(spread)
    if seeds is None:
        return changed
    others = list(range(changed.seed + 1, changed.seed + seeds))
    return change_recipe(changed, {_SPREAD: others})  # type: ignore[type-var]


def number_of_fits(recipe: Recipe | FineTuneRecipe) -> int:
    """Returns how many trainings `train` runs for a recipe: of each seed and each member of an ensemble."""
    if isinstance(recipe, FineTuneRecipe):
        return 1
    how = recipe.deterministic_start
    start = 1 if how is None or how.model is not None else 2
    return len(seeds_of(recipe)) * len(member_recipes(recipe)) * start


def seeds_of(recipe: Recipe) -> list[int]:
    """Returns the training seeds of a recipe, that of the posterior that is kept first."""
    return list(dict.fromkeys([recipe.seed, *recipe.evaluation.spread_seeds]))


def task_of(recipe: Recipe | FineTuneRecipe) -> Task | None:
    """Returns the task of the likelihood that a recipe names; None if it leaves that to the data."""
    likelihood = recipe.model.get("likelihood") if isinstance(recipe, Recipe) else None
    return None if likelihood is None else LIKELIHOODS.get(likelihood).task


def takes_images(recipe: Recipe | FineTuneRecipe) -> bool:
    """Returns whether inputs of a recipe's model may have three axes: rows, columns and channels."""
    if isinstance(recipe, Recipe):
        return ARCHITECTURES[recipe.architecture].takes_images
    source = recipe.start_from.model
    return source is None or len(read_artifact(source)["config"]["config"]["input_shape"]) == 3


def fitted_to(recipe: Recipe, data: Dataset, tell: Callable[[str], None]) -> Recipe:
    """Returns a recipe for other data than its dataset: the network divides pixels by the maximum of these data.

    It stays as it is where that was changed in the recipe (`--set`), and where the greatest value in the training split
    is between a quarter of the recipe's maximum and all of it.

    Args:
        recipe: The recipe.
        data: Data to train on. Maximum of uint8 is 255, of others the greatest value in the training split.
        tell: Function that is told of the change.
    """
    field = ARCHITECTURES[recipe.architecture].config.model_fields.get("pixel_max")
    pixel_max = recipe.model.get("pixel_max", None if field is None else field.default)
    # A recipe for no dataset in particular states the maximum of what it is given.
    expected = data.name if recipe.dataset is None and "pixel_max" in recipe.model else recipe.dataset
    is_own = expected == data.name and "dataset" not in recipe.overrides
    is_given = "model.pixel_max" in recipe.overrides or "pixel_max" in (recipe.overrides.get("model") or {})
    # Standardized inputs have no such maximum.
    if is_own or is_given or recipe.standardize_inputs or not is_number(pixel_max):
        return recipe
    greatest = float(data.train.x.max())
    highest = UINT8_RANGE[1] if data.train.x.dtype == np.uint8 else greatest
    if pixels_fit(greatest, pixel_max) or highest == pixel_max or highest <= 0:
        return recipe
    tell(f"the inputs go up to {greatest:g}: they are divided by {highest:g}, not {pixel_max:g} (model.pixel_max)")
    return recipe.model_copy(update={"model": {**recipe.model, "pixel_max": highest}})


def tag_of(dataset: str) -> str:
    """Returns what follows the dot in the name of a model that is named after its dataset: at most 60 characters.

    Args:
        dataset: Name of the dataset, or of the user's file.
    """
    return re.sub(r"[^a-z0-9_]+", "_", dataset.lower())[:_LONGEST_TAG].strip("_") or "own"


def named_after(recipe: Recipe | FineTuneRecipe, dataset: str) -> Recipe | FineTuneRecipe:
    """Returns a recipe for another dataset than its own, by which its model is named.

    Args:
        recipe: The recipe.
        dataset: Name of the dataset, or of the user's file.
    """
    changes = {"name": f"{recipe.name.partition('.')[0]}.{tag_of(dataset)}"}
    return change_recipe(recipe, changes)  # type: ignore[type-var]


def divergence(nll: float, data: Dataset, likelihood: Likelihood, of: str = "validation") -> str | None:
    """Says that a training ended far above what knows nothing of the inputs, and what to do; None if it did not.

    Args:
        nll: NLL at the end, in nats per example.
        data: Data of the training.
        likelihood: Likelihood of the model, which says what targets are missing.
        of: What the NLL is of, `"validation"` or `"training"`.
    """
    without = _nll_without_inputs(data, likelihood)
    if nll < without + _DIVERGED_NATS:
        return None
    return (
        f"at its end the {of} NLL is {nll:.4g} nats per example, and one prediction for all inputs has {without:.4g}. "
        "Lower the learning rate"
    )


def _nll_without_inputs(data: Dataset, likelihood: Likelihood) -> float:
    """Returns the NLL, in nats, of the same prediction for all inputs: each class alike, or one normal."""
    if data.num_classes is not None:
        return math.log(data.num_classes)
    of_targets = 0.5 * np.log(2 * math.pi * math.e * np.array(column_moments(data.train.y, likelihood)[1]))
    # Missing targets count 0.
    return float(np.sum(of_targets * np.mean(~likelihood.is_missing(data.train.y), axis=0)))

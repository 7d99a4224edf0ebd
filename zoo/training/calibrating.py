"""Calibration and conformal prediction of a trained model, as its recipe wants them."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfp_bnn.calibration import calibrate, conformalize
from tfp_bnn.likelihoods import Likelihood
from tfp_bnn.predictive.calibrators import CALIBRATIONS, check_fits
from tfp_bnn.predictive.conformal import ConformalSets, conformal_for
from tfp_bnn.predictive.conformal_scores import require_enough
from zoo.datasets import Dataset, Split
from zoo.evaluation.blocks import rows_in_memory
from zoo.hub.members import ZooModel
from zoo.recipes import Recipe

_SEED_OF_HALVES = 0


def check_calibration(
    recipe: Recipe, likelihood: Likelihood, num_outputs: int, data: Dataset, who: str | None = None
) -> None:
    """Refuses a calibration or conformal prediction that could not be fitted after the training.

    Args:
        recipe: Recipe.
        likelihood: Likelihood of its model.
        num_outputs: Number of outputs of its model.
        data: Data to train on.
        who: What asks for them, for messages; the recipe if left out.

    Raises:
        ValueError: If one does not fit the likelihood, or the validation split is too small.
    """
    if recipe.calibration is not None:
        check_fits(CALIBRATIONS.get(recipe.calibration), likelihood)
    if recipe.conformal is None:
        return
    who = who or f"The recipe {recipe.name!r}"
    kind = conformal_for(likelihood, (num_outputs,))
    _, rows = halves_of_validation(recipe, data)
    counts = np.array([len(rows)])
    if recipe.conformal.by_class:
        if kind is not ConformalSets:
            raise ValueError(f"{who} has conformal: by_class: true, but its targets are numbers.")
        counts = np.bincount(rows.y, minlength=data.num_classes or 0)
    try:
        require_enough(counts, recipe.conformal.level)
    except ValueError as error:
        what = "half of the validation split" if recipe.calibration else "the validation split"
        raise ValueError(f"{who} fits its conformal prediction to {what}. {error}") from None


def calibrate_by_recipe(model: ZooModel, recipe: Recipe, data: Dataset) -> None:
    """Fits the calibration of a recipe, if it has one, to its rows of the validation split.

    Of rows whose draws take more than 1 GiB, a random part is taken.
    """
    if recipe.calibration is not None:
        rows = _in_memory(model, recipe, halves_of_validation(recipe, data)[0])
        calibrate(model, rows.x, rows.y, **_draws(recipe))


def conformalize_by_recipe(model: ZooModel, recipe: Recipe, data: Dataset) -> None:
    """Fits the conformal prediction of a recipe, if it has one, to its rows of the validation split.

    The model has its calibration already. For numbers, a random part is taken of rows whose draws take more than 1 GiB.
    """
    if recipe.conformal is not None:
        rows = halves_of_validation(recipe, data)[1]
        if conformal_for(model.likelihood, model.output_shape[1:]).needs_draws:
            rows = _in_memory(model, recipe, rows)
        conformalize(model, rows.x, rows.y, recipe.conformal.level, recipe.conformal.by_class, **_draws(recipe))


def halves_of_validation(recipe: Recipe, data: Dataset) -> tuple[Split, Split]:
    """Returns the validation rows for the calibration and those for the conformal prediction.

    If a recipe has both, each gets a random half, the same for all recipes: rows that the calibration was fitted to are
    not exchangeable with new ones.

    Args:
        recipe: Recipe.
        data: Data.
    """
    validation = data.validation
    if recipe.calibration is None or recipe.conformal is None:
        return validation, validation
    order = np.random.default_rng(_SEED_OF_HALVES).permutation(len(validation))
    first, second = np.split(order, [len(order) // 2])
    return Split(validation.x[first], validation.y[first]), Split(validation.x[second], validation.y[second])


def _in_memory(model: ZooModel, recipe: Recipe, rows: Split) -> Split:
    """Returns as many rows as have draws that fit into memory: all, or the same random ones each time."""
    number, _ = rows_in_memory(model, rows.x, **_draws(recipe))
    if number == len(rows):
        return rows
    chosen = np.sort(np.random.default_rng(_SEED_OF_HALVES).permutation(len(rows))[:number])
    return Split(rows.x[chosen], rows.y[chosen])


def _draws(recipe: Recipe) -> dict[str, Any]:
    return {"num_samples": recipe.evaluation.num_samples, "seed": recipe.evaluation.seed}

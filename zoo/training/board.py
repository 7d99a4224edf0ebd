"""The TensorBoard log of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfp_bnn.callbacks import BayesianTensorBoard
from zoo.datasets import DataMissingError, Dataset
from zoo.evaluation.card_numbers import out_of_distribution_block
from zoo.recipes import FineTuneRecipe, Recipe, recipe_text

# What compares runs, of a training or a fine-tuning.
_DESCRIBED = (
    *("architecture", "start_from", "dataset", "model", "augmentation", "batch_size", "epochs", "steps"),
    *("learning_rate", "warmup", "beta", "seed"),
)


def board_of(
    recipe: Recipe | FineTuneRecipe, data: Dataset | None, folder: Path, tell: Callable[[str], None]
) -> BayesianTensorBoard:
    """The callback that logs a run by a recipe to `<folder>/seed-<seed>`.

    It measures the first rows of the validation split, and the recipe's out-of-distribution data where they are at
    hand, with the recipe's seed of evaluation. The hyperparameters are those of the recipe.

    Args:
        recipe: The recipe that is followed.
        data: The dataset; None for rows without a validation split, of which only the training is logged.
        folder: The folder of all logs.
        tell: Takes messages for the user.
    """
    how = recipe.evaluation
    measured: dict[str, Any] = {}
    if data is not None:
        measured = {"validation_data": (data.validation.x, data.validation.y), "class_names": data.class_names}
        try:
            measured["ood_data"] = out_of_distribution_block(data, how.out_of_distribution, how.num_samples).x
        except DataMissingError as error:
            tell(f"TensorBoard will show nothing out of distribution: {error}")
    description = recipe.model_dump(mode="json")
    return BayesianTensorBoard(
        folder / f"seed-{recipe.seed}",
        seed=how.seed,
        recipe=f"```\n{recipe_text(recipe)}```",
        hparams={name: description[name] for name in _DESCRIBED if name in description},
        **measured,
    )

"""The TensorBoard log of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfp_bnn.callbacks import BayesianTensorBoard
from zoo.datasets import DataMissingError, Dataset
from zoo.evaluation.card_numbers import out_of_distribution_block
from zoo.recipes import FineTuneRecipe, Recipe, recipe_text
from zoo.recipes.inference import SETTINGS_OF_WAYS

# Hyperparameters by which TensorBoard compares runs.
_DESCRIBED = (
    *("architecture", "start_from", "dataset", "model", "inference", *SETTINGS_OF_WAYS, "augmentation"),
    *("batch_size", "epochs", "steps", "learning_rate", "warmup", "beta", "objective", "num_draws", "seed"),
)


def board_of(
    recipe: Recipe | FineTuneRecipe,
    data: Dataset | None,
    folder: Path,
    tell: Callable[[str], None],
    name: str | None = None,
) -> BayesianTensorBoard:
    """Returns the callback that logs a run to `<folder>/seed-<seed>`, or `<folder>/<name>`.

    It evaluates the first rows of the validation split and, if available, the recipe's out-of-distribution data, with
    the recipe's evaluation seed. The hyperparameters are those of the recipe.

    Args:
        recipe: Recipe of the run.
        data: Dataset, or None for rows without a validation split. Then only the training is logged.
        folder: Parent folder of all logs.
        tell: Function that receives messages for the user.
        name: Name of the log; `seed-<seed>` if left out.
    """
    how = recipe.evaluation
    measured: dict[str, Any] = {}
    if data is not None:
        measured = {"validation_data": (data.validation.x, data.validation.y), "class_names": data.class_names}
        try:
            measured["ood_data"] = out_of_distribution_block(data, how.out_of_distribution, how.num_samples).x
        except DataMissingError as error:
            tell(f"TensorBoard will not show out-of-distribution scores: {error}")
    description = recipe.model_dump(mode="json")
    return BayesianTensorBoard(
        folder / (name or f"seed-{recipe.seed}"),
        seed=how.seed,
        recipe=f"```\n{recipe_text(recipe)}```",
        hparams={name: description[name] for name in _DESCRIBED if name in description},
        **measured,
    )

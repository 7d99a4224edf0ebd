"""The TensorBoard log of a training by a recipe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tfp_bnn.callbacks import BayesianTensorBoard
from zoo.datasets import DataMissingError, Dataset
from zoo.evaluation.card_numbers import out_of_distribution_block
from zoo.recipes import Recipe, recipe_text

_DESCRIBED = ("architecture", "dataset", "model", "augmentation", "batch_size", "epochs", "warmup", "beta", "seed")


def board_of(recipe: Recipe, data: Dataset, folder: Path, tell: Callable[[str], None]) -> BayesianTensorBoard:
    """The callback that logs a training by a recipe to `<folder>/seed-<seed>`.

    It measures the first rows of the validation split, and the recipe's out-of-distribution data where they are at
    hand, with the recipe's seed of evaluation. The hyperparameters are those of the recipe.
    """
    how, outside = recipe.evaluation, None
    try:
        outside = out_of_distribution_block(data, how.out_of_distribution, how.num_samples).x
    except DataMissingError as error:
        tell(f"TensorBoard will show nothing out of distribution: {error}")
    description = recipe.model_dump(mode="json")
    return BayesianTensorBoard(
        folder / f"seed-{recipe.seed}",
        validation_data=(data.validation.x, data.validation.y),
        ood_data=outside,
        seed=how.seed,
        class_names=data.class_names,
        recipe=f"```\n{recipe_text(recipe)}```",
        hparams={name: description[name] for name in _DESCRIBED},
    )

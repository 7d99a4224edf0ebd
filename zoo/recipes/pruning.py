"""Bounds of the settings of a pruning."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from zoo.core.validation import Strict


class PruningRecipe(Strict):
    """Numbers that determine a pruning and the training after it; see `zoo.training.pruning_settings`.

    Attributes:
        fraction: Share of the weights or units to remove; None for `below`.
        below: Worth that weights or units need to stay, > 0; None for `fraction`.
        epochs: Number of passes over the training split after the last pruning.
        rounds: Number of prunings.
        epochs_between: Number of passes after each pruning but the last.
        learning_rate: Initial learning rate of Adam in all passes.
        seed: Seed of the order of the rows, the augmentation, and the noise of a model without a seed.
    """

    fraction: Annotated[float, Field(strict=True, ge=0, lt=1)] | None = None
    below: Annotated[float, Field(strict=True, gt=0)] | None = None
    epochs: Annotated[int, Field(strict=True, ge=0, lt=2**31)] = 0
    rounds: Annotated[int, Field(strict=True, ge=1, lt=2**31)] = 1
    epochs_between: Annotated[int, Field(strict=True, ge=1, lt=2**31)] = 1
    learning_rate: Annotated[float, Field(strict=True, gt=0)] = 1e-3
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**31)] = 0

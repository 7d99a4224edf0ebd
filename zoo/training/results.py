"""What a run gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt

from zoo.hub.members import ZooModel
from zoo.recipes import FineTuneRecipe, Recipe
from zoo.training.log import log_text


@dataclass(frozen=True)
class TrainingRun:
    """What `train` gives back. `zoo.save_artifact` takes it.

    Attributes:
        model: The trained model.
        recipe: The recipe that was followed, overrides included.
        history: For each name, a list of one number for each epoch.
        metrics: What the card shows; empty when nothing was measured.
        path: The folder of the artifact, or None.
        about: What an artifact says of the data: `dataset` (None for data without a name), `task`, `class_names`,
            `feature_names`.
        golden_inputs: A few inputs, whose predictions an artifact keeps.
    """

    model: ZooModel
    recipe: Recipe | FineTuneRecipe
    history: Mapping[str, list[float]]
    metrics: Mapping[str, Any]
    path: Path | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    golden_inputs: npt.NDArray[Any] | None = None

    @property
    def log(self) -> str:
        """The history as CSV, a row for each epoch; empty where there is none."""
        return log_text(self.history) if self.history else ""

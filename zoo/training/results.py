"""Result of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt

from tfp_bnn.core.expected_inputs import ExpectedInputs
from zoo.hub.members import ZooModel
from zoo.recipes import FineTuneRecipe, Recipe
from zoo.training.log import log_text


@dataclass(frozen=True)
class TrainingRun:
    """Result of `train`. Can be passed to `zoo.save_artifact`.

    Attributes:
        model: Trained model.
        recipe: Recipe of the run, including overrides; None for a pruned model whose source had none.
        history: Lists by name, one number per epoch.
        metrics: Numbers for the card. Empty if nothing was measured.
        path: Folder of the artifact, or None.
        about: Description of the data for the artifact: `dataset` (None for data without a name), `task`,
            `class_names`, `feature_names`, and `target_units` if they have names.
        golden_inputs: A few inputs whose predictions are stored in the artifact.
    """

    model: ZooModel
    recipe: Recipe | FineTuneRecipe | None
    history: Mapping[str, list[float]]
    metrics: Mapping[str, Any]
    path: Path | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    golden_inputs: npt.NDArray[Any] | None = None

    @property
    def log(self) -> str:
        """History as CSV, one row per epoch, or an empty string."""
        return log_text(self.history) if self.history else ""

    def name_outputs(self) -> None:
        """Tells the model what it was trained on, as loading the artifact does: inputs, classes and units."""
        self.model.inputs_expected = ExpectedInputs.from_config(self.about["inputs"])
        self.model.class_names = self.about.get("class_names")
        self.model.target_units = self.about.get("target_units")

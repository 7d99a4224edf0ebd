"""Predictions for a split of a dataset and their scores: the data of a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

import tfp_bnn
from tfp_bnn.calibration import CALIBRATIONS
from tfp_bnn.models import PredictiveModel
from tfp_bnn.predictive import for_each_class, sampling_errors, score, standard_errors
from zoo.datasets import Dataset, Split
from zoo.evaluation.blocks import Block, check_draws_fit
from zoo.evaluation.card_numbers import kl_draws, out_of_distribution_block
from zoo.evaluation.data_checks import check_names, check_task, trained_on, with_groups_of
from zoo.hub.members import inference_config
from zoo.hub.ways import text_of

# Of the tables and figures of the least certain examples.
MOST_EXAMPLES = 10
UNIT_OF_TARGET = "units of the target"
# A table of examples shows the inputs too, where they are no more than this.
_MOST_FEATURES = 8


@dataclass(frozen=True, eq=False)
class Measured:
    """A model, its inputs and its predictions.

    Attributes:
        name: Name of the model.
        model: Model to report on.
        data: Dataset.
        split: Name of the split, to be shown.
        part: Inputs and targets of the split.
        num_samples: Number of draws that were requested.
        seed: Seed of the samples.
        calibrated: Whether to apply the model's calibration, if it has one.
        predictive: Predictions for the split.
        scores: Scores of `zoo.evaluate`, by name.
        outside_name: Name of the out-of-distribution data, or None.
        outside: Predictions for the out-of-distribution data, or None.
        kl: KL in nats, by layer.
    """

    name: str
    model: PredictiveModel
    data: Dataset
    split: str
    part: Split
    num_samples: int
    seed: int
    calibrated: bool
    predictive: tfp_bnn.PosteriorPredictive
    scores: Mapping[str, float]
    outside_name: str | None
    outside: tfp_bnn.PosteriorPredictive | None
    kl: Mapping[str, float]

    def errors_of_examples(self, scores: Callable[[Any, npt.NDArray[Any]], Mapping[str, float]]) -> dict[str, float]:
        """Returns the standard errors of scores over the examples, with those of `zoo.evaluate`.

        Args:
            scores: Function of predictions and targets.
        """
        return sampling_errors(self.predictive, self.part.y, scores)

    @cached_property
    def errors_of_draws(self) -> dict[str, float]:
        """The standard errors of the scores of `zoo.evaluate` over the draws; by name."""
        return standard_errors(self.predictive, self.part.y)

    @property
    def rows(self) -> str:
        """Says in words which rows these are."""
        return f"all rows of {self.data.name}" if self.split == "all" else f"the {self.split} split of {self.data.name}"

    @property
    def target_units(self) -> tuple[str, ...]:
        """The units of the targets; empty if they have no name."""
        return tuple(self.data.target_units or self.model.target_units or ())

    def in_units(self, text: str) -> str:
        """Returns a text with the units of the targets by their name, if they have one."""
        units = ", ".join(dict.fromkeys(self.target_units))
        return text.replace(UNIT_OF_TARGET, units) if units else text

    @property
    def draws(self) -> str:
        """Describes what the predictions are averaged over."""
        config = inference_config(self.model)
        numbers = {"number": self.predictive.num_samples, "seed": self.seed}
        return text_of(config).averaged.format_map({**config, **numbers})

    @property
    def calibration(self) -> str:
        """Describes the calibration of the predictions."""
        calibration = self.model.calibration
        if calibration is None:
            return "none"
        numbers = ", ".join(f"{value:.4g}" for value in calibration.get_config().values())
        return f"{CALIBRATIONS.name_of(calibration)} {numbers}{'' if self.calibrated else ', not applied'}"

    def probabilities_of_draws(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Returns class probabilities of other inputs for each draw of the weights, of shape `(S, m, classes)`."""
        predictive = Block(x, None, self.num_samples, self.calibrated).predict(self.model, self.seed)
        return for_each_class(predictive.samples)

    def inputs_of(self, rows: npt.NDArray[np.intp]) -> dict[str, list[str]]:
        """Returns the input columns of some rows as text, by name. Empty if there is no table, or too many columns."""
        names = self.data.feature_names
        if names is None or len(names) > _MOST_FEATURES:
            return {}
        return {name: [f"{value:.4g}" for value in self.part.x[rows, i]] for i, name in enumerate(names)}


def measure(
    model: PredictiveModel,
    data: Dataset,
    split: str,
    *,
    name: str,
    num_samples: int,
    seed: int,
    calibrated: bool,
    out_of_distribution: str | None,
    split_name: str | None = None,
) -> Measured:
    """Predicts and evaluates. Arguments and errors are those of `write_evaluation_report`."""
    check_task(model, data)
    check_names(model, data)
    data = with_groups_of(model, data)
    part = data.split(split)
    check_draws_fit("A report", model, part.x, num_samples, seed)
    outside = None
    if out_of_distribution is not None:
        block = out_of_distribution_block(data, out_of_distribution, num_samples, trained_on(model))
        outside = replace(block, calibrated=calibrated).predict(model, seed)
    predictive = Block(part.x, part.y, num_samples, calibrated).predict(model, seed)
    return Measured(
        name=name,
        model=model,
        data=data,
        split=split_name or split,
        part=part,
        num_samples=num_samples,
        seed=seed,
        calibrated=calibrated,
        predictive=predictive,
        scores=score(predictive, part.y),
        outside_name=out_of_distribution,
        outside=outside,
        kl={layer: float(draws.mean()) for layer, draws in kl_draws(model).items()},
    )

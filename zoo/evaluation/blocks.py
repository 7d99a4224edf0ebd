"""Inputs, how they are predicted, and the scores of these predictions, whatever memory their draws take."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

import tfp_bnn
from tfp_bnn.core.expected_inputs import any_inputs
from tfp_bnn.models import PredictiveModel
from tfp_bnn.predictive import score

MOST_BYTES = 2**30
"""Of the draws of a block that are kept in memory."""
_ROWS_OF_A_PART = 512


@dataclass(frozen=True, eq=False)
class Block:
    """A block of a card: inputs, and how to predict them.

    Attributes:
        x: Inputs of shape `(n, *input_shape)`.
        y: Targets as in `Split`; None for inputs that have none.
        num_samples: Number of Monte Carlo samples of the weights.
        calibrated: Whether to apply the model's calibration.
        plug_in: Whether every weight is at its posterior mean instead. Never calibrated.
    """

    x: npt.NDArray[Any]
    y: npt.NDArray[Any] | None
    num_samples: int
    calibrated: bool = True
    plug_in: bool = False

    def predict(self, model: PredictiveModel, seed: int) -> tfp_bnn.PosteriorPredictive:
        """Returns the predictive of a model for these inputs."""
        # Those without targets are inputs that the model was not trained for.
        with any_inputs() if self.y is None else contextlib.nullcontext():
            if self.plug_in:
                return model.plug_in_predictive(self.x)
            return model.posterior_predictive(
                self.x, self.num_samples, seed, max_bytes=MOST_BYTES, calibrated=self.calibrated
            )

    def score(
        self, model: PredictiveModel, seed: int, predictive: tfp_bnn.PosteriorPredictive | None = None
    ) -> dict[str, float]:
        """Returns the scores of a model; see `tfp_bnn.predictive.score`.

        Draws that were not kept in memory are made again, a few rows at a time.

        Args:
            model: Model.
            seed: Seed of the samples.
            predictive: Result of `predict` for the same model and seed, if it is at hand.
        """
        if predictive is None:
            if rows_in_memory(model, self.x, self.num_samples, seed)[0] < len(self.x):
                return score(self._parts(model, seed))
            predictive = self.predict(model, seed)
        if predictive.has_draws:
            return score(predictive, self.y)
        # The inputs were judged as a whole: those of a part may be unlike the training data by chance.
        with any_inputs():
            return score(self._parts(model, seed))

    def conformal_score(
        self, model: PredictiveModel, seed: int, predictive: tfp_bnn.PosteriorPredictive
    ) -> dict[str, float]:
        """Returns the score of the model's conformal prediction, {} if it has none. Arguments are those of `score`."""
        if model.conformal is None:
            return {}
        if predictive.has_draws or not model.conformal.needs_draws:
            return model.conformal.score(predictive, self.y)
        with any_inputs():
            parts = [(len(part), model.conformal.score(part, y)) for part, y in self._parts(model, seed)]
        # Each is a mean over rows.
        return {name: sum(n * scores[name] for n, scores in parts) / len(self.x) for name in parts[0][1]}

    def _parts(self, model: PredictiveModel, seed: int) -> Iterator[tuple[tfp_bnn.PosteriorPredictive, Any]]:
        if not self.plug_in:
            rows = max(1, min(_ROWS_OF_A_PART, rows_in_memory(model, self.x, self.num_samples, seed)[0]))
            yield from model.stream_predictive(
                self.x, self.y, self.num_samples, seed, batch_size=rows, calibrated=self.calibrated
            )
            return
        for start in range(0, len(self.x), _ROWS_OF_A_PART):
            part = slice(start, start + _ROWS_OF_A_PART)
            yield model.plug_in_predictive(self.x[part]), None if self.y is None else self.y[part]


def rows_in_memory(model: PredictiveModel, x: npt.NDArray[Any], num_samples: int, seed: int) -> tuple[int, int]:
    """Returns of how many of some inputs the draws are kept in memory, and how many draws these are.

    They are kept of all inputs if they take at most 1 GiB. A model of a few networks has no more draws than these.
    """
    known: Any = model
    sizes = known.output_shape[1:]
    if None not in sizes and 4 * len(x) * num_samples * math.prod(sizes) <= MOST_BYTES:
        return len(x), num_samples
    with any_inputs():
        row = model.posterior_predictive(x[:1], num_samples, seed)
    one = 4 * math.prod((row.num_samples, *row.positions, row.num_outputs))
    return min(len(x), MOST_BYTES // one), row.num_samples


def check_draws_fit(what: str, model: PredictiveModel, x: npt.NDArray[Any], num_samples: int, seed: int) -> None:
    """Refuses early what needs all draws of the predictions for some inputs, if they take too much memory.

    Args:
        what: What needs them, such as `"A report"`.
        model: Model.
        x: Inputs.
        num_samples: Number of Monte Carlo samples of the weights.
        seed: Seed of the samples.

    Raises:
        ValueError: If they take more than 1 GiB.
    """
    rows, draws = rows_in_memory(model, x, num_samples, seed)
    if rows < len(x):
        raise ValueError(
            f"{what} needs all draws of its predictions, and {draws} for each of {len(x):,} rows take more than "
            f"{MOST_BYTES / 2**30:g} GiB. Ask for at most {max(1, draws * rows // len(x))} (--num-samples, "
            f"num_samples=...), or give at most {rows:,} rows. The scores alone have no such limit."
        )

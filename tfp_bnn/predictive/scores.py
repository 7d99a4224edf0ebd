"""The scores of a posterior predictive, as used by model cards, callbacks and early stopping."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tfp_bnn.likelihoods.scoring import for_each_class
from tfp_bnn.predictive.posterior_predictive import PosteriorPredictive

__all__ = ["for_each_class", "score"]

_LEVELS = [0.05, 0.95]


def score(
    predictive: PosteriorPredictive | Iterable[tuple[PosteriorPredictive, Any]], y: Any = None
) -> dict[str, float]:
    """The scores of n predictions, as defined by their likelihood.

    Args:
        predictive: Predictions for n inputs, or the pairs of `model.stream_predictive`. Of a stream, only what the
            scores need is kept in memory: means, uncertainties and log-probabilities, but no draws.
        y: Targets of the inputs, as for training. Without them (None), only the uncertainty is measured:
            `mutual_information` and `entropy`, or `epistemic_std`. The targets of a stream are in its pairs.

    Returns:
        Classes: `accuracy`, `nll` (of the predictive, nats), `ece` (15 equal-width bins), `brier`, and the means
        of `entropy` and `mutual_information` (nats). Several labels for each example: the same, with `accuracy`, `ece`
        and `brier` over all labels of all examples, each a question with two answers, and the others for each example,
        summed over its labels. Numbers: `rmse`, `mae` (units of the target), `nll` (nats), `coverage_90` (share of
        targets in the central 90 % interval), `aleatoric_std`, `epistemic_std` (roots of the mean variances, units of
        the target). Custom likelihoods may define others.

    Raises:
        ValueError: If the draws did not fit into memory, the targets do not fit, or a stream is empty.
    """
    if isinstance(predictive, PosteriorPredictive):
        return predictive.likelihood.scores(predictive, y)
    if y is not None:
        raise ValueError("Got `y` for a stream of predictions, whose pairs hold the targets. Leave out `y`.")
    gathered = _Gathered(predictive)
    return gathered.likelihood.scores(gathered, gathered.y)


class _Gathered:
    """What scores ask of a predictive, gathered from batches and without their draws.

    Args:
        batches: Predictions and targets (or None) of each batch.
    """

    def __init__(self, batches: Iterable[tuple[PosteriorPredictive, Any]]) -> None:
        parts: dict[str, list[np.ndarray]] = {}
        for predictive, y in batches:
            for name, values in _what_scores_need(predictive, y).items():
                parts.setdefault(name, []).append(values)
            self.likelihood, self.num_outputs = predictive.likelihood, predictive.num_outputs
            self.positions = predictive.positions
        if not parts:
            raise ValueError("The stream of predictions is empty. Expected at least one batch.")
        self._values = {name: np.concatenate(values) for name, values in parts.items()}
        self.y = self._values.get("y")

    def mean(self) -> np.ndarray:
        return self._values["mean"]

    def entropy(self) -> np.ndarray:
        return self._values["entropy"]

    def aleatoric(self) -> np.ndarray:
        return self._values["aleatoric"]

    def epistemic(self) -> np.ndarray:
        return self._values["epistemic"]

    def log_prob(self, y: Any) -> np.ndarray:
        return self._values["log_prob"]

    def quantiles(self, levels: Sequence[float]) -> np.ndarray:
        if list(levels) != _LEVELS:
            raise ValueError(f"A stream keeps the quantiles of the levels {_LEVELS}, but got {levels!r}.")
        return np.stack([self._values["lower"], self._values["upper"]])


def _what_scores_need(predictive: PosteriorPredictive, y: Any) -> dict[str, np.ndarray]:
    found = {"mean": predictive.mean(), "aleatoric": predictive.aleatoric(), "epistemic": predictive.epistemic()}
    if predictive.likelihood.has_probabilities:
        found["entropy"] = predictive.entropy()
    if y is not None:
        found |= {"y": np.asarray(y), "log_prob": predictive.log_prob(y)}
        if not predictive.likelihood.has_probabilities:
            found["lower"], found["upper"] = predictive.quantiles(_LEVELS)
    return found

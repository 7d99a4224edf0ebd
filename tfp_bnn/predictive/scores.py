"""The scores of a posterior predictive, as used by model cards, callbacks and early stopping."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from tfp_bnn.likelihoods.positions import fold_targets
from tfp_bnn.likelihoods.scoring import for_each_class
from tfp_bnn.predictive.drawing import averaged
from tfp_bnn.predictive.joint_predictive import JointPredictive
from tfp_bnn.predictive.posterior_predictive import PosteriorPredictive

__all__ = ["for_each_class", "score"]

_LEVELS = [0.05, 0.95]


def score(
    predictive: PosteriorPredictive | JointPredictive | Iterable[tuple[PosteriorPredictive | JointPredictive, Any]],
    y: Any = None,
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
        the target). Several outputs: `nll` of all together, and those of each head, as `class/accuracy`. Custom
        likelihoods may define others.

    Raises:
        ValueError: If the draws did not fit into memory, the targets do not fit, or a stream is empty.
    """
    if isinstance(predictive, PosteriorPredictive | JointPredictive):
        return predictive.likelihood.scores(predictive, y)
    if y is not None:
        raise ValueError("Got `y` for a stream of predictions, whose pairs hold the targets. Leave out `y`.")
    batches = iter(predictive)
    first = next(batches, None)
    if first is None:
        raise ValueError("The stream of predictions is empty. Expected at least one batch.")
    gathered = _GatheredHeads() if first[0].likelihood.heads else _Gathered()
    for of_batch, targets in chain([first], batches):
        gathered.add(of_batch, targets)
    return first[0].likelihood.scores(gathered, gathered.y)


class _Gathered:
    """What scores ask of a predictive, gathered from batches and without their draws.

    Positions, such as time steps, are rows here: batches may have different numbers of them.
    """

    positions: tuple[int, ...] = ()

    def __init__(self) -> None:
        self._parts: dict[str, list[np.ndarray]] = {}

    def add(self, predictive: Any, y: Any) -> None:
        # Targets may all be missing in a batch.
        log_prob = None if y is None else averaged(predictive.log_likelihood(y))
        for name, values in _what_scores_need(predictive, y).items():
            self._parts.setdefault(name, []).append(fold_targets(values, predictive.positions))
        if log_prob is not None:
            # Of whole examples.
            self._parts.setdefault("log_prob", []).append(log_prob)
        self.num_outputs = predictive.num_outputs

    @property
    def y(self) -> np.ndarray | None:
        return np.concatenate(self._parts["y"]) if "y" in self._parts else None

    def mean(self) -> np.ndarray:
        return np.concatenate(self._parts["mean"])

    def entropy(self) -> np.ndarray:
        return np.concatenate(self._parts["entropy"])

    def aleatoric(self) -> np.ndarray:
        return np.concatenate(self._parts["aleatoric"])

    def epistemic(self) -> np.ndarray:
        return np.concatenate(self._parts["epistemic"])

    def log_prob(self, y: Any) -> np.ndarray:
        return np.concatenate(self._parts["log_prob"])

    def quantiles(self, levels: Sequence[float]) -> np.ndarray:
        if list(levels) != _LEVELS:
            raise ValueError(f"A stream keeps the quantiles of the levels {_LEVELS}, but got {levels!r}.")
        return np.stack([np.concatenate(self._parts["lower"]), np.concatenate(self._parts["upper"])])


class _GatheredHeads(dict[str, _Gathered]):
    """What the scores of a joint likelihood ask of its predictive, by head."""

    def __init__(self) -> None:
        super().__init__()
        self._log_prob: list[np.ndarray] = []

    def add(self, predictive: Any, y: Any) -> None:
        targets = {} if y is None else predictive.likelihood.by_head(y, "`y`")
        for name, of_head in predictive.items():
            self.setdefault(name, _Gathered()).add(of_head, targets.get(name))
        if y is not None:
            self._log_prob.append(predictive.log_prob(y))

    @property
    def y(self) -> dict[str, Any] | None:
        return {name: of_head.y for name, of_head in self.items()} if self._log_prob else None

    def log_prob(self, y: Any) -> np.ndarray:
        return np.concatenate(self._log_prob)


def _what_scores_need(predictive: PosteriorPredictive, y: Any) -> dict[str, np.ndarray]:
    found = {"mean": predictive.mean(), "aleatoric": predictive.aleatoric(), "epistemic": predictive.epistemic()}
    if predictive.likelihood.has_probabilities:
        found["entropy"] = predictive.entropy()
    if y is not None:
        found["y"] = np.asarray(y)
        if not predictive.likelihood.has_probabilities:
            found["lower"], found["upper"] = predictive.quantiles(_LEVELS)
    return found

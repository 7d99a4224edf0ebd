"""The scores of a posterior predictive, as used by model cards, callbacks and early stopping."""

from __future__ import annotations

from typing import Any

from tfp_bnn.likelihoods.scoring import for_each_class
from tfp_bnn.predictive.posterior_predictive import PosteriorPredictive

__all__ = ["for_each_class", "score"]


def score(predictive: PosteriorPredictive, y: Any = None) -> dict[str, float]:
    """The scores of n predictions, as defined by their likelihood.

    Args:
        predictive: Predictions for n inputs.
        y: Targets of the inputs, as for training. Without them (None), only the uncertainty is measured:
            `mutual_information` and `entropy`, or `epistemic_std`.

    Returns:
        Classes: `accuracy`, `nll` (of the predictive, nats), `ece` (15 equal-width bins), `brier`, and the means
        of `entropy` and `mutual_information` (nats). Several labels for each example: the same, with `accuracy`, `ece`
        and `brier` over all labels of all examples, each a question with two answers, and the others for each example,
        summed over its labels. Numbers: `rmse`, `mae` (units of the target), `nll` (nats), `coverage_90` (share of
        targets in the central 90 % interval), `aleatoric_std`, `epistemic_std` (roots of the mean variances, units of
        the target). Custom likelihoods may define others.

    Raises:
        ValueError: If the draws did not fit into memory, or the targets do not fit.
    """
    return predictive.likelihood.scores(predictive, y)

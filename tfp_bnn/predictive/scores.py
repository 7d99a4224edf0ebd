"""The scores of a posterior predictive: one list of numbers, for cards, callbacks and early stopping alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tfp_bnn import metrics
from tfp_bnn.predictive.posterior_predictive import PosteriorPredictive


def score(predictive: PosteriorPredictive, y: Any = None) -> dict[str, float]:
    """The scores of n predictions.

    Args:
        predictive: n predictions.
        y: their targets; None for inputs without, of which only the uncertainty is measured: `mutual_information` and
            `entropy`, or `epistemic_std`.

    Returns:
        Classification: `accuracy`, `nll` (of the predictive, nats), `ece` (15 equal-width bins), `brier`, and the means
        of `entropy` and `mutual_information` (nats). Regression: `rmse`, `mae` (units of the target), `nll` (nats),
        `coverage_90` (share of targets in the central 90 % interval), `aleatoric_std`, `epistemic_std` (roots of the
        mean variances, units of the target).

    Raises:
        ValueError: when the draws did not fit into memory, or the targets do not fit.
    """
    return (_classification if predictive.likelihood.task == "classification" else _regression)(predictive, y)


def for_each_class(probabilities: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Probabilities of shape `(..., classes)`: of one logit, those of class 0 and class 1."""
    if probabilities.shape[-1] > 1:
        return probabilities
    return np.concatenate([1.0 - probabilities, probabilities], axis=-1)


def _classification(predictive: PosteriorPredictive, labels: Any) -> dict[str, float]:
    uncertainty = {
        "entropy": float(predictive.entropy().mean(dtype=np.float64)),
        "mutual_information": float(predictive.epistemic().mean(dtype=np.float64)),
    }
    if labels is None:
        return uncertainty
    probabilities = for_each_class(predictive.mean())
    return {
        "accuracy": metrics.accuracy(labels, probabilities),
        "nll": float(-predictive.log_prob(labels).mean(dtype=np.float64)),
        "ece": metrics.expected_calibration_error(labels, probabilities),
        "brier": metrics.brier_score(labels, probabilities),
        **uncertainty,
    }


def _regression(predictive: PosteriorPredictive, targets: Any) -> dict[str, float]:
    epistemic_std = float(np.sqrt(predictive.epistemic().mean(dtype=np.float64)))
    if targets is None:
        return {"epistemic_std": epistemic_std}
    lower, upper = predictive.quantiles([0.05, 0.95])
    return {
        "rmse": metrics.rmse(targets, predictive.mean()),
        "mae": metrics.mae(targets, predictive.mean()),
        "nll": float(-predictive.log_prob(targets).mean(dtype=np.float64)),
        "coverage_90": metrics.interval_coverage(targets, lower, upper),
        "aleatoric_std": float(np.sqrt(predictive.aleatoric().mean(dtype=np.float64))),
        "epistemic_std": epistemic_std,
    }

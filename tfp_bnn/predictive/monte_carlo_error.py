"""How far a number wanders with the draws of the weights: the jackknife over the Monte Carlo samples.

Every metric of a predictive is a function of what each draw says, averaged over the draws. It is taken S times anew,
each time without one of the S draws; the network is not run again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import entr, logsumexp
from scipy.stats import norm

from tfp_bnn import metrics
from tfp_bnn.predictive.calibrators import Calibration, Scale
from tfp_bnn.predictive.posterior_predictive import PosteriorPredictive
from tfp_bnn.predictive.scores import for_each_class


def standard_errors(
    predictive: PosteriorPredictive, y: Any = None, calibration: Calibration | None = None
) -> dict[str, float]:
    """The Monte Carlo standard error of each metric of `tfp_bnn.predictive.score`.

        SE^2 = (S - 1) / S * sum_s (m_(-s) - mean of all m_(-s))^2

    where m_(-s) is the metric of the mixture over all draws but s.

    Args:
        predictive: n predictions under S draws, all of them kept.
        y: their targets; None for inputs without.
        calibration: that the predictions have gone through, if any.

    Returns:
        Standard errors by the name of the metric, in its unit. Empty for S = 1, because one draw does not show its
        spread, and where the draws are all there are: an ensemble has no Monte Carlo error.

    Raises:
        ValueError: when the draws did not fit into memory.

    References:
        B. Efron, C. Stein, The jackknife estimate of variance, Annals of Statistics 9, 1981.
        https://doi.org/10.1214/aos/1176345462
    """
    num_samples = predictive.num_samples
    if num_samples == 1 or predictive.exhaustive:
        return {}
    if predictive.likelihood.task == "classification":
        without = list(_classification(predictive, y))
    else:
        without = list(_regression(predictive, y, calibration))
    return {
        name: float(np.sqrt((num_samples - 1) * np.var([scores[name] for scores in without]))) for name in without[0]
    }


def _classification(predictive: PosteriorPredictive, labels: Any) -> Iterator[dict[str, float]]:
    samples = for_each_class(predictive.samples)
    total = samples.sum(axis=0, dtype=np.float64)
    aleatoric = np.array([_mean_entropy(sample) for sample in samples])
    for draw, sample in enumerate(samples):
        # Rounding may leave less than nothing where the other draws say 0.
        probabilities = np.maximum(total - sample, 0.0) / (len(samples) - 1)
        entropy = _mean_entropy(probabilities)
        scores = {"entropy": entropy, "mutual_information": entropy - np.delete(aleatoric, draw).mean()}
        if labels is not None:
            scores["accuracy"] = metrics.accuracy(labels, probabilities)
            scores["nll"] = metrics.nll(labels, probabilities)
            scores["ece"] = metrics.expected_calibration_error(labels, probabilities)
            scores["brier"] = metrics.brier_score(labels, probabilities)
        yield scores


def _mean_entropy(probabilities: npt.NDArray[Any]) -> float:
    return float(entr(probabilities.astype(np.float64)).sum(axis=-1).mean())


def _regression(
    predictive: PosteriorPredictive, targets: Any, calibration: Calibration | None
) -> Iterator[dict[str, float]]:
    components = predictive.distribution().components_distribution.distribution
    loc = components.loc.numpy().astype(np.float64)
    scale = np.broadcast_to(components.scale.numpy(), loc.shape)
    loc, scale = np.moveaxis(loc, 1, 0), np.moveaxis(scale, 1, 0)
    widening = calibration.scale if isinstance(calibration, Scale) else 1.0
    center = loc.mean(axis=0)
    for draw in range(len(loc)):
        means, noise = np.delete(loc, draw, axis=0), np.delete(scale, draw, axis=0)
        # The draws were spread about the mean of all of them; without one of them it would have been another.
        means = means + (1.0 / widening - 1.0) * (means.mean(axis=0) - center)
        scores = {"epistemic_std": float(np.sqrt(means.var(axis=0).mean()))}
        if targets is not None:
            mean = means.mean(axis=0)
            log_density = norm.logpdf(targets, means, noise).sum(axis=-1)
            # A target lies in the central interval where the distribution function of the mixture says so.
            level = norm.cdf(targets, means, noise).mean(axis=0)
            scores["rmse"] = metrics.rmse(targets, mean)
            scores["mae"] = metrics.mae(targets, mean)
            scores["nll"] = float(np.log(len(means)) - logsumexp(log_density, axis=0).mean())
            scores["coverage_90"] = float(np.mean((level >= 0.05) & (level <= 0.95)))
            scores["aleatoric_std"] = float(np.sqrt(np.square(noise).mean()))
        yield scores

"""Monte Carlo standard error of a metric: the jackknife over the draws of the weights.

Every metric of a predictive is a function of per-draw values that are averaged over the draws. It is computed S times,
each time without one of the S draws. The network is not run again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tfp_bnn.predictive.posterior_predictive import PosteriorPredictive


def standard_errors(predictive: PosteriorPredictive, y: Any = None) -> dict[str, float]:
    """The Monte Carlo standard error of each metric of `tfp_bnn.predictive.score`.

        SE^2 = (S - 1) / S * sum_s (m_(-s) - mean of all m_(-s))^2

    where m_(-s) is the metric of the mixture without draw s.

    Args:
        predictive: Predictions for n inputs under S draws, all kept in memory.
        y: Targets of the inputs, or None if there are none.

    Returns:
        Standard errors by the name of the metric, in its unit. Empty for S = 1, because one draw shows no spread, and
        if the draws are all there are: an ensemble of posterior means has no Monte Carlo error. That of the draws
        within the members, with `draws_per_member`, is not estimated. States of Markov chains are taken as independent
        draws; where they are correlated, the error is larger, by the root of S over their effective size.

    Raises:
        ValueError: If the draws did not fit into memory, or the targets do not fit.

    References:
        B. Efron, C. Stein, The jackknife estimate of variance, Annals of Statistics 9, 1981.
        https://doi.org/10.1214/aos/1176345462
    """
    num_samples = predictive.num_samples
    if num_samples == 1 or predictive.exhaustive:
        return {}
    without = predictive.scores_without_each_draw(y)
    return {
        name: float(np.sqrt((num_samples - 1) * np.var([scores[name] for scores in without]))) for name in without[0]
    }

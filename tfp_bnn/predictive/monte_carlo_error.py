"""Monte Carlo standard error of a metric, by the jackknife or the bootstrap over the draws of the weights.

Every metric of a predictive is a function of per-draw values that are averaged over the draws. It is computed again for
other mixtures of the S draws: without each of them in turn, or with S draws that are taken from them with repetition.
The network is not run again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tfp_bnn.predictive.posterior_predictive import PosteriorPredictive

NUM_RESAMPLES = 200
_SEED = 0


def standard_errors(predictive: PosteriorPredictive, y: Any = None) -> dict[str, float]:
    """The Monte Carlo standard error of each metric of `tfp_bnn.predictive.score`.

        SE^2 = (S - 1) / S * sum_s (m_(-s) - mean of all m_(-s))^2

    where m_(-s) is the metric of the mixture without draw s: the jackknife. The accuracy, the ECE and the coverage of
    intervals move in steps when a draw is left out, so the jackknife is wrong for them. Theirs is the bootstrap: the
    standard deviation over 200 mixtures of S draws with repetition, the same in every call.

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
        https://doi.org/10.1214/aos/1176345462; B. Efron, Bootstrap methods: another look at the jackknife, Annals of
        Statistics 7, 1979. https://doi.org/10.1214/aos/1176344552
    """
    num_samples = predictive.num_samples
    if num_samples == 1 or predictive.exhaustive:
        return {}
    without = predictive.scores_without_each_draw(y)
    errors = {
        name: float(np.sqrt((num_samples - 1) * np.var([scores[name] for scores in without]))) for name in without[0]
    }
    if y is not None:
        draws = np.random.default_rng(_SEED).integers(num_samples, size=(NUM_RESAMPLES, num_samples))
        resampled = predictive.resampled_scores(y, draws)
        errors |= {name: float(np.std(values, ddof=1)) for name, values in resampled.items() if name in errors}
    return errors

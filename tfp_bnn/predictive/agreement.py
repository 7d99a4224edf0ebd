"""Agreement of a predictive with a reference, such as that of converged Markov chains."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tfp_bnn.likelihoods.agreement import COMPARED, DISTANCES
from tfp_bnn.likelihoods.scoring import for_each_class
from tfp_bnn.predictive.posterior_predictive import PosteriorPredictive


def compared_arrays(predictive: PosteriorPredictive) -> npt.NDArray[np.float32]:
    """What `agreement` compares of n predictions: enough to keep of a reference.

    Args:
        predictive: Predictions for n inputs.

    Returns:
        Float32: probabilities `(n, classes)`, two for one logit, or `(n, labels)`; for numbers, the quantiles at the 50
        levels .01, .03, ..., .99, `(n, targets, 50)`, in units of the target. Positions come after the axis of the
        inputs.

    Raises:
        ValueError: For numbers, if the draws did not fit into memory.
    """
    return COMPARED[predictive.target_kind](predictive)


def agreement(predictive: PosteriorPredictive, reference: Any) -> dict[str, float]:
    """How near predictions are to those of a reference for the same inputs. They need no targets.

    Args:
        predictive: Predictions for n inputs.
        reference: A `PosteriorPredictive` for the same inputs, or its `compared_arrays`.

    Returns:
        Classes: `agreement`, the share of inputs with the same most probable class, and `total_variation`, the mean of
        1/2 sum_c |p_c - r_c|, between 0 and 1. Labels: both over all labels, each a question with two answers. Numbers:
        `wasserstein`, the mean 1-Wasserstein distance integral |P^-1(u) - R^-1(u)| du of the two distributions of a
        target, noise included, in its unit. The integral is a mean over 50 levels.

    Raises:
        ValueError: If shapes differ, or the draws did not fit into memory.

    Example:
        >>> import numpy as np, tfp_bnn
        >>> from tfp_bnn.core.draws import FiniteDraws
        >>> normal = tfp_bnn.likelihoods.Normal(scale=1.0)
        >>> def predict(shift):
        ...     draws = FiniteDraws([lambda x: x + shift])
        ...     return tfp_bnn.PosteriorPredictive.from_draws(draws, np.zeros((5, 1)), normal)
        >>> distance = tfp_bnn.predictive.agreement(predict(0.25), predict(0.0))["wasserstein"]
        >>> round(distance, 4)
        0.25

    References:
        Wilson et al. 2022, Evaluating Approximate Inference in Bayesian Deep Learning,
        https://proceedings.mlr.press/v176/wilson22a.html (agreement, total variation; for regression, Wasserstein)
    """
    ours = compared_arrays(predictive)
    theirs = compared_arrays(reference) if isinstance(reference, PosteriorPredictive) else np.asarray(reference)
    # Earlier versions stored those of one logit with a single column.
    if predictive.target_kind == "class" and theirs.ndim == ours.ndim:
        theirs = for_each_class(theirs)
    if ours.shape != theirs.shape:
        raise ValueError(
            f"The predictions have the shape {ours.shape}, but those of the reference {theirs.shape}. Expected "
            "predictions of the same likelihood for the same inputs."
        )
    return DISTANCES[predictive.target_kind](ours, theirs)

"""Thompson sampling: exploration by acting as if one draw of the posterior were the truth."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from tfp_bnn.acquisition.scores import require_one_predictive
from tfp_bnn.core.arguments import require_integer
from tfp_bnn.predictive import PosteriorPredictive


def thompson(
    predictive: PosteriorPredictive, arms: Literal["targets", "inputs"] = "targets", seed: int = 0
) -> npt.NDArray[np.int64]:
    """Chooses arms by Thompson sampling: each decision takes one draw of the weights and its best arm.

    An arm is chosen with the probability that it is the best one, given the data so far. The expected rewards under the
    draw are compared, without the noise of a reward.

    Args:
        predictive: Predictions of rewards: numbers, or labels for rewards of 0 and 1. All draws must be in memory.
        arms: What an arm is. `"targets"`: input i is the context of decision i, and the network predicts the reward of
            each arm. Every decision has a draw of its own. `"inputs"`: each input describes an arm of one decision, and
            the network predicts one reward.
        seed: Integer that determines which draws are used. Pass another one for each call.

    Returns:
        Indices of the chosen arms, int64: of shape `(n,)` for n contexts, `()` if the inputs are the arms.

    Raises:
        TypeError: If the predictive is that of several outputs.
        ValueError: If the predictions are of classes or do not have the shape that `arms` needs, or the draws did not
            fit into memory.

    References:
        Thompson 1933, On the likelihood that one unknown probability exceeds another, Biometrika 25, 285-294;
        Riquelme, Tucker and Snoek 2018, Deep Bayesian Bandits Showdown, https://arxiv.org/abs/1802.09127

    Example:
        >>> import numpy as np, tfp_bnn
        >>> from tfp_bnn.core.draws import FiniteDraws
        >>> draws = FiniteDraws([lambda x: x + [0.0, 1.0], lambda x: x + [0.5, 2.0]])  # the second arm is better
        >>> normal = tfp_bnn.likelihoods.Normal(scale=1.0)
        >>> predictive = tfp_bnn.PosteriorPredictive.from_draws(draws, np.zeros((3, 2)), normal)
        >>> tfp_bnn.acquisition.thompson(predictive)
        array([1, 1, 1])
    """
    rewards = require_one_predictive(predictive, "thompson").samples
    if predictive.target_kind == "class" and rewards.shape[-1] > 1:
        raise ValueError(
            f"`thompson` compares rewards, but {predictive.likelihood!r} predicts the probabilities of classes, which "
            "are none. Predict numbers, or labels for rewards of 0 and 1 (likelihood 'bernoulli')."
        )
    if arms not in ("targets", "inputs"):
        raise ValueError(f"`arms` must be 'targets' or 'inputs', but got {arms!r}.")
    fits = rewards.ndim == 3 and (rewards.shape[-1] > 1 if arms == "targets" else rewards.shape[-1] == 1)
    if not fits:
        expected = "(contexts, arms) with two arms or more" if arms == "targets" else "(arms, 1)"
        raise ValueError(
            f"With arms={arms!r} the predictions must have the shape {expected}, but they have {rewards.shape[1:]}."
        )
    rng = np.random.default_rng(require_integer("seed", seed))
    if arms == "inputs":
        return np.asarray(rewards[rng.integers(len(rewards)), :, 0].argmax(), np.int64)
    draws = rng.integers(len(rewards), size=len(predictive))
    return rewards[draws, np.arange(len(predictive))].argmax(axis=-1).astype(np.int64)

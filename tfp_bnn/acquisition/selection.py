"""Selection of the inputs to label next."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tfp_bnn.acquisition import scores
from tfp_bnn.acquisition.batch_bald import batch_bald, require_number
from tfp_bnn.core.arguments import require_integer
from tfp_bnn.core.registry import Registry
from tfp_bnn.predictive import PosteriorPredictive

Score = Callable[[PosteriorPredictive], np.ndarray]
"""A function of a predictive for n inputs that gives a score `(n,)`, larger for inputs that are more worth a label."""

Acquisition = Callable[[PosteriorPredictive, int, int], npt.NDArray[np.int64]]
"""A function of a predictive, the number of inputs to choose and a seed that gives the indices of these inputs."""

ACQUISITIONS: Registry[Acquisition] = Registry("acquisition")


def select(
    predictive: PosteriorPredictive, number: int, by: str | Score = "bald", seed: int = 0
) -> npt.NDArray[np.int64]:
    """Chooses the inputs whose labels are worth most.

    Args:
        predictive: Predictions for n inputs that have no label yet.
        number: Number of inputs to choose, 1 to n.
        by: `"bald"`, `"batch_bald"`, `"entropy"` or `"variation_ratio"` for classes and labels; `"standard_deviation"`
            or `"entropy"` for numbers; `"random"`; another name in `ACQUISITIONS`; or a function of the predictive that
            returns a score `(n,)`.
        seed: Integer, for `"random"` and the Monte Carlo part of `"batch_bald"`.

    Returns:
        Indices into the n inputs, the best first, `(number,)`, int64. Of equal scores the first input wins.

    Raises:
        TypeError: If the predictive is that of several outputs.
        ValueError: If the name is unknown or does not fit the targets, `number` is out of range, or a score is NaN or
            has another shape.

    Example:
        >>> import numpy as np, tfp_bnn
        >>> from tfp_bnn.core.draws import FiniteDraws
        >>> draws = FiniteDraws([lambda x: x, lambda x: -x])
        >>> x = np.array([[0.0, 0.0], [0.0, 4.0], [0.0, 1.0]])  # the draws agree, contradict each other, differ
        >>> predictive = tfp_bnn.PosteriorPredictive.from_draws(draws, x, tfp_bnn.likelihoods.Categorical())
        >>> tfp_bnn.acquisition.select(predictive, 2, by="bald")
        array([1, 2])
    """
    predictive = scores.require_one_predictive(predictive, "select")
    number = require_number(number, len(predictive))
    require_integer("seed", seed)
    if callable(by):
        return _highest(by)(predictive, number, seed)
    return ACQUISITIONS[by](predictive, number, seed)


def _highest(score: Score) -> Acquisition:
    """The acquisition that chooses the inputs with the highest scores."""

    def choose(predictive: PosteriorPredictive, number: int, seed: int) -> npt.NDArray[np.int64]:
        values = np.asarray(score(predictive))
        if values.shape != (len(predictive),) or np.isnan(values).any():
            raise ValueError(
                f"A score must be one number for each of the {len(predictive)} inputs, but got an array of shape "
                f"{values.shape} with {int(np.isnan(values).sum())} NaN."
            )
        return np.argsort(-values, kind="stable")[:number].astype(np.int64)

    return choose


for _score in (scores.bald, scores.entropy, scores.variation_ratio, scores.standard_deviation):
    ACQUISITIONS.register(_score.__name__)(_highest(_score))
ACQUISITIONS.register("batch_bald")(batch_bald)


@ACQUISITIONS.register("random")
def random(predictive: PosteriorPredictive, number: int, seed: int) -> npt.NDArray[np.int64]:
    """Chooses inputs at random, each with the same probability: what every other acquisition is compared with."""
    return np.random.default_rng(seed).permutation(len(predictive))[:number].astype(np.int64)

"""What conformal predictions compute from predictions and targets: scores, quantiles and central intervals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from tfp_bnn.predictive.posterior_predictive import PosteriorPredictive

Floats = npt.NDArray[np.float64]

# Of intervals, so that any level above 0 can be reached, even where a prediction has no variance.
_WIDTH = 1e-12


def require_enough(counts: npt.NDArray[np.intp], level: float) -> None:
    """Refuses too few calibration examples.

    Args:
        counts: Number of examples, an array of one number or of one for each class.
        level: Coverage, a number between 0 and 1.

    Raises:
        ValueError: If a number is below level / (1 - level).
    """
    least = math.ceil(level / (1.0 - level) - 1e-9)
    short = np.flatnonzero(counts < least)
    if len(short):
        which = "there are" if len(counts) == 1 else f"class {short[0]} has"
        raise ValueError(
            f"A level of {level:g} needs at least {least} examples{'' if len(counts) == 1 else ' of each class'}, but "
            f"{which} {counts[short[0]]}. Lower the level, or use more examples."
        )


def quantile_of(scores: Floats, level: float) -> float:
    """The smallest score that at least ceil((n + 1) level) of n scores do not exceed."""
    rank = math.ceil((len(scores) + 1) * level - 1e-9)
    require_enough(np.array([len(scores)]), level)
    return float(np.sort(scores)[rank - 1])


def complements_of(predictive: PosteriorPredictive) -> Floats:
    """1 - p of each class."""
    if predictive.target_kind != "class":
        raise ValueError(f"The predictions are of {predictive.target_kind}s, which have no sets of classes.")
    probabilities = predictive.mean().astype(np.float64)
    if probabilities.shape[-1] == 1:
        return np.hstack([probabilities, 1.0 - probabilities])
    complements = 1.0 - probabilities
    # A float32 near 1 is coarse, so sure predictions would tie; the sum of the others is not.
    best = np.arange(len(probabilities)), probabilities.argmax(axis=-1)
    probabilities[best] = 0.0
    complements[best] = probabilities.sum(axis=-1)
    return complements


def intervals_of(predictive: PosteriorPredictive, level: float, least_width: float) -> tuple[Floats, Floats]:
    """Lower ends and widths of the central intervals, `(n, targets)`, widened on both sides to a least width.

    Where one value has most of the probability, as 0 has in rare counts, the interval has no width of its own.

    Args:
        predictive: Predictions of numbers.
        level: Probability of the central interval.
        least_width: Smallest width: steps of whole numbers, or standard deviations of the predictive of others.
    """
    if predictive.target_kind != "number":
        raise ValueError("The predictions are of classes, which have no interval.")
    lower, upper = (end.astype(np.float64) for end in predictive.interval(level))
    width = upper - lower
    if least_width:
        missing = np.maximum(least_width * _unit_of_width(predictive) - width, 0.0)
        lower, width = lower - missing / 2.0, width + missing
    return lower, np.maximum(width, _WIDTH * np.maximum(1.0, np.abs(lower)))


def _unit_of_width(predictive: PosteriorPredictive) -> Any:
    """1 for whole numbers; else the standard deviations of the predictive, `(n, targets)`, 0 where there is none."""
    if predictive.likelihood.has_whole_targets(predictive.num_outputs):
        return 1.0
    deviation = np.sqrt(predictive.aleatoric().astype(np.float64) + predictive.epistemic())
    return np.where(np.isfinite(deviation), deviation, 0.0)


def classes_of(predictive: PosteriorPredictive, y: Any) -> npt.NDArray[np.intp]:
    """The classes of targets as integers, `(n,)`; raises a ValueError as `targets_of` does."""
    return np.rint(targets_of(predictive, y)).astype(np.intp).reshape(-1)


def targets_of(predictive: PosteriorPredictive, y: Any) -> Floats:
    """Targets as the likelihood reads them; raises a ValueError if they do not fit the predictions, or are missing."""
    targets = predictive._checked_targets(y)
    likelihood, num_outputs = predictive.likelihood, predictive.num_outputs
    _, observed = likelihood.observed_rows(targets, predictive.positions, num_outputs)
    if observed is not None and not observed.all():
        raise ValueError(f"{int((~observed).sum())} of {observed.size} targets are missing. Remove these examples.")
    return likelihood.target_array(targets, num_outputs).astype(np.float64)

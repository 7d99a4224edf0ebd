"""Conformal prediction: sets of classes, and intervals, with a coverage that holds for finitely many examples.

If calibration examples and a new one are exchangeable, the set or interval contains the new target with at least the
probability `level`, whatever the model: over draws of the calibration examples as well as of the new one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tfp_bnn.core.arguments import is_number
from tfp_bnn.core.registry import Spec, SpecRegistry
from tfp_bnn.predictive.posterior_predictive import PosteriorPredictive

Floats = npt.NDArray[np.float64]

# Of the central intervals that are widened, so that any level above 0 can be reached.
_WIDTH = 1e-12


class Conformal(Spec):
    """A fitted conformal prediction. Abstract.

    Args:
        level: Coverage, a number between 0 and 1.
    """

    def __init__(self, level: float) -> None:
        if not is_number(level) or not 0 < level < 1:
            raise ValueError(f"`level` must be a number between 0 and 1, such as 0.9, but got {level!r}.")
        self.level = float(level)

    @classmethod
    def fitted(cls, predictive: PosteriorPredictive, y: Any, level: float, by_class: bool) -> Self:
        """Fits it to the predictions and targets of calibration examples; see `tfp_bnn.conformalize`."""
        raise NotImplementedError

    def predict(self, predictive: PosteriorPredictive) -> Any:
        """Returns the sets or intervals of predictions."""
        raise NotImplementedError

    def covers(self, predictive: PosteriorPredictive, y: Any) -> npt.NDArray[np.bool_]:
        """Returns whether each target is covered, `(n,)` for classes or `(n, targets)`. Its mean is the coverage."""
        raise NotImplementedError


CONFORMALS: SpecRegistry[Conformal] = SpecRegistry("conformal prediction")


@CONFORMALS.register("sets")
class ConformalSets(Conformal):
    """The set of all classes k with p(k | x) >= 1 - threshold: the smallest sets on average at their coverage.

    Args:
        level: Coverage, a number between 0 and 1.
        thresholds: A number from 0 to 1 for all classes, or one for each class.

    Raises:
        ValueError: If a value is out of range.

    References:
        Vovk, Gammerman and Shafer 2005, Algorithmic Learning in a Random World; Sadinle, Lei and Wasserman 2019, Least
        Ambiguous Set-Valued Classifiers with Bounded Error Levels, https://doi.org/10.1080/01621459.2017.1395341
    """

    def __init__(self, level: float, thresholds: float | Sequence[float]) -> None:
        super().__init__(level)
        self.thresholds = _numbers("thresholds", thresholds, 0.0, 1.0)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, JSON-serializable."""
        return {"level": self.level, "thresholds": self.thresholds}

    @classmethod
    def fitted(cls, predictive: PosteriorPredictive, y: Any, level: float, by_class: bool) -> Self:
        """Takes as threshold the quantile of 1 - p(y_i | x_i), over all examples or those of each class."""
        labels = _classes(predictive, y)
        probabilities = _probabilities(predictive)
        scores = 1.0 - probabilities[np.arange(len(labels)), labels]
        if not by_class:
            return cls(level, _quantile(scores, level))
        _require_enough(np.bincount(labels, minlength=probabilities.shape[-1]), level)
        return cls(level, [_quantile(scores[labels == k], level) for k in range(probabilities.shape[-1])])

    def predict(self, predictive: PosteriorPredictive) -> npt.NDArray[np.bool_]:
        """Returns which classes are in the set of each input, `(n, classes)`. A set can be empty.

        Raises:
            ValueError: If the predictions are not of classes, or of another number of them.
        """
        probabilities = _probabilities(predictive)
        if np.size(self.thresholds) not in (1, probabilities.shape[-1]):
            raise ValueError(
                f"There are thresholds for {np.size(self.thresholds)} classes, but the predictions are of "
                f"{probabilities.shape[-1]}. Fit them to this model."
            )
        return 1.0 - probabilities <= np.asarray(self.thresholds)

    def covers(self, predictive: PosteriorPredictive, y: Any) -> npt.NDArray[np.bool_]:
        """Returns whether the set of each input contains its class, `(n,)`."""
        labels = _classes(predictive, y)
        return self.predict(predictive)[np.arange(len(labels)), labels]


@CONFORMALS.register("intervals")
class ConformalIntervals(Conformal):
    """The central interval of the predictive at the level, widened or narrowed on both sides by a part of its width.

        [lower - margin * (upper - lower), upper + margin * (upper - lower)]

    Args:
        level: Coverage, a number between 0 and 1.
        margins: A number of at least -0.5 for all targets, or one for each target.

    Raises:
        ValueError: If a value is out of range.

    References:
        Romano, Patterson and Candès 2019, Conformalized Quantile Regression, https://arxiv.org/abs/1905.03222; for
        margins in units of the width, Sesia and Candès 2020, https://doi.org/10.1002/sta4.261
    """

    def __init__(self, level: float, margins: float | Sequence[float]) -> None:
        super().__init__(level)
        self.margins = _numbers("margins", margins, -0.5, math.inf)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, JSON-serializable."""
        return {"level": self.level, "margins": self.margins}

    @classmethod
    def fitted(cls, predictive: PosteriorPredictive, y: Any, level: float, by_class: bool) -> Self:
        """Takes as margins the quantiles of how far the targets are outside of their intervals, in widths of these."""
        if by_class:
            raise ValueError("The targets are numbers, which have no classes. Use by_class=False.")
        lower, width = _intervals(predictive, level)
        targets = _targets(predictive, y)
        scores = np.maximum(lower - targets, targets - lower - width) / width
        return cls(level, [_quantile(scores[:, k], level) for k in range(scores.shape[1])])

    def predict(self, predictive: PosteriorPredictive) -> tuple[Floats, Floats]:
        """Returns the lower and upper ends, two arrays `(n, targets)`, in units of the target.

        Raises:
            ValueError: If the predictions are not of numbers, or of another number of targets.
        """
        lower, width = _intervals(predictive, self.level)
        if np.size(self.margins) not in (1, lower.shape[-1]):
            raise ValueError(
                f"There are margins for {np.size(self.margins)} targets, but the predictions are of "
                f"{lower.shape[-1]}. Fit them to this model."
            )
        margins = np.asarray(self.margins) * width
        return lower - margins, lower + width + margins

    def covers(self, predictive: PosteriorPredictive, y: Any) -> npt.NDArray[np.bool_]:
        """Returns whether each target is in its interval, `(n, targets)`."""
        lower, upper = self.predict(predictive)
        targets = _targets(predictive, y)
        return (lower <= targets) & (targets <= upper)


# By the kind of target.
_BY_KIND: dict[str, type[Conformal]] = {"class": ConformalSets, "number": ConformalIntervals}


def conformal_for(predictive: PosteriorPredictive) -> type[Conformal]:
    """The conformal prediction for a kind of target.

    Raises:
        ValueError: If there is none: for several labels, and for outputs with positions, whose parts are not
            exchangeable.
    """
    kind = _BY_KIND.get(predictive.target_kind)
    if kind is None or predictive.positions:
        what = f"outputs with positions {predictive.positions}" if predictive.positions else "several labels"
        raise ValueError(f"There is no conformal prediction for {what}. It is for one class, or numbers, per example.")
    return kind


def _quantile(scores: Floats, level: float) -> float:
    """The smallest score that at least ceil((n + 1) level) of n scores do not exceed."""
    rank = math.ceil((len(scores) + 1) * level - 1e-9)
    _require_enough(np.array([len(scores)]), level)
    return float(np.sort(scores)[rank - 1])


def _require_enough(counts: npt.NDArray[np.intp], level: float) -> None:
    least = math.ceil(level / (1.0 - level) - 1e-9)
    short = np.flatnonzero(counts < least)
    if len(short):
        which = "there are" if len(counts) == 1 else f"class {short[0]} has"
        raise ValueError(
            f"A level of {level:g} needs at least {least} examples{'' if len(counts) == 1 else ' of each class'}, but "
            f"{which} {counts[short[0]]}. Lower the level, or use more examples."
        )


def _probabilities(predictive: PosteriorPredictive) -> Floats:
    if predictive.target_kind != "class":
        raise ValueError(f"The predictions are of {predictive.target_kind}s, which have no sets of classes.")
    probabilities = predictive.mean().astype(np.float64)
    return probabilities if probabilities.shape[-1] > 1 else np.hstack([1.0 - probabilities, probabilities])


def _intervals(predictive: PosteriorPredictive, level: float) -> tuple[Floats, Floats]:
    if predictive.target_kind != "number":
        raise ValueError("The predictions are of classes, which have no interval.")
    lower, upper = (end.astype(np.float64) for end in predictive.interval(level))
    return lower, np.maximum(upper - lower, _WIDTH * np.maximum(1.0, np.abs(lower)))


def _classes(predictive: PosteriorPredictive, y: Any) -> npt.NDArray[np.intp]:
    return np.rint(_targets(predictive, y)).astype(np.intp).reshape(-1)


def _targets(predictive: PosteriorPredictive, y: Any) -> Floats:
    predictive.log_prob(y)  # Refuses targets that do not fit.
    likelihood, num_outputs = predictive.likelihood, predictive.num_outputs
    _, observed = likelihood.observed_rows(np.asarray(y), predictive.positions, num_outputs)
    if observed is not None and not observed.all():
        raise ValueError(f"{int((~observed).sum())} of {observed.size} targets are missing. Remove these examples.")
    return likelihood.target_array(np.asarray(y), num_outputs).astype(np.float64)


def _numbers(name: str, value: Any, low: float, high: float) -> float | list[float]:
    values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if not values or not all(is_number(v) and low <= v <= high and math.isfinite(v) for v in values):
        raise ValueError(f"`{name}` must be a number from {low:g} to {high:g}, or a list of them, but got {value!r}.")
    return [float(v) for v in values] if isinstance(value, Sequence) else float(value)

"""Conformal prediction: sets of classes, and intervals, with a coverage that holds for finitely many examples.

If calibration examples and a new one are exchangeable, the set or interval contains the new target with at least the
probability `level`, whatever the model: over draws of the calibration examples as well as of the new one.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tfp_bnn.core.arguments import is_integer, is_number
from tfp_bnn.core.registry import Spec, SpecRegistry
from tfp_bnn.likelihoods import Likelihood
from tfp_bnn.predictive.conformal_scores import (
    Floats,
    classes_of,
    complements_of,
    intervals_of,
    quantile_of,
    require_enough,
    targets_of,
)
from tfp_bnn.predictive.posterior_predictive import PosteriorPredictive

# In the units of `intervals_of`. Intervals of most continuous distributions are wider at levels above 0.2.
_LEAST_STEPS = 1.0
_LEAST_DEVIATIONS = 0.5
# Widths are float32 numbers, so the ends of intervals stay finite.
_MOST_MARGIN = 1e30
MOST_SAMPLES = 100_000
"""Largest `num_samples` of a conformal prediction: whoever uses one from a file waits for as many draws."""
STEPS = ("coverage", "mean_size")
"""Scores that move in steps, when a single example moves over a threshold."""


class Conformal(Spec):
    """A fitted conformal prediction. Abstract.

    Args:
        level: Coverage, a number between 0 and 1.
        num_samples: Number of weight draws of the predictions it was fitted to, at most 100,000; None if unknown.
        seed: Seed of these draws, of 64 bits; None if unknown.
    """

    target_kind: str
    """The kind of target it is for, as `PosteriorPredictive.target_kind`."""
    needs_draws = True
    """Whether it is computed from each draw of a predictive, not from the mean alone."""

    def __init__(self, level: float, num_samples: int | None = None, seed: int | None = None) -> None:
        if not is_number(level) or not 0 < level < 1:
            raise ValueError(f"`level` must be a number between 0 and 1, such as 0.9, but got {level!r}.")
        self.level = float(level)
        self.num_samples = _integer("num_samples", num_samples, 1, MOST_SAMPLES)
        self.seed = _integer("seed", seed, -(2**63), 2**63 - 1)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, JSON-serializable."""
        return {"level": self.level, "num_samples": self.num_samples, "seed": self.seed}

    @classmethod
    def fitted(
        cls,
        predictive: PosteriorPredictive,
        y: Any,
        level: float,
        by_class: bool,
        num_samples: int | None = None,
        seed: int | None = None,
    ) -> Self:
        """Fits it to the predictions and targets of calibration examples; see `tfp_bnn.conformalize`."""
        raise NotImplementedError

    def check_outputs(self, likelihood: Likelihood, output_shape: Sequence[int]) -> None:
        """Refuses a network that it was not fitted to; arguments as of `conformal_for`.

        Raises:
            ValueError: If there is no conformal prediction for its outputs, or another one, or the numbers of classes
                or targets differ.
        """
        conformal_for(likelihood, output_shape)
        check_conformal_fits(self, likelihood)

    def predict(self, predictive: PosteriorPredictive) -> Any:
        """Returns the sets or intervals of predictions.

        Warns if these have another number of draws than those of the fit, because the coverage is that of the latter.
        """
        raise NotImplementedError

    def covers(self, predictive: PosteriorPredictive, y: Any) -> npt.NDArray[np.bool_]:
        """Returns whether each target is covered, `(n,)` for classes or `(n, targets)`. Its mean is the coverage."""
        return self.contains(self.predict(predictive), predictive, y)

    def score(self, predictive: PosteriorPredictive, y: Any) -> dict[str, float]:
        """Returns the `coverage`, a share of all targets, and the mean size of what `predict` returns, by its name."""
        found = self.predict(predictive)
        return {"coverage": float(self.contains(found, predictive, y).mean()), **self.mean_size(found)}

    def contains(self, found: Any, predictive: PosteriorPredictive, y: Any) -> npt.NDArray[np.bool_]:
        """Returns whether each target is in `found`, the sets or intervals of its predictions; see `covers`."""
        raise NotImplementedError

    def mean_size(self, found: Any) -> dict[str, float]:
        """Returns how large sets or intervals are on average, as one number with its name."""
        raise NotImplementedError

    def _check_draws(self, predictive: PosteriorPredictive) -> None:
        if self.num_samples not in (None, predictive.num_samples) and not predictive.exhaustive:
            warnings.warn(
                f"The predictions have {predictive.num_samples} draws, but the conformal prediction was fitted to "
                f"{self.num_samples}, and its coverage holds for these only. Predict with "
                f"num_samples={self.num_samples}{'' if self.seed is None else f', seed={self.seed}'}.",
                stacklevel=3,
            )


CONFORMALS: SpecRegistry[Conformal] = SpecRegistry("conformal prediction")


@CONFORMALS.register("sets")
class ConformalSets(Conformal):
    """The set of all classes k with p(k | x) >= 1 - threshold: the smallest sets on average at their coverage.

    Args:
        level: Coverage, a number between 0 and 1.
        thresholds: A number from 0 to 1 for all classes, or one for each class.
        num_samples: As in `Conformal`.
        seed: As in `Conformal`.

    Raises:
        ValueError: If a value is out of range.

    References:
        Vovk, Gammerman and Shafer 2005, Algorithmic Learning in a Random World; Sadinle, Lei and Wasserman 2019, Least
        Ambiguous Set-Valued Classifiers with Bounded Error Levels, https://doi.org/10.1080/01621459.2017.1395341
    """

    target_kind = "class"
    needs_draws = False

    def __init__(
        self,
        level: float,
        thresholds: float | Sequence[float],
        num_samples: int | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(level, num_samples, seed)
        self.thresholds = _numbers("thresholds", thresholds, 0.0, 1.0)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, JSON-serializable."""
        return {**super().get_config(), "thresholds": self.thresholds}

    @classmethod
    def fitted(
        cls,
        predictive: PosteriorPredictive,
        y: Any,
        level: float,
        by_class: bool,
        num_samples: int | None = None,
        seed: int | None = None,
    ) -> Self:
        """Takes as threshold the quantile of 1 - p(y_i | x_i), over all examples or those of each class."""
        labels = classes_of(predictive, y)
        complements = complements_of(predictive)
        scores = complements[np.arange(len(labels)), labels]
        if not by_class:
            return cls(level, quantile_of(scores, level), num_samples, seed)
        require_enough(np.bincount(labels, minlength=complements.shape[-1]), level)
        thresholds = [quantile_of(scores[labels == k], level) for k in range(complements.shape[-1])]
        return cls(level, thresholds, num_samples, seed)

    def check_outputs(self, likelihood: Likelihood, output_shape: Sequence[int]) -> None:
        """As `Conformal.check_outputs`."""
        super().check_outputs(likelihood, output_shape)
        self._check_number(likelihood.num_classes(output_shape[-1]))

    def predict(self, predictive: PosteriorPredictive) -> npt.NDArray[np.bool_]:
        """Returns which classes are in the set of each input, `(n, classes)`. A set can be empty.

        Raises:
            ValueError: If the predictions are not of classes, or of another number of them.
        """
        self._check_draws(predictive)
        complements = complements_of(predictive)
        self._check_number(complements.shape[-1])
        return complements <= np.asarray(self.thresholds)

    def contains(self, found: npt.NDArray[np.bool_], predictive: PosteriorPredictive, y: Any) -> npt.NDArray[np.bool_]:
        """Returns whether the set of each input contains its class, `(n,)`."""
        labels = classes_of(predictive, y)
        return found[np.arange(len(labels)), labels]

    def mean_size(self, found: npt.NDArray[np.bool_]) -> dict[str, float]:
        """Returns `mean_size`, the mean number of classes in a set."""
        return {"mean_size": float(found.sum(axis=-1).mean())}

    def _check_number(self, number: int | None) -> None:
        _require_number("thresholds", "classes", self.thresholds, number)


@CONFORMALS.register("intervals")
class ConformalIntervals(Conformal):
    """The central interval of the predictive at the level, widened or narrowed on both sides by a part of its width.

        [lower - margin * (upper - lower), upper + margin * (upper - lower)]

    Where one value has most of the probability, as 0 has in rare counts, the central interval has no width of its own.
    It is widened on both sides first, to at least 1 for whole numbers, and half the standard deviation of the
    predictive for others.

    Args:
        level: Coverage, a number between 0 and 1.
        margins: A number from -0.5 to 1e30 for all targets, or one for each target.
        num_samples: As in `Conformal`.
        seed: As in `Conformal`.
        least_width: Least width of the central interval: in steps of whole numbers, or standard deviations of the
            predictive of others. Default: 0, as in files of older versions; a fit takes 1 or 0.5.

    Raises:
        ValueError: If a value is out of range.

    References:
        Romano, Patterson and Candès 2019, Conformalized Quantile Regression, https://arxiv.org/abs/1905.03222; for
        margins in units of the width, Sesia and Candès 2020, https://doi.org/10.1002/sta4.261
    """

    target_kind = "number"

    def __init__(
        self,
        level: float,
        margins: float | Sequence[float],
        num_samples: int | None = None,
        seed: int | None = None,
        least_width: float = 0.0,
    ) -> None:
        super().__init__(level, num_samples, seed)
        if not is_number(least_width) or not 0 <= least_width <= _MOST_MARGIN:
            raise ValueError(f"`least_width` must be a number from 0 to {_MOST_MARGIN:g}, but got {least_width!r}.")
        self.least_width = float(least_width)
        self.margins = _numbers("margins", margins, -0.5, _MOST_MARGIN)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, JSON-serializable."""
        return {**super().get_config(), "margins": self.margins, "least_width": self.least_width}

    @classmethod
    def fitted(
        cls,
        predictive: PosteriorPredictive,
        y: Any,
        level: float,
        by_class: bool,
        num_samples: int | None = None,
        seed: int | None = None,
    ) -> Self:
        """Takes as margins the quantiles of how far the targets are outside of their intervals, in widths of these."""
        if by_class:
            raise ValueError("The targets are numbers, which have no classes. Use by_class=False.")
        is_whole = predictive.likelihood.has_whole_targets(predictive.num_outputs)
        least_width = _LEAST_STEPS if is_whole else _LEAST_DEVIATIONS
        lower, width = intervals_of(predictive, level, least_width)
        targets = targets_of(predictive, y)
        scores = np.maximum(lower - targets, targets - lower - width) / width
        margins = [quantile_of(scores[:, k], level) for k in range(scores.shape[1])]
        return cls(level, margins, num_samples, seed, least_width)

    def check_outputs(self, likelihood: Likelihood, output_shape: Sequence[int]) -> None:
        """As `Conformal.check_outputs`."""
        super().check_outputs(likelihood, output_shape)
        self._check_number(likelihood.num_targets(output_shape[-1]))

    def predict(self, predictive: PosteriorPredictive) -> tuple[Floats, Floats]:
        """Returns the lower and upper ends, two arrays `(n, targets)`, in units of the target.

        Raises:
            ValueError: If the predictions are not of numbers, or of another number of targets.
        """
        self._check_draws(predictive)
        lower, width = intervals_of(predictive, self.level, self.least_width)
        self._check_number(lower.shape[-1])
        margins = np.asarray(self.margins) * width
        return lower - margins, lower + width + margins

    def contains(self, found: tuple[Floats, Floats], predictive: PosteriorPredictive, y: Any) -> npt.NDArray[np.bool_]:
        """Returns whether each target is in its interval, both ends included, `(n, targets)`."""
        lower, upper = found
        targets = targets_of(predictive, y)
        return (lower <= targets) & (targets <= upper)

    def mean_size(self, found: tuple[Floats, Floats]) -> dict[str, float]:
        """Returns `mean_width`, the mean width of an interval in units of the target, over inputs and targets."""
        lower, upper = found
        return {"mean_width": float((upper - lower).mean())}

    def _check_number(self, number: int) -> None:
        _require_number("margins", "targets", self.margins, number)


# By the kind of target.
_BY_KIND: dict[str, type[Conformal]] = {cls.target_kind: cls for cls in (ConformalSets, ConformalIntervals)}


def conformal_for(likelihood: Likelihood, output_shape: Sequence[int]) -> type[Conformal]:
    """The conformal prediction for a kind of target.

    Args:
        likelihood: Likelihood of the model.
        output_shape: Shape of the raw outputs of one example, `(*positions, outputs)`.

    Raises:
        ValueError: If there is none: for several outputs or labels, and for outputs with positions, whose parts are not
            exchangeable.
    """
    refuse_several_outputs(likelihood)
    *positions, num_outputs = output_shape
    kind = _BY_KIND.get(likelihood.target_kind(num_outputs))
    if kind is None or positions:
        raise _no_conformal_prediction(f"outputs with positions {tuple(positions)}" if positions else "several labels")
    return kind


def refuse_several_outputs(likelihood: Likelihood) -> None:
    """Raises a ValueError for a joint likelihood."""
    if likelihood.heads:
        raise _no_conformal_prediction(f"several outputs, {list(likelihood.heads)}")


def _no_conformal_prediction(what: str) -> ValueError:
    return ValueError(f"There is no conformal prediction for {what}. It is for one class, or numbers, per example.")


def check_conformal_fits(conformal: Conformal, likelihood: Likelihood) -> None:
    """Refuses a conformal prediction for another kind of target than that of a likelihood.

    Raises:
        ValueError: If the kinds differ.
    """
    if likelihood.heads or (conformal.target_kind == "class") != likelihood.has_probabilities:
        raise ValueError(
            f"The conformal prediction {conformal!r} does not fit the likelihood {likelihood!r}, which is for "
            f"{likelihood.task}. Fit one to this model, with tfp_bnn.conformalize(model, x, y)."
        )


def _numbers(name: str, value: Any, low: float, high: float) -> float | list[float]:
    values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    bad = next((v for v in values if not (is_number(v) and low <= v <= high)), None)
    if bad is not None or not values:
        got = repr(value) if bad is None else repr(bad)
        raise ValueError(f"`{name}` must be a number from {low:g} to {high:g}, or a list of them, but got {got}.")
    return [float(v) for v in values] if isinstance(value, Sequence) else float(value)


def _require_number(name: str, of_what: str, values: float | list[float], number: int | None) -> None:
    if np.size(values) not in (1, number):
        raise ValueError(
            f"There are {name} for {np.size(values)} {of_what}, but the predictions are of {number}. Fit them to this "
            "model."
        )


def _integer(name: str, value: Any, low: int, high: int) -> int | None:
    if value is not None and not (is_integer(value) and low <= value <= high):
        raise ValueError(f"`{name}` must be an integer from {low} to {high}, or None, but got {value!r}.")
    return None if value is None else int(value)

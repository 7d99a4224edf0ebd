"""Calibration: one number, fitted to validation data, that makes the predictive distribution as sure as it may be.

A posterior approximation leaves the predictive too sure of itself, or not sure enough. The number that mends this on
average belongs to the Monte Carlo predictive of one trained model; `posterior_predictive` uses it wherever it goes.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import scipy.optimize

from tfp_bnn.arguments import is_number
from tfp_bnn.likelihoods import Bernoulli, Categorical, Likelihood, Normal
from tfp_bnn.registry import Spec, SpecRegistry

if TYPE_CHECKING:
    from tfp_bnn.variational_mixin import VariationalMixin

# A model that needs a number beyond these has another fault.
_LOWEST, _HIGHEST = 0.01, 100.0
_GRID_POINTS = 11


class Calibration(Spec):
    """Changes the components of a predictive mixture by one number, 1 for no change. Abstract.

    Attributes:
        likelihoods: the classes of likelihoods that it is for.
    """

    likelihoods: ClassVar[tuple[type[Likelihood], ...]]

    def apply(
        self, outputs: np.ndarray, weights: Mapping[str, Any], likelihood: Likelihood
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """The raw outputs and the weights of the likelihood that describe the calibrated mixture.

        Args:
            outputs: raw outputs of all draws, of shape `(S, n, outputs)`, float32.
            weights: what the likelihood has learned, by role.
            likelihood: of the model.

        Returns:
            New outputs of the same shape, and new weights.
        """
        raise NotImplementedError


CALIBRATIONS: SpecRegistry[Calibration] = SpecRegistry("calibration")


@CALIBRATIONS.register("temperature")
class Temperature(Calibration):
    """p(y | x) = 1/S sum_s p(y | logits_s / temperature), for the likelihoods 'categorical' and 'bernoulli'.

    The logits of every draw are divided before the probabilities are averaged, so that the samples, the mean, the
    entropy and its two parts are all those of one mixture. Above 1 the predictions become less sure. Where the draws
    disagree, the most probable class of their average can change.

    Args:
        temperature: a number from 0.01 to 100.

    Raises:
        ValueError: for anything else.

    References:
        Guo et al. 2017, On Calibration of Modern Neural Networks, https://arxiv.org/abs/1706.04599, for one network
    """

    likelihoods = (Categorical, Bernoulli)

    def __init__(self, temperature: float = 1.0) -> None:
        self.temperature = _checked("temperature", "temperature", temperature)

    def get_config(self) -> dict[str, Any]:
        """The constructor's argument."""
        return {"temperature": self.temperature}

    def apply(
        self, outputs: np.ndarray, weights: Mapping[str, Any], likelihood: Likelihood
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Divides the logits."""
        return outputs / np.float32(self.temperature), dict(weights)


@CALIBRATIONS.register("scale")
class Scale(Calibration):
    """y = m + scale (y_raw - m), with m the predictive mean and y_raw ~ the raw mixture, for the likelihood 'normal'.

    The mean of each draw moves to m + scale (mean_s - m), and its noise is multiplied by `scale`. The predictive mean
    stays; the predictive standard deviation, and the distance of every quantile from the mean, are multiplied by
    `scale`; aleatoric and epistemic variance by its square; the entropy grows by log(scale) nats.

    Args:
        scale: a number from 0.01 to 100, without unit.

    Raises:
        ValueError: for anything else.

    References:
        Levi et al. 2022, Evaluating and Calibrating Uncertainty Prediction in Regression Tasks,
        https://doi.org/10.3390/s22155540; Laves et al. 2020, Well-Calibrated Regression Uncertainty in Medical Imaging
        with Deep Learning, https://proceedings.mlr.press/v121/laves20a.html
    """

    likelihoods = (Normal,)

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = _checked("scale", "scale", scale)

    def get_config(self) -> dict[str, Any]:
        """The constructor's argument."""
        return {"scale": self.scale}

    def apply(
        self, outputs: np.ndarray, weights: Mapping[str, Any], likelihood: Likelihood
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Moves the means of the draws, and leaves to the likelihood to widen its noise."""
        targets = likelihood.mean(outputs[:1, :1]).shape[-1]
        means = outputs[..., :targets]
        center = means.mean(axis=0, dtype=np.float64).astype(np.float32)
        moved = center + np.float32(self.scale) * (means - center)
        widening = self.scale * weights.get("widening", 1.0)
        return np.concatenate([moved, outputs[..., targets:]], axis=-1), {**weights, "widening": widening}


def calibrate(model: VariationalMixin, x: Any, y: Any, num_samples: int = 50, seed: int = 0) -> Calibration:
    """Fits the calibration of a trained model, and sets `model.calibration`.

    Minimizes the negative log-likelihood, in nats, of the Monte Carlo predictive, over a grid first, because that of a
    mixture can have several minima. The network is run once, without a calibration that the model may have; the search
    takes about 25 evaluations. Memory: a few copies of the raw outputs, `num_samples` x n x outputs float32 numbers.

    Args:
        model: a trained model.
        x: inputs of shape `(n, ...)`, an array; of validation data, that neither trained the model nor test it.
        y: their targets, as for training.
        num_samples: S, the number of weight draws.
        seed: of the draws, an integer.

    Returns:
        A `Temperature` for the likelihoods 'categorical' and 'bernoulli', a `Scale` for 'normal'. With a warning when
        the data do not determine it, so that it is at the end of its range.

    Raises:
        ValueError: for a likelihood that no calibration is for; for empty data, another shape, NaN or labels out of
            range; for a bad `num_samples` or `seed`; for raw outputs that have NaN, or
            take more than 1 GiB.

    Example:
        >>> import keras, numpy as np, tfp_bnn
        >>> layers = [keras.Input((1,)), tfp_bnn.layers.DenseFlipout(1, kernel_initializer="zeros")]
        >>> model = tfp_bnn.VariationalSequential(layers, likelihood={"name": "normal", "scale": 0.1}, seed=0)
        >>> x, y = np.zeros((100, 1)), np.random.default_rng(0).normal(size=100)
        >>> calibrated = tfp_bnn.calibrate(model, x, y)
        >>> round(calibrated.scale * 0.1, 2), round(float(np.sqrt(np.mean(y**2))), 2)
        (0.97, 0.97)
        >>> model.calibration == calibrated
        True
    """
    cls = _calibration_for(model.likelihood)
    model._check_examples(x, y)
    raw = model.posterior_predictive(x, num_samples, seed, calibrated=False)

    def nll(value: float) -> float:
        return -float(raw.calibrated_by(cls(value)).log_prob(y).mean(dtype=np.float64))

    grid = np.geomspace(_LOWEST, _HIGHEST, _GRID_POINTS).tolist()
    heights = [nll(value) for value in grid]
    if np.isnan(heights).any():
        raise ValueError("The predictions of the model have NaN or infinite values. Train it again before calibrating.")
    best = int(np.argmin(heights))
    around = np.log([grid[max(best - 1, 0)], grid[min(best + 1, _GRID_POINTS - 1)]])
    found = scipy.optimize.minimize_scalar(
        lambda logarithm: nll(math.exp(logarithm)), bounds=around, method="bounded", options={"xatol": 1e-5}
    )
    # The search stays between its ends: they win a tie.
    value = math.exp(found.x) if found.fun < heights[best] else grid[best]
    if value in (_LOWEST, _HIGHEST):
        warnings.warn(
            f"The calibration that fits these {len(raw)} examples best is at the end of its range, {_LOWEST} to "
            f"{_HIGHEST:g}. Either they do not determine it (all are predicted rightly, or none better than by "
            "chance), or the model does not fit them at all. Use more validation data, or train the model further; "
            "model.calibration = None takes it back.",
            stacklevel=2,
        )
    model.calibration = cls(value)
    return model.calibration


def check_fits(calibration: Calibration, likelihood: Likelihood) -> None:
    """Refuses a calibration that is for other likelihoods.

    Raises:
        ValueError: names the calibration, the likelihood and the calibration that would fit.
    """
    if not isinstance(likelihood, calibration.likelihoods):
        expected = CALIBRATIONS.name_of(_calibration_for(likelihood)())
        raise ValueError(
            f"The calibration {calibration!r} does not fit the likelihood {likelihood!r}, which is for "
            f"{likelihood.task}. Use the calibration {expected!r}, as tfp_bnn.calibrate(model, x, y) does."
        )


def _calibration_for(likelihood: Likelihood) -> Callable[..., Calibration]:
    for name in CALIBRATIONS:
        if isinstance(likelihood, CALIBRATIONS[name].likelihoods):
            return CALIBRATIONS[name]
    raise ValueError(f"There is no calibration for the likelihood {likelihood!r}. Known: {', '.join(CALIBRATIONS)}.")


def _checked(calibration: str, name: str, value: object) -> float:
    if not is_number(value) or not _LOWEST <= value <= _HIGHEST:
        raise ValueError(
            f"`{name}` of the calibration {calibration!r} must be a number from {_LOWEST} to {_HIGHEST:g}, but got "
            f"{value!r}."
        )
    return float(value)

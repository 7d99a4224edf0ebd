"""Calibrations: transformations of a predictive distribution by one number fitted to validation data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow.experimental.numpy as tnp

from tfp_bnn.core.arguments import is_number
from tfp_bnn.core.registry import Spec, SpecRegistry
from tfp_bnn.likelihoods import Likelihood

# A model that needs a number beyond these has a different problem.
LOWEST, HIGHEST = 0.01, 100.0


class Calibration(Spec):
    """Transforms the components of a predictive mixture by one number; 1 means no change. Abstract."""

    def fits(self, likelihood: Likelihood) -> bool:
        """Whether this calibration fits a likelihood; by default, whether it is the likelihood's `calibrator`."""
        return likelihood.calibrator == CALIBRATIONS.name_of(self)

    def apply(self, outputs: Any, weights: Mapping[str, Any], likelihood: Likelihood) -> tuple[Any, dict[str, Any]]:
        """Returns the raw outputs and likelihood weights that describe the calibrated mixture.

        Args:
            outputs: Raw outputs of all draws, of shape `(S, n, outputs)`, float32: an array, or a tensor in the graph
                of an exported model.
            weights: Learned parameters of the likelihood, by role.
            likelihood: Likelihood of the model.

        Returns:
            New outputs of the same kind, shape and dtype, and new weights.
        """
        raise NotImplementedError


CALIBRATIONS: SpecRegistry[Calibration] = SpecRegistry("calibration")


@CALIBRATIONS.register("temperature")
class Temperature(Calibration):
    """p(y | x) = 1/S sum_s p(y | logits_s / temperature), for the likelihoods 'categorical' and 'bernoulli'.

    The logits of every draw are divided before the probabilities are averaged, so the samples, the mean, the entropy
    and its two parts all belong to one mixture. Above 1, predictions become less confident. If the draws disagree, the
    most probable class of their average can change.

    Args:
        temperature: Number from 0.01 to 100.

    Raises:
        ValueError: If the number is out of range or not a number.

    References:
        Guo et al. 2017, On Calibration of Modern Neural Networks, https://arxiv.org/abs/1706.04599, for one network
    """

    def __init__(self, temperature: float = 1.0) -> None:
        self.temperature = _checked("temperature", "temperature", temperature)

    def get_config(self) -> dict[str, Any]:
        """Returns the argument of the constructor, JSON-serializable."""
        return {"temperature": self.temperature}

    def apply(self, outputs: Any, weights: Mapping[str, Any], likelihood: Likelihood) -> tuple[Any, dict[str, Any]]:
        """Divides the logits."""
        return outputs / np.float32(self.temperature), dict(weights)


@CALIBRATIONS.register("scale")
class Scale(Calibration):
    """y = m + scale (y_raw - m), with m the predictive mean and y_raw ~ the raw mixture, for likelihoods of numbers.

    The mean of each draw moves to m + scale (mean_s - m), and its noise is multiplied by `scale`. The predictive mean
    does not change. The predictive standard deviation and the distance of every quantile from the mean are multiplied
    by `scale`, aleatoric and epistemic variance by its square. The entropy grows by log(scale) nats.

    Args:
        scale: Number from 0.01 to 100, without unit.

    Raises:
        ValueError: If the number is out of range or not a number.

    References:
        Levi et al. 2022, Evaluating and Calibrating Uncertainty Prediction in Regression Tasks,
        https://doi.org/10.3390/s22155540; Laves et al. 2020, Well-Calibrated Regression Uncertainty in Medical Imaging
        with Deep Learning, https://proceedings.mlr.press/v121/laves20a.html
    """

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = _checked("scale", "scale", scale)

    def get_config(self) -> dict[str, Any]:
        """Returns the argument of the constructor, JSON-serializable."""
        return {"scale": self.scale}

    def apply(self, outputs: Any, weights: Mapping[str, Any], likelihood: Likelihood) -> tuple[Any, dict[str, Any]]:
        """Moves the means of the draws, and passes the factor for the noise on to the likelihood as `widening`."""
        targets = likelihood.num_targets(outputs.shape[-1])
        means = outputs[..., :targets]
        if tf.is_tensor(outputs):
            numpy = tnp
            # Formats of exported models can lack float64. Differences from one draw are small, and so is their error.
            center = means[0] + tf.reduce_mean(means - means[0], axis=0)
        else:
            numpy = np
            center = np.asarray(np.mean(means, axis=0, dtype=np.float64), np.float32)
        moved = center + (means - center) * np.float32(self.scale)
        widening = self.scale * weights.get("widening", 1.0)
        return numpy.concatenate([moved, outputs[..., targets:]], axis=-1), {**weights, "widening": widening}


def check_fits(calibration: Calibration, likelihood: Likelihood) -> None:
    """Refuses a calibration that does not fit the likelihood.

    Raises:
        ValueError: If it does not fit. The message names the calibration, the likelihood and a calibration that fits.
    """
    if not calibration.fits(likelihood):
        expected = CALIBRATIONS.name_of(calibration_for(likelihood)())
        raise ValueError(
            f"The calibration {calibration!r} does not fit the likelihood {likelihood!r}, which is for "
            f"{likelihood.task}. Use the calibration {expected!r}, as tfp_bnn.calibrate(model, x, y) does."
        )


def calibration_for(likelihood: Likelihood) -> Callable[..., Calibration]:
    """The calibration class that a likelihood names. Raises a ValueError if it names none."""
    if likelihood.heads:
        (head, *_) = likelihood.heads
        raise ValueError(
            f"There is no calibration of several outputs, {list(likelihood.heads)}: each needs its own. Apply one to "
            f"the predictive of an output, as in predictive[{head!r}].calibrated_by(tfp_bnn.predictive.Scale(1.5))."
        )
    if likelihood.calibrator is None:
        raise ValueError(
            f"There is no calibration for the likelihood {likelihood!r}: {likelihood.why_no_calibrator}. Known: "
            f"{', '.join(CALIBRATIONS)}. Let the likelihood learn its own dispersion (`add_weights`), or set its "
            "`calibrator` to the name of a calibration that fits."
        )
    return CALIBRATIONS[likelihood.calibrator]


def _checked(calibration: str, name: str, value: object) -> float:
    if not is_number(value) or not LOWEST <= value <= HIGHEST:
        raise ValueError(
            f"`{name}` of the calibration {calibration!r} must be a number from {LOWEST} to {HIGHEST:g}, but got "
            f"{value!r}."
        )
    return float(value)

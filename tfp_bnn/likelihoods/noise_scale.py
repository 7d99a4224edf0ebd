"""What likelihoods with a location and a scale share: the noise, its calibration, and the units of the target."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.core.arguments import is_positive, require_array, require_positive
from tfp_bnn.likelihoods.base import LIKELIHOODS, Likelihood, Weights

SCALE_FLOOR = 1e-6
# Below it, the softplus of a scale is treated as 0.
_TINY = 1e-30


def positive(untransformed: tf.Tensor) -> tf.Tensor:
    """Scales of at least 1e-6 from outputs of the network: 1e-6 + softplus(outputs)."""
    return SCALE_FLOOR + tf.nn.softplus(untransformed)


def untransformed(scale: tf.Tensor) -> tf.Tensor:
    """The inverse of `positive`."""
    above = tf.maximum(scale - SCALE_FLOOR, _TINY)
    return above + tf.math.log(-tf.math.expm1(-above))


def times_softplus(factor: np.ndarray, untransformed: Any) -> Any:
    """Outputs whose softplus is `factor` times that of others; also of symbolic tensors of Keras."""
    scale = keras.ops.maximum(keras.ops.softplus(untransformed) * factor, _TINY)
    return scale + keras.ops.log(-keras.ops.expm1(-scale))


class Widened(Likelihood):
    """A likelihood that the calibration 'scale' can widen. Abstract.

    The first outputs are the means of the targets. `distribution` multiplies its scale by the weight `widening`, if
    there is one; see `_widened`.
    """

    calibrator = "scale"

    def outputs_of(self, outputs: np.ndarray, weights: Weights, draws: Sequence[int]) -> np.ndarray | None:
        """The outputs of some draws; None unless a calibration spread them about the mean of all draws."""
        widening = weights.get("widening")
        if widening is None:
            return None
        targets = self.num_targets(outputs.shape[-1])
        chosen = outputs[np.asarray(draws)]
        means, center = chosen[..., :targets], outputs[..., :targets].mean(axis=0, dtype=np.float64)
        # They were spread about a center that would be different with these draws.
        shift = (1.0 / widening - 1.0) * (means.mean(axis=0, dtype=np.float64) - center)
        return np.concatenate([means + shift, chosen[..., targets:]], axis=-1).astype(np.float32)

    def _widened(self, scale: tf.Tensor, weights: Weights) -> tf.Tensor:
        # Only in a calibrated predictive, never in training.
        return scale * weights["widening"] if "widening" in weights else scale


class LocationScale(Widened):
    """y = location + scale * noise, independent per target given the weights. Abstract: a subclass defines `_noise`.

    Targets have the shape `(batch,)` for one target, or `(batch, targets)`. The network has one output for each target,
    its location, or with scale='per_example' two, `[locations, untransformed scales]`. The locations are the means.

    Args:
        scale: A number > 0 (known noise, in units of the target), `"learned"` (one scale for all examples, fitted with
            the weights), or `"per_example"` (scale = 1e-6 + softplus(.) of an output of the network).
        initial_scale: Initial value of a learned scale, in units of the target.
        missing: See `Likelihood`.
    """

    def __init__(
        self, scale: float | str = "learned", initial_scale: float = 1.0, missing: float | str | None = None
    ) -> None:
        super().__init__(missing)
        if scale not in ("learned", "per_example") and not is_positive(scale):
            raise ValueError(
                f"`scale` of {self._described()} must be a number > 0, 'learned' or 'per_example', but got {scale!r}."
            )
        self.scale = scale if isinstance(scale, str) else float(scale)
        self.least_scale = SCALE_FLOOR if scale == "per_example" else 0.0
        self.initial_scale = require_positive(self._described(), "initial_scale", initial_scale)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"scale": self.scale, "initial_scale": self.initial_scale, **super().get_config()}

    def add_weights(self, add_weight: Callable[..., keras.Variable]) -> dict[str, keras.Variable]:
        """Creates `log_scale`, a float32 scalar, if the scale is learned."""
        if self.scale != "learned":
            return {}
        start = keras.initializers.Constant(math.log(self.initial_scale))
        return {"log_scale": add_weight(name="likelihood_log_scale", shape=(), initializer=start)}

    def distribution(self, outputs: tf.Tensor, weights: Weights) -> tfd.Distribution:
        """Batch shape `(..., batch)`, event shape `(targets,)`."""
        loc = self.mean(outputs)
        if self.scale == "per_example":
            scale = positive(outputs[..., loc.shape[-1] :])
        elif self.scale == "learned":
            # Adds an axis for the targets: scales that differ between draws already have those of samples and rows.
            scale = tf.exp(tf.convert_to_tensor(weights["log_scale"]))[..., tf.newaxis]
        else:
            scale = tf.constant(self.scale, tf.float32)
        return tfd.Independent(self._noise(loc, self._widened(scale, weights), weights), reinterpreted_batch_ndims=1)

    def num_targets(self, num_outputs: int) -> int:
        """One target per output, or one per two outputs with scale='per_example'."""
        if self.scale != "per_example":
            return num_outputs
        if num_outputs % 2:
            raise ValueError(
                f"{self._described().capitalize()} with scale='per_example' needs two outputs for each target, "
                f"[locations, untransformed scales], but the model has {num_outputs}. Build it with an even number of "
                "outputs."
            )
        return num_outputs // 2

    def num_outputs_for(self, y: np.ndarray, num_classes: int | None = None) -> int:
        """One output per target, or two with scale='per_example'."""
        return y.reshape(len(y), -1).shape[1] * (2 if self.scale == "per_example" else 1)

    def rescaled(self, scale: float) -> Self:
        """This likelihood, with a learned scale that starts at `scale`; other scales do not change."""
        if self.scale != "learned":
            return self
        return type(self)(**{**self.get_config(), "initial_scale": scale})

    def in_target_units(self, outputs: Any, mean: Sequence[float], scale: Sequence[float]) -> Any:
        """The outputs that describe mean + scale * z, with the scale of each example, given those that describe z."""
        if self.scale != "per_example":
            return super().in_target_units(outputs, mean, scale)
        return locations_and_scales_in_target_units(outputs, mean, scale)

    def mean(self, outputs: tf.Tensor, weights: Weights | None = None) -> tf.Tensor:
        """Means in units of the target, `(..., batch, targets)`, float32."""
        outputs = tf.cast(outputs, tf.float32)
        return outputs[..., : self.num_targets(outputs.shape[-1])]

    def parameters(self, weights: Weights) -> dict[str, np.ndarray]:
        """The learned `scale`, in units of the target; empty if none is learned."""
        return {"scale": np.exp(np.asarray(weights["log_scale"]))} if self.scale == "learned" else {}

    def assign_parameters(self, weights: Mapping[str, keras.Variable], values: Mapping[str, np.ndarray]) -> None:
        """Sets the learned scale. Raises a ValueError unless it is finite and > 0."""
        if self.scale == "learned":
            least = float(np.finfo(np.float32).tiny)
            weights["log_scale"].assign(np.log(require_array("likelihood", values, "scale", (), least=least)))

    def _noise(self, loc: tf.Tensor, scale: tf.Tensor, weights: Weights) -> tfd.Distribution:
        """The distribution of each target, with scalar events."""
        raise NotImplementedError

    def _described(self) -> str:
        return f"the likelihood {LIKELIHOODS.name_of(self)!r}"


def locations_and_scales_in_target_units(outputs: Any, mean: Sequence[float], scale: Sequence[float]) -> Any:
    """`in_target_units` for outputs `[locations, untransformed scales]`, as many of both as there are numbers."""
    number = len(mean)
    factor = np.asarray(scale, np.float32)
    locations = outputs[..., :number] * factor + np.asarray(mean, np.float32)
    return keras.ops.concatenate([locations, times_softplus(factor, outputs[..., number:])], axis=-1)

"""The normal likelihood: numbers with Gaussian noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import scipy.special
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.core.arguments import is_positive
from tfp_bnn.likelihoods.base import LIKELIHOODS, Likelihood, Weights
from tfp_bnn.likelihoods.noise_scale import locations_and_scales_in_target_units
from tfp_bnn.likelihoods.targets import check_shape, like_outputs

_SCALE_FLOOR = 1e-6
_HERMITE_NODES = 16
# Quadrature around each of S draws costs 16 S x S densities, the lattice 1,024 x S.
_MOST_DRAWS_BY_QUADRATURE = 128
_LATTICE_POINTS = 1024
_GOLDEN_RATIO = (math.sqrt(5.0) - 1.0) / 2.0


@LIKELIHOODS.register("normal")
class Normal(Likelihood):
    """y ~ N(mean, scale^2), independent per output given the weights.

    Targets have the shape `(batch,)` for one output, or `(batch, outputs)`. Uncertainty is decomposed by the law of
    total variance, per output and in squared units of the target: aleatoric = E[scale^2], epistemic = Var[mean] over
    the weight draws. The predictive entropy is that of the mixture, per output. Up to 128 draws, it is computed by
    Gauss-Hermite quadrature around each component, exact to 3e-4 nats if all draws have the same scale, to 0.005 if
    scales differ by a factor of 2, and rough if they differ by an order of magnitude. For more draws, it is the
    mean of -log p at 1,024 points spread over draws and noise, at a cost that grows with S and not S^2: exact to 0.005
    nats if all draws have the same scale, to 0.03 if scales differ by a factor of 2.

    Args:
        scale: A number > 0 (known noise, in units of the target), `"learned"` (one scale for all examples, fitted with
            the weights), or `"per_example"` (the network has two outputs for each target, `[means, untransformed
            scales]`, scale = 1e-6 + softplus(.)).
        initial_scale: Initial value of a learned scale, in units of the target.
        missing: What marks a missing target: `"nan"`, a number, or None if all targets are there.
    """

    calibrator = "scale"

    def __init__(
        self, scale: float | str = "learned", initial_scale: float = 1.0, missing: float | str | None = None
    ) -> None:
        super().__init__(missing)
        if scale not in ("learned", "per_example") and not is_positive(scale):
            raise ValueError(
                "`scale` of the likelihood 'normal' must be a number > 0, 'learned' or 'per_example', but got "
                f"{scale!r}."
            )
        if not is_positive(initial_scale):
            raise ValueError(
                f"`initial_scale` of the likelihood 'normal' must be a finite number > 0, but got {initial_scale!r}."
            )
        self.scale = scale if isinstance(scale, str) else float(scale)
        self.initial_scale = float(initial_scale)

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
        return tfd.Independent(tfd.Normal(*self._parameters(outputs, weights)), reinterpreted_batch_ndims=1)

    def num_targets(self, num_outputs: int) -> int:
        """One target per output, or one per two outputs with scale='per_example'."""
        if self.scale != "per_example":
            return num_outputs
        if num_outputs % 2:
            raise ValueError(
                "The likelihood 'normal' with scale='per_example' needs two outputs for each target, [means, "
                f"untransformed scales], but the model has {num_outputs}. Build it with an even number of outputs."
            )
        return num_outputs // 2

    def num_outputs_for(self, y: np.ndarray, num_classes: int | None = None) -> int:
        """One output per target, or two with scale='per_example'."""
        return y.reshape(len(y), -1).shape[1] * (2 if self.scale == "per_example" else 1)

    def check_outputs(self, num_outputs: int) -> None:
        """Refuses an odd number of outputs with scale='per_example'."""
        self.num_targets(num_outputs)

    def rescaled(self, scale: float) -> Normal:
        """This likelihood, with a learned scale that starts at `scale`; other scales do not change."""
        return Normal("learned", scale, self.missing) if self.scale == "learned" else self

    def in_target_units(self, outputs: Any, mean: Sequence[float], scale: Sequence[float]) -> Any:
        """The outputs that describe mean + scale * z, with the scale of each example, given those that describe z."""
        if self.scale != "per_example":
            return super().in_target_units(outputs, mean, scale)
        return locations_and_scales_in_target_units(outputs, mean, scale)

    def targets(self, y: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """Targets of shape `(batch, targets)`, float32."""
        return like_outputs(y, self.num_targets(outputs.shape[-1]))

    def mean(self, outputs: tf.Tensor, weights: Weights | None = None) -> tf.Tensor:
        """Means in units of the target, `(..., batch, targets)`, float32."""
        outputs = tf.cast(outputs, tf.float32)
        return outputs[..., : self.num_targets(outputs.shape[-1])]

    def check_targets(self, y: np.ndarray, num_outputs: int) -> None:
        """Refuses targets of another shape."""
        check_shape(y, self.num_targets(num_outputs))

    def entropy(self, outputs: tf.Tensor, weights: Weights) -> tf.Tensor:
        """Entropy of the predictive mixture, in nats, of shape `(batch, targets)`."""
        loc, scale = self._parameters(tf.cast(outputs, tf.float32), weights)
        if loc.shape[0] > _MOST_DRAWS_BY_QUADRATURE:
            return _entropy_at_lattice(loc, tf.broadcast_to(scale, loc.shape))
        nodes, node_weights = np.polynomial.hermite_e.hermegauss(_HERMITE_NODES)
        total = tf.zeros(loc.shape[1:])
        for node, weight in zip(nodes, node_weights / node_weights.sum(), strict=True):
            points = (loc + scale * np.float32(node))[:, None]
            log_density = tf.reduce_logsumexp(tfd.Normal(loc, scale).log_prob(points), axis=1) - math.log(loc.shape[0])
            total -= np.float32(weight) * tf.reduce_mean(log_density, axis=0)
        return total

    def aleatoric(self, outputs: tf.Tensor, weights: Weights) -> tf.Tensor:
        """E[scale^2], squared units of the target, of shape `(batch, targets)`."""
        loc, scale = self._parameters(tf.cast(outputs, tf.float32), weights)
        return tf.reduce_mean(tf.broadcast_to(scale**2, loc.shape), axis=0)

    def epistemic(self, outputs: tf.Tensor, weights: Weights) -> tf.Tensor:
        """Var[mean] over the weight draws, squared units of the target, of shape `(batch, targets)`."""
        return tf.math.reduce_variance(self.mean(outputs), axis=0)

    def outputs_without(self, outputs: np.ndarray, weights: Weights, draw: int) -> np.ndarray | None:
        """The outputs without one draw; None unless a calibration spread them about the mean of all draws."""
        widening = weights.get("widening")
        if widening is None:
            return None
        targets = self.num_targets(outputs.shape[-1])
        others = np.delete(outputs, draw, axis=0)
        means, center = others[..., :targets], outputs[..., :targets].mean(axis=0, dtype=np.float64)
        # They were spread about a center that would be different without this draw.
        shift = (1.0 / widening - 1.0) * (means.mean(axis=0, dtype=np.float64) - center)
        return np.concatenate([means + shift, others[..., targets:]], axis=-1).astype(np.float32)

    def parameters(self, weights: Weights) -> dict[str, np.ndarray]:
        """The learned `scale`, in units of the target; empty if none is learned."""
        return {"scale": np.exp(np.asarray(weights["log_scale"]))} if weights else {}

    def assign_parameters(self, weights: Mapping[str, keras.Variable], values: Mapping[str, np.ndarray]) -> None:
        """Sets the learned scale. Raises a ValueError unless it is finite and > 0."""
        if weights:
            scale = float(values["scale"])
            if not is_positive(scale):
                raise ValueError(f"The learned scale of the likelihood must be finite and > 0, but got {scale}.")
            weights["log_scale"].assign(math.log(scale))

    def _parameters(self, outputs: tf.Tensor, weights: Weights) -> tuple[tf.Tensor, tf.Tensor]:
        loc = self.mean(outputs)
        if self.scale == "per_example":
            scale = _SCALE_FLOOR + tf.nn.softplus(outputs[..., loc.shape[-1] :])
        elif self.scale == "learned":
            # Adds an axis for the targets: scales that differ between draws already have those of samples and rows.
            scale = tf.exp(tf.convert_to_tensor(weights["log_scale"]))[..., tf.newaxis]
        else:
            scale = tf.constant(self.scale, tf.float32)
        # Only in a calibrated predictive, never in training.
        return loc, scale * weights["widening"] if "widening" in weights else scale


def _entropy_at_lattice(loc: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """Entropy of mixtures of many normals, along the first axis: the mean of -log p at the points of a lattice.

    A point is a quantile of one component. A Fibonacci lattice spreads the points evenly over the square of the
    components, ordered by their mean or by their scale, whichever differs more, and the levels of their quantiles.
    """
    draws = loc.shape[0]
    steps = (np.arange(_LATTICE_POINTS) + 0.5) / _LATTICE_POINTS
    levels = np.arange(1, _LATTICE_POINTS + 1) * _GOLDEN_RATIO % 1.0
    differs_more = tf.math.reduce_variance(loc, axis=0) > tf.math.reduce_variance(scale, axis=0)
    order = tf.argsort(tf.where(differs_more, loc, scale), axis=0)
    component = tf.gather(order, (steps * draws).astype(np.int32))
    noise = scipy.special.ndtri(levels).astype(np.float32).reshape(-1, *[1] * (len(loc.shape) - 1))
    points = keras.ops.take_along_axis(loc, component, axis=0)
    points += keras.ops.take_along_axis(scale, component, axis=0) * noise
    total = tf.zeros(loc.shape[1:])
    for start in range(0, _LATTICE_POINTS, draws):
        log_density = tfd.Normal(loc, scale).log_prob(points[start : start + draws, None])
        total -= tf.reduce_sum(tf.reduce_logsumexp(log_density, axis=1), axis=0)
    return total / _LATTICE_POINTS + math.log(draws)

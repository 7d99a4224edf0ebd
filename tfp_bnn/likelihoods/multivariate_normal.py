"""The multivariate normal likelihood: several numbers with correlated noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.core.arguments import require_array, require_integer, require_positive
from tfp_bnn.likelihoods.base import LIKELIHOODS, Weights
from tfp_bnn.likelihoods.dependent import DependentTargets
from tfp_bnn.likelihoods.noise_scale import SCALE_FLOOR, Widened, locations_and_scales_in_target_units, positive

_OWNER = "the likelihood 'multivariate_normal'"


@LIKELIHOODS.register("multivariate_normal")
class MultivariateNormal(DependentTargets, Widened):
    """y ~ N(mean, L L^T) for d targets of shape `(batch, d)`, with L = diag(s) (I + C), C below the diagonal.

    L is the lower Cholesky factor of the covariance, the `scale_tril` of `tfd.MultivariateNormalTriL`. s has the units
    of the targets and C has none. With scale_tril='per_example' the network has d + d + d (d - 1) / 2 outputs, `[means,
    untransformed s, C row by row]`, s = 1e-6 + softplus(.): 2, 5, 9, 14 outputs for 1, 2, 3, 4 targets. With 'learned'
    it has d outputs, the means, and all examples share one L.

    Means, variances, quantiles and PIT are those of each target, in closed form; `log_prob` and draws are joint. The
    entropy is joint, `(batch, 1)`, in nats.

    Args:
        scale_tril: `"per_example"` or `"learned"`.
        num_targets: d, needed for `"learned"`; otherwise it follows from the number of outputs.
        initial_scale: Initial value of a learned s, in units of the targets; C starts at 0.
        missing: See `Likelihood`.

    References:
        Williams 1996, Using Neural Networks to Model Conditional Multivariate Densities,
        https://doi.org/10.1162/neco.1996.8.4.843
    """

    def __init__(
        self,
        scale_tril: str = "per_example",
        num_targets: int | None = None,
        initial_scale: float = 1.0,
        missing: float | str | None = None,
    ) -> None:
        super().__init__(missing)
        if scale_tril not in ("per_example", "learned"):
            raise ValueError(f"`scale_tril` of {_OWNER} must be 'per_example' or 'learned', but got {scale_tril!r}.")
        if scale_tril == "learned" and num_targets is None:
            raise ValueError(
                f"{_OWNER.capitalize()} with scale_tril='learned' needs `num_targets`, the number of targets of an "
                "example, because its covariance is made before the targets are seen."
            )
        self.scale_tril = scale_tril
        self.least_scale = SCALE_FLOOR if scale_tril == "per_example" else 0.0
        self._num_targets = None if num_targets is None else require_integer("num_targets", num_targets, 2)
        self.initial_scale = require_positive(_OWNER, "initial_scale", initial_scale)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "scale_tril": self.scale_tril,
            "num_targets": self._num_targets,
            "initial_scale": self.initial_scale,
            **super().get_config(),
        }

    def add_weights(self, add_weight: Callable[..., keras.Variable]) -> dict[str, keras.Variable]:
        """Creates `log_scale`, `(d,)`, and `below_diagonal`, `(d (d - 1) / 2,)`, float32, if they are learned."""
        if self.scale_tril != "learned":
            return {}
        targets = self._num_targets or 0
        start = keras.initializers.Constant(math.log(self.initial_scale))
        below = (targets * (targets - 1) // 2,)
        return {
            "log_scale": add_weight(name="likelihood_log_scale", shape=(targets,), initializer=start),
            "below_diagonal": add_weight(name="likelihood_below_diagonal", shape=below, initializer="zeros"),
        }

    def distribution(self, outputs: tf.Tensor, weights: Weights) -> tfd.Distribution:
        """Batch shape `(..., batch)`, event shape `(targets,)`."""
        return tfd.MultivariateNormalTriL(*self._loc_and_scale_tril(outputs, weights))

    def marginals(self, outputs: tf.Tensor, weights: Weights) -> tfd.Distribution:
        """Independent normals, with the means and variances of the targets."""
        loc, scale_tril = self._loc_and_scale_tril(outputs, weights)
        return tfd.Independent(tfd.Normal(loc, tf.norm(scale_tril, axis=-1)), reinterpreted_batch_ndims=1)

    def num_targets(self, num_outputs: int) -> int:
        """d, for d outputs with scale_tril='learned' and d (d + 3) / 2 with 'per_example'."""
        if self.scale_tril == "learned":
            targets, needed = self._num_targets or 0, self._num_targets or 0
        else:
            targets = self._num_targets or max(1, (math.isqrt(9 + 8 * num_outputs) - 3) // 2)
            needed = _num_outputs(targets)
        if num_outputs != needed:
            raise ValueError(
                f"The likelihood {self!r} needs {needed} outputs for {targets} targets, but the model has "
                f"{num_outputs}. Per example, d targets need d (d + 3) / 2 outputs: 5 for 2, 9 for 3, 14 for 4."
            )
        return targets

    def num_outputs_for(self, y: np.ndarray, num_classes: int | None = None) -> int:
        """D (d + 3) / 2 outputs for d targets, or d with scale_tril='learned'."""
        targets = y.reshape(len(y), -1).shape[1]
        if self._num_targets not in (None, targets):
            raise ValueError(
                f"The likelihood {self!r} is for {self._num_targets} targets, but the data have {targets}. Change its "
                "`num_targets`."
            )
        return targets if self.scale_tril == "learned" else _num_outputs(targets)

    def rescaled(self, scale: float) -> MultivariateNormal:
        """This likelihood, with a learned covariance that starts at scale^2 I; others do not change."""
        if self.scale_tril != "learned":
            return self
        return MultivariateNormal(self.scale_tril, self._num_targets, scale, self.missing)

    def in_target_units(self, outputs: Any, mean: Sequence[float], scale: Sequence[float]) -> Any:
        """The outputs that describe mean + scale * z, given those that describe z."""
        if self.scale_tril == "learned":
            return super().in_target_units(outputs, mean, scale)
        number = 2 * self.num_targets(outputs.shape[-1])
        scaled = locations_and_scales_in_target_units(outputs[..., :number], mean, scale)
        return keras.ops.concatenate([scaled, outputs[..., number:]], axis=-1)

    def parameters(self, weights: Weights) -> dict[str, np.ndarray]:
        """The learned `scale_tril`, `(d, d)`, in units of the targets; empty if none is learned."""
        if self.scale_tril != "learned":
            return {}
        return {"scale_tril": _scale_tril(tf.exp(weights["log_scale"]), weights["below_diagonal"]).numpy()}

    def assign_parameters(self, weights: Mapping[str, keras.Variable], values: Mapping[str, np.ndarray]) -> None:
        """Sets the learned factor. Raises a ValueError unless it is finite, with a diagonal > 0 and 0 above it."""
        if self.scale_tril != "learned":
            return
        targets = self._num_targets or 0
        factor = require_array("likelihood", values, "scale_tril", (targets, targets))
        diagonal = np.diag(factor)
        if not (diagonal > 0).all() or np.triu(factor, 1).any():
            raise ValueError(
                "The learned scale_tril of the likelihood must have a diagonal > 0 and zeros above it, but got "
                f"{factor.tolist()}."
            )
        weights["log_scale"].assign(np.log(diagonal))
        weights["below_diagonal"].assign((factor / diagonal[:, None])[np.tril_indices(targets, -1)])

    def _loc_and_scale_tril(self, outputs: tf.Tensor, weights: Weights) -> tuple[tf.Tensor, tf.Tensor]:
        targets = self.num_targets(outputs.shape[-1])
        loc = outputs[..., :targets]
        if self.scale_tril == "learned":
            scale, below = tf.exp(tf.convert_to_tensor(weights["log_scale"])), weights["below_diagonal"]
        else:
            scale, below = positive(outputs[..., targets : 2 * targets]), outputs[..., 2 * targets :]
        return loc, _scale_tril(self._widened(scale, weights), below)


def _num_outputs(targets: int) -> int:
    return targets * (targets + 3) // 2


def _scale_tril(scale: tf.Tensor, below: tf.Tensor) -> tf.Tensor:
    """diag(scale) (I + C), with the entries of C below the diagonal row by row: `(..., d)` -> `(..., d, d)`."""
    targets = scale.shape[-1]
    # Position 0 holds the zeros above the diagonal, and position 1 the ones on it.
    positions = np.zeros((targets, targets), np.int32)
    positions[np.diag_indices(targets)] = 1
    rows = np.tril_indices(targets, -1)
    positions[rows] = 2 + np.arange(len(rows[0]))
    below = tf.convert_to_tensor(below)
    ends = [[0, 0]] * (len(below.shape) - 1)
    entries = tf.pad(tf.pad(below, [*ends, [1, 0]], constant_values=1.0), [*ends, [1, 0]])
    return scale[..., tf.newaxis] * tf.gather(entries, positions, axis=-1)

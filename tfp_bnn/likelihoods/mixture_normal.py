"""The mixture density network: numbers whose distribution has several peaks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.core.arguments import require_integer
from tfp_bnn.likelihoods.base import LIKELIHOODS, Weights
from tfp_bnn.likelihoods.dependent import DependentTargets
from tfp_bnn.likelihoods.noise_scale import SCALE_FLOOR, locations_and_scales_in_target_units, positive


@LIKELIHOODS.register("mixture_normal")
class MixtureNormal(DependentTargets):
    """p(y) = sum_k w_k prod_j N(y_j; loc_kj, scale_kj^2), a mixture of K normals whose parameters are all outputs.

    Targets have the shape `(batch,)` for one target, or `(batch, d)`. The network has K (1 + 2 d) outputs, `[logits,
    locations, untransformed scales]`: K logits with w = softmax(logits), then K d locations and K d numbers with scale
    = 1e-6 + softplus(.), both ordered by component, then by target. Several targets are independent within a component,
    and dependent because they share it.

    Means, variances, quantiles and PIT are those of each target, from the closed form of its mixture; `log_prob` and
    draws are joint. The entropy is joint for several targets, `(batch, 1)`, in nats.

    Standardize targets far from the range -3 to 3 (`standardize_targets` in a recipe), or all components start far from
    the data.

    Args:
        num_components: K, an integer >= 1.
        missing: See `Likelihood`.

    References:
        Bishop 1994, Mixture Density Networks, https://publications.aston.ac.uk/id/eprint/373/
    """

    least_scale = SCALE_FLOOR
    why_no_calibrator = "its components already have their own weights and scales, and one number does not fit them all"

    def __init__(self, num_components: int = 5, missing: float | str | None = None) -> None:
        super().__init__(missing)
        self.num_components = require_integer("num_components", num_components, 1)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"num_components": self.num_components, **super().get_config()}

    def distribution(self, outputs: tf.Tensor, weights: Weights) -> tfd.Distribution:
        """Batch shape `(..., batch)`, event shape `(targets,)`."""
        if self.num_targets(outputs.shape[-1]) == 1:
            return self.marginals(outputs, weights)
        logits, locs, scales = self._by_component(outputs)
        components = tfd.Independent(tfd.Normal(locs, scales), reinterpreted_batch_ndims=1)
        return tfd.MixtureSameFamily(tfd.Categorical(logits=logits), components)

    def marginals(self, outputs: tf.Tensor, weights: Weights) -> tfd.Distribution:
        """The mixture of each target by itself, as independent targets."""
        logits, locs, scales = self._by_component(outputs)
        # The components come last, after the targets.
        locs, scales = tf.linalg.matrix_transpose(locs), tf.linalg.matrix_transpose(scales)
        shares = tfd.Categorical(logits=logits[..., tf.newaxis, :] + tf.zeros_like(locs))
        each = tfd.MixtureSameFamily(shares, tfd.Normal(locs, scales))
        return tfd.Independent(each, reinterpreted_batch_ndims=1)

    def num_targets(self, num_outputs: int) -> int:
        """d, for K (1 + 2 d) outputs."""
        per_component, rest = divmod(num_outputs, self.num_components)
        if rest or per_component < 3 or per_component % 2 == 0:
            needed = [self._num_outputs(targets) for targets in (1, 2, 3)]
            raise ValueError(
                f"The likelihood {self!r} needs num_components * (1 + 2 * targets) outputs, which is {needed[0]} for "
                f"one target, {needed[1]} for two and {needed[2]} for three, but the model has {num_outputs}."
            )
        return per_component // 2

    def num_outputs_for(self, y: np.ndarray, num_classes: int | None = None) -> int:
        """K (1 + 2 d) outputs for d targets."""
        return self._num_outputs(y.reshape(len(y), -1).shape[1])

    def in_target_units(self, outputs: Any, mean: Sequence[float], scale: Sequence[float]) -> Any:
        """The outputs that describe mean + scale * z, given those that describe z."""
        self.num_targets(outputs.shape[-1])
        number = self.num_components
        scaled = locations_and_scales_in_target_units(
            outputs[..., number:], np.tile(mean, number).tolist(), np.tile(scale, number).tolist()
        )
        return keras.ops.concatenate([outputs[..., :number], scaled], axis=-1)

    def _num_outputs(self, targets: int) -> int:
        return self.num_components * (1 + 2 * targets)

    def _by_component(self, outputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Logits `(..., K)`, locations and scales `(..., K, targets)`."""
        number = self.num_components
        of_targets = number * self.num_targets(outputs.shape[-1])
        logits, locs, untransformed = tf.split(outputs, [number, of_targets, of_targets], axis=-1)
        locs, scales = (tf.stack(tf.split(part, number, -1), axis=-2) for part in (locs, positive(untransformed)))
        return logits, locs, scales

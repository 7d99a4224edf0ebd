"""The mean-field normal posterior."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.core.arguments import require_bool
from tfp_bnn.posteriors.base import POSTERIORS, NormalNoise, ScaledPosterior


@POSTERIORS.register("mean_field_normal")
class MeanFieldNormal(ScaledPosterior):
    """Mean-field normal posterior: an independent normal for every weight.

    w = loc + scale * e,  e ~ N(0, 1)

    Args:
        initial_scale: See `ScaledPosterior`.
        trainable: See `ScaledPosterior`.
        pruned: Whether the weight has a mask; see `tfp_bnn.compression.prune`, which sets it. Default: False.

    References:
        Blundell et al. 2015, Weight Uncertainty in Neural Networks, https://arxiv.org/abs/1505.05424
    """

    symmetric_and_independent = True
    independent_normal = True

    def __init__(self, initial_scale: float = 0.05, trainable: str = "both", pruned: bool = False) -> None:
        super().__init__(initial_scale, trainable)
        self.pruned = require_bool("pruned", pruned)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, JSON-serializable; `pruned` only if it is set."""
        return {**super().get_config(), **({"pruned": True} if self.pruned else {})}

    def distribution(self, weights: Mapping[str, tf.Tensor]) -> tfd.Distribution:
        """Builds the posterior q from the current values.

        Args:
            weights: Variables from `add_weights`.

        Returns:
            A float32 normal, independent per weight, with the shape of the weight as its event shape. Its `log_prob` is
            in nats.
        """
        loc = tf.convert_to_tensor(weights["loc"])
        return tfd.Independent(tfd.Normal(loc, self.scale(weights)), reinterpreted_batch_ndims=len(loc.shape))

    def perturbation(self, weights: Mapping[str, tf.Tensor], noise: NormalNoise, name: str) -> tf.Tensor:
        """Draws scale * e.

        Args:
            weights: Variables from `add_weights`.
            noise: Source of standard normal noise. It is asked for e, with the shape of the weight.
            name: Name of the weight, under which the noise is requested.

        Returns:
            A float32 tensor with the shape of the weight.
        """
        scale = self.scale(weights)
        return scale * noise.normal(name, tuple(scale.shape))

"""The delta posterior: a point mass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.core.arguments import require_array, require_bool
from tfp_bnn.posteriors.base import POSTERIORS, NormalNoise, Posterior


@POSTERIORS.register("delta")
class Delta(Posterior):
    """Point mass, w = loc, without uncertainty.

    Its KL is -log p(loc) in nats, up to the infinite entropy of a point, which does not depend on loc. The ELBO is
    therefore maximized by the maximum a posteriori (MAP) estimate, and with the `flat` prior by maximum likelihood.

    Args:
        pruned: Whether the weight has a mask; see `tfp_bnn.compression.prune`, which sets it. Default: False.
    """

    has_spread = False

    def __init__(self, pruned: bool = False) -> None:
        self.pruned = require_bool("pruned", pruned)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, JSON-serializable; `pruned` only if it is set."""
        return {"pruned": True} if self.pruned else {}

    def add_weights(
        self, add_weight: Callable[..., keras.Variable], name: str, loc: keras.Variable
    ) -> dict[str, keras.Variable]:
        """Creates the variables of the posterior of one weight tensor.

        Args:
            add_weight: The `add_weight` of the layer, with dtype float32 and no autocast.
            name: Name of the weight, such as `"kernel"`.
            loc: Variable of the posterior mean, with the shape of the weight.

        Returns:
            `"loc"` only; no further variable is created.
        """
        return {"loc": loc}

    def distribution(self, weights: Mapping[str, tf.Tensor]) -> tfd.Distribution:
        """Builds the posterior q from the current values.

        Args:
            weights: Variables from `add_weights`.

        Returns:
            A float32 point mass at the mean with the shape of the weight as its event shape. Its `log_prob` is in nats.
        """
        loc = tf.convert_to_tensor(weights["loc"])
        return tfd.Independent(tfd.Deterministic(loc), reinterpreted_batch_ndims=len(loc.shape))

    def perturbation(self, weights: Mapping[str, tf.Tensor], noise: NormalNoise, name: str) -> tf.Tensor:
        """Returns zeros: a point mass has no spread.

        Args:
            weights: Variables from `add_weights`.
            noise: Source of standard normal noise. Not used.
            name: Name of the weight, under which the noise is requested.

        Returns:
            A float32 tensor with the shape of the weight.
        """
        return tf.zeros_like(tf.convert_to_tensor(weights["loc"]))

    def parameters(self, weights: Mapping[str, tf.Tensor]) -> dict[str, np.ndarray]:
        """Returns the parameters, in the units of the weight.

        Args:
            weights: Variables from `add_weights`.

        Returns:
            A float32 array `"loc"`, with the shape of the weight.
        """
        return {"loc": np.asarray(weights["loc"])}

    def assign_parameters(self, weights: Mapping[str, keras.Variable], values: Mapping[str, np.ndarray]) -> None:
        """Sets the value; the inverse of `parameters`.

        Args:
            weights: Variables from `add_weights`.
            values: An array `"loc"`, with the shape of the weight.

        Raises:
            ValueError: If it is missing, has a different shape or is not finite. Nothing is changed then.
        """
        weights["loc"].assign(require_array("posterior", values, "loc", weights["loc"].shape))

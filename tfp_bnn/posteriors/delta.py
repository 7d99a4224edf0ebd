"""The delta posterior: one value, no uncertainty."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.core.arguments import require_array
from tfp_bnn.posteriors.base import POSTERIORS, NormalNoise, Posterior


@POSTERIORS.register("delta")
class Delta(Posterior):
    """A point: w = loc.

    Its KL is -log p(loc), up to the infinite entropy of a point, which does not depend on loc: the ELBO's optimum is
    the maximum a posteriori (MAP), and with the `flat` prior maximum likelihood.
    """

    has_spread = False

    def add_weights(
        self, add_weight: Callable[..., keras.Variable], name: str, loc: keras.Variable
    ) -> dict[str, keras.Variable]:
        return {"loc": loc}

    def distribution(self, weights: Mapping[str, tf.Tensor]) -> tfd.Distribution:
        loc = tf.convert_to_tensor(weights["loc"])
        return tfd.Independent(tfd.Deterministic(loc), reinterpreted_batch_ndims=len(loc.shape))

    def perturbation(self, weights: Mapping[str, tf.Tensor], noise: NormalNoise, name: str) -> tf.Tensor:
        return tf.zeros_like(tf.convert_to_tensor(weights["loc"]))

    def parameters(self, weights: Mapping[str, tf.Tensor]) -> dict[str, np.ndarray]:
        return {"loc": np.asarray(weights["loc"])}

    def assign_parameters(self, weights: Mapping[str, keras.Variable], values: Mapping[str, np.ndarray]) -> None:
        weights["loc"].assign(require_array("posterior", values, "loc", weights["loc"].shape))

"""A prior of what is known: a normal with its own mean and scale for every weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.arguments import require_array, require_positive
from tfp_bnn.priors.base import PRIORS, Prior


@PRIORS.register("informed")
class Informed(Prior):
    """w_i ~ N(loc_i, scale_i^2), such as the posterior that other data gave.

    `loc` and `scale` are tensors of the weight's shape: weights of the layer that are not trained, saved with it and
    set with `layer.variational_weights["kernel"].assign_natural`, as `prior_loc` and `prior_scale`. Until then it is
    N(0, initial_scale^2). The KL has a closed form.

    Args:
        initial_scale: > 0.
    """

    def __init__(self, initial_scale: float = 1.0) -> None:
        self.initial_scale = require_positive("the prior 'informed'", "initial_scale", initial_scale)

    def get_config(self) -> dict[str, Any]:
        return {"initial_scale": self.initial_scale}

    def add_weights(
        self, add_weight: Callable[..., keras.Variable], name: str, shape: Sequence[int]
    ) -> dict[str, keras.Variable]:
        starts = {"loc": 0.0, "scale": self.initial_scale}
        return {
            role: add_weight(
                name=f"{name}_prior_{role}",
                shape=tuple(shape),
                initializer=keras.initializers.Constant(start),
                trainable=False,
            )
            for role, start in starts.items()
        }

    def distribution(
        self, shape: Sequence[int], weights: Mapping[str, tf.Tensor], noise: tf.Tensor | float = 0.0
    ) -> tfd.Distribution:
        if not weights:
            return tfd.Independent(tfd.Normal(tf.zeros(shape), self.initial_scale), len(shape))
        loc, scale = (tf.convert_to_tensor(weights[role]) for role in ("loc", "scale"))
        return tfd.Independent(tfd.Normal(loc, scale), reinterpreted_batch_ndims=len(shape))

    def natural(self, weights: Mapping[str, tf.Tensor]) -> dict[str, np.ndarray]:
        return {role: np.asarray(weight) for role, weight in weights.items()}

    def assign_natural(self, weights: Mapping[str, keras.Variable], values: Mapping[str, np.ndarray]) -> None:
        least = {"loc": -np.inf, "scale": float(np.finfo(np.float32).tiny)}
        arrays = {
            role: require_array("informed prior", values, role, weight.shape, least[role])
            for role, weight in weights.items()
        }
        for role, array in arrays.items():
            weights[role].assign(array)

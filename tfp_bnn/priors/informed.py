"""A prior of what is known: a normal with its own mean and scale for every weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.core.arguments import is_number, require_array, require_positive
from tfp_bnn.priors.base import PRIORS, Prior


@PRIORS.register("informed")
class Informed(Prior):
    """w_i ~ (1 - mix) N(loc_i, scale_i^2) + mix N(0, broad_scale^2), such as the posterior that other data gave.

    `loc` and `scale` are tensors of the weight's shape: weights of the layer that are not trained, saved with it and
    set with `layer.variational_weights["kernel"].assign_parameters`, as `prior_loc` and `prior_scale`, or for a whole
    model with `tfp_bnn.transfer.informed_prior`. Until then it is N(0, initial_scale^2), mixed likewise.

    With `mix=0`, the default, the KL has a closed form. With `mix > 0` the prior is a robust mixture: a weight for
    which the known value is wrong leaves it at a cost of about -log(mix) nats, instead of one that grows with the
    square of the distance; its KL is estimated with the layer's own weight draw.

    Args:
        initial_scale: > 0.
        mix: share of the broad component, in [0, 1).
        broad_scale: standard deviation of the broad component, > 0.

    References:
        Schmidli et al. 2014, Robust meta-analytic-predictive priors, https://doi.org/10.1111/biom.12242
    """

    def __init__(self, initial_scale: float = 1.0, mix: float = 0.0, broad_scale: float = 1.0) -> None:
        self.initial_scale = require_positive("the prior 'informed'", "initial_scale", initial_scale)
        if not is_number(mix) or not 0 <= mix < 1:
            raise ValueError(f"`mix` of the prior 'informed' must be at least 0 and below 1, but got {mix!r}.")
        self.mix = float(mix)
        self.broad_scale = require_positive("the prior 'informed'", "broad_scale", broad_scale)

    def get_config(self) -> dict[str, Any]:
        return {"initial_scale": self.initial_scale, "mix": self.mix, "broad_scale": self.broad_scale}

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
        loc, scale = tf.zeros(shape), tf.fill(shape, self.initial_scale)
        if weights:
            loc, scale = (tf.convert_to_tensor(weights[role]) for role in ("loc", "scale"))
        known = tfd.Normal(loc, scale)
        if self.mix:
            locs = tf.stack([loc, tf.zeros_like(loc)], axis=-1)
            scales = tf.stack([scale, tf.fill(shape, self.broad_scale)], axis=-1)
            shares = tfd.Categorical(probs=[1 - self.mix, self.mix])
            known = tfd.MixtureSameFamily(shares, tfd.Normal(locs, scales))
        return tfd.Independent(known, reinterpreted_batch_ndims=len(shape))

    def parameters(self, weights: Mapping[str, tf.Tensor]) -> dict[str, np.ndarray]:
        return {role: np.asarray(weight) for role, weight in weights.items()}

    def assign_parameters(self, weights: Mapping[str, keras.Variable], values: Mapping[str, np.ndarray]) -> None:
        least = {"loc": -np.inf, "scale": float(np.finfo(np.float32).tiny)}
        arrays = {
            role: require_array("informed prior", values, role, weight.shape, least[role])
            for role, weight in weights.items()
        }
        for role, array in arrays.items():
            weights[role].assign(array)

"""The informed prior: a normal with its own mean and scale for every weight."""

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
    """Normal prior with its own mean and scale for every weight, such as the posterior from other data.

    w_i ~ (1 - mix) N(loc_i, scale_i^2) + mix N(0, broad_scale^2)

    `loc` and `scale` are non-trainable weights of the layer, of the shape of the weight, and are saved with it. Set
    them with `layer.variational_weights["kernel"].assign_parameters`, as `prior_loc` and `prior_scale`, or for a whole
    model with `tfp_bnn.transfer.informed_prior`. Initially loc_i = 0 and scale_i = initial_scale.

    With `mix=0`, the default, the KL has a closed form. With `mix > 0` the prior is a robust mixture: a weight whose
    prior mean is wrong can leave it at a cost of about -log(mix) nats, instead of a cost that grows with the square of
    the distance. The KL is then estimated with one draw of the weights.

    Args:
        initial_scale: Initial scale of all weights, > 0.
        mix: Probability of the broad component, in [0, 1).
        broad_scale: Standard deviation of the broad component, > 0.

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
        """Returns the arguments of the constructor, JSON-serializable; no tensors."""
        return {"initial_scale": self.initial_scale, "mix": self.mix, "broad_scale": self.broad_scale}

    def add_weights(
        self, add_weight: Callable[..., keras.Variable], name: str, shape: Sequence[int]
    ) -> dict[str, keras.Variable]:
        """Creates the non-trainable variables of the prior.

        Args:
            add_weight: The `add_weight` of the layer, with dtype float32 and no autocast.
            name: Prefix of the names of the variables, such as `"kernel"`.
            shape: Shape of the weight tensor.

        Returns:
            `"loc"`, initially 0, and `"scale"`, initially `initial_scale`; float32 variables of shape `shape`.
        """
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
        """Builds the prior; see `Prior.distribution`.

        Args:
            shape: Shape of the weight tensor.
            weights: Variables from `add_weights`; if empty, their initial values.
            noise: Not used: no scale is inferred.

        Returns:
            A float32 distribution with event shape `shape`. Its `log_prob` is in nats.
        """
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
        """Returns the means and scales of the prior, in the units of the weight.

        Args:
            weights: Variables from `add_weights`.

        Returns:
            Float32 arrays `"loc"` and `"scale"`, with the shape of the weight.
        """
        return {role: np.asarray(weight) for role, weight in weights.items()}

    def assign_parameters(self, weights: Mapping[str, keras.Variable], values: Mapping[str, np.ndarray]) -> None:
        """Sets the means and scales of the prior; the inverse of `parameters`.

        Args:
            weights: Variables from `add_weights`.
            values: Arrays `"loc"` and `"scale"`, with the shape of the weight.

        Raises:
            ValueError: If a value is missing, has a different shape or is not finite, or a scale is not positive.
                Nothing is changed then.
        """
        least = {"loc": -np.inf, "scale": float(np.finfo(np.float32).tiny)}
        arrays = {
            role: require_array("informed prior", values, role, weight.shape, least[role])
            for role, weight in weights.items()
        }
        for role, array in arrays.items():
            weights[role].assign(array)

"""Priors of location-scale families, whose centre need not be 0."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.core.arguments import is_number
from tfp_bnn.priors.base import PRIORS
from tfp_bnn.priors.hyperpriors import Hyperprior
from tfp_bnn.priors.scaled import ScaledPrior


class LocatedPrior(ScaledPrior):
    """A prior that is symmetric around a centre, one number for the whole weight tensor. Abstract.

    Args:
        scale: See `ScaledPrior`.
        empirical_bayes: See `ScaledPrior`.
        hyperprior: See `ScaledPrior`.
        shared: See `ScaledPrior`. A learned centre is shared with the scale.
        loc: Centre, in units of the weights. The initial value if it is learned.
        learn_loc: Whether to learn the centre: the value that maximizes the ELBO (type-II maximum likelihood), for a
            normal prior the mean of the posterior means. Default: False.
        groups: See `ScaledPrior`. A learned centre is one for all groups.

    Raises:
        ValueError: If a value is out of range or arguments contradict one another.
    """

    def __init__(
        self,
        scale: float = 1.0,
        empirical_bayes: bool = False,
        hyperprior: str | Mapping[str, Any] | Hyperprior | None = None,
        shared: str | None = None,
        loc: float = 0.0,
        learn_loc: bool = False,
        groups: str | None = None,
    ) -> None:
        super().__init__(scale, empirical_bayes, hyperprior, shared, groups)
        owner = f"the prior {PRIORS.name_of(self)!r}"
        if not is_number(loc) or not np.isfinite(loc):
            raise ValueError(f"`loc` of {owner} must be a finite number, but got {loc!r}.")
        if not isinstance(learn_loc, bool):
            raise ValueError(f"`learn_loc` of {owner} must be True or False, but got {learn_loc!r}.")
        self.loc = float(loc)
        self.learn_loc = learn_loc

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, JSON-serializable; a hyperprior as its config."""
        return {**super().get_config(), "loc": self.loc, "learn_loc": self.learn_loc}

    @property
    def is_learned(self) -> bool:
        """Whether the scale is learned or inferred, or the centre is learned."""
        return self.learns_scale or self.learn_loc

    def located(self, shape: Sequence[int], loc: tf.Tensor, scale: tf.Tensor) -> tfd.Distribution:
        """Builds the prior of a weight tensor for a given centre and scale.

        Args:
            shape: Shape of the weight tensor.
            loc: Centre of each weight, float32, with that shape.
            scale: Float32 scalar, > 0; with `groups` of a shape that broadcasts to that of the weight.

        Returns:
            A float32 distribution with event shape `shape`. Its `log_prob` is in nats.
        """
        raise NotImplementedError

    def with_scale(self, shape: Sequence[int], scale: tf.Tensor) -> tfd.Distribution:
        """Builds the prior around `loc` for a given scale; see `ScaledPrior.with_scale`.

        Args:
            shape: Shape of the weight tensor.
            scale: Float32 scalar, > 0; with `groups` of a shape that broadcasts to that of the weight.

        Returns:
            A float32 distribution with event shape `shape`. Its `log_prob` is in nats.
        """
        return self.located(shape, tf.fill(shape, np.float32(self.loc)), scale)

    def distribution(
        self, shape: Sequence[int], weights: Mapping[str, tf.Tensor], noise: tf.Tensor | float = 0.0
    ) -> tfd.Distribution:
        """Builds the prior; see `Prior.distribution`.

        Args:
            shape: Shape of the weight tensor.
            weights: Variables from `add_weights`; if empty, centre and scale are fixed.
            noise: Standard normal noise that draws an inferred scale, of its `scale_shape`. 0 gives its median.

        Returns:
            A float32 distribution with event shape `shape`. Its `log_prob` is in nats.
        """
        if "loc" not in weights:
            return super().distribution(shape, weights, noise)  # by `with_scale`, which a subclass may have replaced
        loc = tf.convert_to_tensor(weights["loc"])
        return self.located(shape, tf.fill(shape, loc), self.scale_given(weights, noise))

    def add_weights(
        self, add_weight: Callable[..., keras.Variable], name: str, shape: Sequence[int]
    ) -> dict[str, keras.Variable]:
        """Creates the float32 variables of what is learned; see `Prior.add_weights`."""
        weights = super().add_weights(add_weight, name, shape)
        if self.learn_loc:
            start = keras.initializers.Constant(self.loc)
            weights["loc"] = add_weight(name=f"{name}_prior_loc", shape=(), initializer=start)
        return weights

    def parameters(self, weights: Mapping[str, tf.Tensor]) -> dict[str, np.ndarray]:
        """Returns the learned parameters, in the units of the weight.

        Args:
            weights: Variables from `add_weights`.

        Returns:
            Those of `ScaledPrior.parameters`, and `"loc"`, a float32 scalar, if it is learned.
        """
        values = super().parameters(weights)
        return {**values, "loc": np.asarray(weights["loc"], np.float32)} if "loc" in weights else values

    def assign_parameters(self, weights: Mapping[str, keras.Variable], values: Mapping[str, np.ndarray]) -> None:
        """Sets the learned parameters; the inverse of `parameters`.

        Args:
            weights: Variables from `add_weights`.
            values: Values by name, as returned by `parameters`.

        Raises:
            ValueError: If a value is missing or out of range. Nothing is changed then.
        """
        if "loc" not in weights:
            super().assign_parameters(weights, values)
            return
        loc = float(values.get("loc", np.nan))
        if not np.isfinite(loc):
            raise ValueError(f"A learned prior centre `loc` must be a finite number, but got {values.get('loc')!r}.")
        super().assign_parameters(weights, values)
        weights["loc"].assign(loc)

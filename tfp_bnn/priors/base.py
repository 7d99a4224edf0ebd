"""Base class of priors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.core.registry import Spec, SpecRegistry
from tfp_bnn.priors.hyperpriors import Hyperprior


class Prior(Spec):
    """A prior p(w) over one weight tensor, independent per weight. Abstract."""

    improper = False
    """Whether p does not integrate to one. Such a prior can only be used with a `delta` posterior."""

    shared: str | None = None
    """Name under which several layers share one learned scale, or None."""

    hyperprior: Hyperprior | None = None
    """Hyperprior of an inferred scale, or None."""

    @property
    def is_learned(self) -> bool:
        """Whether training moves the prior, by a scale that is learned or inferred."""
        return False

    @property
    def learns_scale(self) -> bool:
        """Whether the scale is learned or inferred. Then points have no most probable value."""
        return self.is_learned

    def scale_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of an inferred scale of a weight tensor; by default `()`, one scale for all.

        Args:
            shape: Shape of the weight tensor.
        """
        return ()

    def fixed(self, weights: Mapping[str, tf.Tensor]) -> Prior:
        """Returns this prior with what it has learned as constants; by default itself, because it learns nothing.

        Args:
            weights: Variables from `add_weights`.

        Raises:
            ValueError: If it does not learn values but infers distributions, or does not say how to fix them.
        """
        if self.is_learned:
            raise ValueError(f"The prior {self!r} is learned, but its class does not define `fixed`. Define it there.")
        return self

    def add_weights(
        self, add_weight: Callable[..., keras.Variable], name: str, shape: Sequence[int]
    ) -> dict[str, keras.Variable]:
        """Creates the variables of the prior. By default there are none.

        Args:
            add_weight: The `add_weight` of the layer or model that owns the variables, with dtype float32 and no
                autocast.
            name: Prefix of the names of the variables, such as `"kernel"`.
            shape: Shape of the weight tensor.

        Returns:
            The float32 variables by role, such as `"untransformed_scale"`; empty if nothing is learned.
        """
        return {}

    def distribution(
        self, shape: Sequence[int], weights: Mapping[str, tf.Tensor], noise: tf.Tensor | float = 0.0
    ) -> tfd.Distribution:
        """Builds the prior p, with the whole weight tensor as its event.

        Args:
            shape: Shape of the weight tensor.
            weights: Variables from `add_weights`; if empty, those of a fixed prior.
            noise: Standard normal noise that draws an inferred scale, of its `scale_shape`. 0 gives its median.

        Returns:
            A float32 distribution with event shape `shape`. Its `log_prob` is in nats.
        """
        raise NotImplementedError

    def hyper_kl(self, weights: Mapping[str, tf.Tensor], noise: tf.Tensor) -> tf.Tensor:
        """Estimates KL(q(s) || p(s)) of an inferred scale s with one draw.

        Args:
            weights: Variables from `add_weights`.
            noise: Standard normal noise that draws s, of its `scale_shape`.

        Returns:
            Float32 scalar, in nats; 0 without a hyperprior.
        """
        return tf.constant(0.0)

    def parameters(self, weights: Mapping[str, tf.Tensor]) -> dict[str, np.ndarray]:
        """Returns the learned parameters, in the units of the weight.

        Args:
            weights: Variables from `add_weights`.

        Returns:
            Float32 arrays by name, such as `"scale"` of shape `()`; empty if nothing is learned.
        """
        return {}

    def assign_parameters(self, weights: Mapping[str, keras.Variable], values: Mapping[str, np.ndarray]) -> None:
        """Sets the learned parameters; the inverse of `parameters`.

        Args:
            weights: Variables from `add_weights`.
            values: Arrays by name, as returned by `parameters`.

        Raises:
            ValueError: If a value is missing or out of range. Nothing is changed then.
        """


PRIORS: SpecRegistry[Prior] = SpecRegistry("prior")

"""Base classes of variational posteriors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.core.arguments import is_number, require_array
from tfp_bnn.core.noise import once_in_scope
from tfp_bnn.core.registry import Spec, SpecRegistry

FLOAT32_EPS = float(np.finfo(np.float32).eps)

_ONE_ULP = FLOAT32_EPS**2
_TRAINABLE = ("both", "loc", "scale")


class NormalNoise(Protocol):
    """The source of noise that a posterior needs."""

    def normal(self, name: str, shape: Any) -> tf.Tensor:
        """Returns standard normal noise, float32, of the given shape."""


class Posterior(Spec):
    """A family of posteriors q(w | parameters) over one weight tensor. Abstract.

    The parameters are those of the literature, such as `loc` and `scale`. The trained variables may be transformations
    of these.
    """

    symmetric_and_independent = False
    """Whether flipout applies: q must be symmetric about its mean and independent per weight (Wen et al. 2018)."""

    independent_normal = False
    """Whether local reparameterization applies: q must be normal and independent per weight (Kingma et al. 2015)."""

    has_spread = True
    """Whether a draw differs from the mean; False for a point mass."""

    trains_loc = True
    """Whether the variable of the mean is trainable."""

    pruned = False
    """Whether the weight has a mask, as made by `tfp_bnn.compression.prune`. Only if q is independent per weight."""

    def add_weights(
        self, add_weight: Callable[..., keras.Variable], name: str, loc: keras.Variable
    ) -> dict[str, keras.Variable]:
        """Creates the variables of the posterior of one weight tensor.

        Args:
            add_weight: The `add_weight` of the layer, with dtype float32 and no autocast.
            name: Name of the weight, such as `"kernel"`.
            loc: Variable of the posterior mean, with the shape of the weight.

        Returns:
            The float32 variables by role, including `"loc"`.
        """
        raise NotImplementedError

    def distribution(self, weights: Mapping[str, tf.Tensor]) -> tfd.Distribution:
        """Builds the posterior q from the current values, with the whole weight tensor as its event.

        Args:
            weights: Variables from `add_weights`.

        Returns:
            A float32 distribution with the shape of the weight as its event shape. Its `log_prob` is in nats.
        """
        raise NotImplementedError

    def perturbation(self, weights: Mapping[str, tf.Tensor], noise: NormalNoise, name: str) -> tf.Tensor:
        """Draws from the posterior and subtracts the mean.

        Args:
            weights: Variables from `add_weights`.
            noise: Source of standard normal noise. Zeros give no perturbation.
            name: Name of the weight, under which the noise is requested.

        Returns:
            A float32 tensor with the shape of the weight.
        """
        raise NotImplementedError

    def parameters(self, weights: Mapping[str, tf.Tensor]) -> dict[str, np.ndarray]:
        """Returns the parameters, in the units of the weight.

        Args:
            weights: Variables from `add_weights`.

        Returns:
            Float32 arrays by name: `"loc"` with the shape of the weight, and those that the family adds.
        """
        raise NotImplementedError

    def assign_parameters(self, weights: Mapping[str, keras.Variable], values: Mapping[str, np.ndarray]) -> None:
        """Sets the variables from parameters; the inverse of `parameters` up to float32 rounding.

        Args:
            weights: Variables from `add_weights`.
            values: Arrays by name, as returned by `parameters`.

        Raises:
            ValueError: If a value is missing, has a different shape or is not finite, or a scale is too small. Nothing
                is changed then.
        """
        raise NotImplementedError


POSTERIORS: SpecRegistry[Posterior] = SpecRegistry("posterior")


class ScaledPosterior(Posterior):
    """A posterior with a mean and a scale for every weight. Abstract.

    scale = eps + softplus(untransformed_scale), with eps the float32 machine epsilon, as in
    `tfp.layers.default_mean_field_normal_fn`: a scale never reaches 0.

    Args:
        initial_scale: Scale at initialization, in the units of the weight. Must be larger than eps (1.2e-7). Default:
            0.05.
        trainable: `"both"`, `"loc"` to train only the means (the scales stay as they are) or `"scale"` to train only
            the scales. Default: `"both"`.

    Raises:
        ValueError: If `initial_scale` is out of range, or `trainable` is none of these.
    """

    def __init__(self, initial_scale: float = 0.05, trainable: str = "both") -> None:
        owner = f"the posterior {POSTERIORS.name_of(self)!r}"
        if not is_number(initial_scale) or not FLOAT32_EPS < initial_scale < 1e6:
            raise ValueError(
                f"`initial_scale` of {owner} must be a number between {FLOAT32_EPS:.2g} and 1e6, but got "
                f"{initial_scale!r}. Usual values are 0.001 to 0.1."
            )
        if trainable not in _TRAINABLE:
            raise ValueError(
                f"`trainable` of {owner} must be one of {', '.join(map(repr, _TRAINABLE))}, but got {trainable!r}. To "
                "freeze a posterior as a whole, set layer.trainable = False."
            )
        self.initial_scale = float(initial_scale)
        self.trainable = trainable

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, JSON-serializable."""
        return {"initial_scale": self.initial_scale, "trainable": self.trainable}

    @property
    def trains_loc(self) -> bool:  # type: ignore[override]
        """Whether the variable of the mean is trainable."""
        return self.trainable != "scale"

    @property
    def trains_scale(self) -> bool:
        """Whether the variables of the spread are trainable."""
        return self.trainable != "loc"

    def add_weights(
        self, add_weight: Callable[..., keras.Variable], name: str, loc: keras.Variable
    ) -> dict[str, keras.Variable]:
        """Creates the variables of the posterior of one weight tensor.

        Args:
            add_weight: The `add_weight` of the layer, with dtype float32 and no autocast.
            name: Name of the weight, such as `"kernel"`.
            loc: Variable of the posterior mean, with the shape of the weight.

        Returns:
            `"loc"`, and `"untransformed_scale"` with the same shape; float32 variables.
        """
        untransformed_scale = add_weight(
            name=f"{name}_untransformed_scale",
            shape=loc.shape,
            initializer=keras.initializers.Constant(float(_untransform(np.asarray(self.initial_scale)))),
            trainable=self.trains_scale,
        )
        return {"loc": loc, "untransformed_scale": untransformed_scale}

    def parameters(self, weights: Mapping[str, tf.Tensor]) -> dict[str, np.ndarray]:
        """Returns the parameters, in the units of the weight.

        Args:
            weights: Variables from `add_weights`.

        Returns:
            Float32 arrays `"loc"` and `"scale"`, with the shape of the weight.
        """
        return {"loc": np.asarray(weights["loc"]), "scale": self.scale(weights).numpy()}

    def assign_parameters(self, weights: Mapping[str, keras.Variable], values: Mapping[str, np.ndarray]) -> None:
        """Sets the means and scales; the inverse of `parameters`.

        Args:
            weights: Variables from `add_weights`.
            values: Arrays `"loc"` and `"scale"`, with the shape of the weight.

        Raises:
            ValueError: If a value is missing, has a different shape or is not finite, or a scale is below eps. Nothing
                is changed then.
        """
        shape = weights["loc"].shape
        loc = require_array("posterior", values, "loc", shape)
        # An underflowing softplus leaves a scale of exactly eps, so `parameters` may return it.
        scale = require_array("posterior", values, "scale", shape, least=FLOAT32_EPS)
        weights["loc"].assign(loc)
        weights["untransformed_scale"].assign(_untransform(scale))

    def scale(self, weights: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Returns the scale of every weight, a float32 tensor with the shape of the weight."""
        untransformed = weights["untransformed_scale"]
        # The draw and the KL need it, and so does each use of a layer.
        return once_in_scope(untransformed, lambda: FLOAT32_EPS + tf.nn.softplus(tf.convert_to_tensor(untransformed)))

    @staticmethod
    def untransformed_scale(scale: tf.Tensor) -> tf.Tensor:
        """Returns the values of `"untransformed_scale"` that give a scale, as a float32 tensor; finite at eps too."""
        above = tf.maximum(scale - FLOAT32_EPS, _ONE_ULP)
        return above + tf.math.log(-tf.math.expm1(-above))


def kl_to_independent_normal(
    entropy: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor, prior: tfd.Independent
) -> tf.Tensor:
    """KL(q || p) to a normal p that is independent per weight, for any q with known entropy and moments.

    Args:
        entropy: Entropy of q in nats, float32 scalar.
        mean: Mean of q, with the shape of the weight.
        variance: Marginal variance of q, with the shape of the weight.
        prior: Prior p.

    Returns:
        Float32 scalar, in nats, summed over the weights.

    Raises:
        NotImplementedError: If p is not normal.
    """
    if not isinstance(prior.distribution, tfd.Normal):
        raise NotImplementedError("Only a normal prior has a closed form.")
    return -entropy - prior.log_prob(mean) + tf.reduce_sum(0.5 * variance / prior.distribution.scale**2)


def _untransform(scale: np.ndarray) -> np.ndarray:
    """Inverts eps + softplus, in float64 to preserve scales near eps. Finite at eps too."""
    above = np.maximum(np.asarray(scale, np.float64) - FLOAT32_EPS, _ONE_ULP)
    return (above + np.log(-np.expm1(-above))).astype(np.float32)

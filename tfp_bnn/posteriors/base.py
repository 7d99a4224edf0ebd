"""What a variational posterior is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.core.arguments import is_number, require_array
from tfp_bnn.core.registry import Spec, SpecRegistry

FLOAT32_EPS = float(np.finfo(np.float32).eps)

_TRAINABLE = ("both", "loc", "scale")


class NormalNoise(Protocol):
    """What a posterior asks for its noise."""

    def normal(self, name: str, shape: Any) -> tf.Tensor:
        """Standard normal noise, float32."""


class Posterior(Spec):
    """A family q(w | parameters) over one weight tensor. Abstract.

    `parameters` are those that a reader of a paper would expect (`loc`, `scale`); the trained variables may be a
    transformation of them.
    """

    symmetric_and_independent = False
    """Whether flipout applies: q must be symmetric about its mean and independent per weight (Wen et al. 2018)."""

    independent_normal = False
    """Whether local reparameterization applies: q must be normal and independent per weight (Kingma et al. 2015)."""

    has_spread = True
    """Whether a draw differs from the mean; False for a point."""

    trains_loc = True
    """Whether the variable of the mean is trainable."""

    def add_weights(
        self, add_weight: Callable[..., keras.Variable], name: str, loc: keras.Variable
    ) -> dict[str, keras.Variable]:
        """Makes the variables of the posterior of one weight.

        Args:
            add_weight: `layer.add_weight` with dtype float32 and no autocast.
            name: of the weight, such as `"kernel"`.
            loc: the variable that holds the posterior mean.

        Returns:
            The variables by their role, `loc` included.
        """
        raise NotImplementedError

    def distribution(self, weights: Mapping[str, tf.Tensor]) -> tfd.Distribution:
        """The distribution q, with the whole weight tensor as its event, built afresh from the current values."""
        raise NotImplementedError

    def perturbation(self, weights: Mapping[str, tf.Tensor], noise: NormalNoise, name: str) -> tf.Tensor:
        """What a draw adds to the mean, float32.

        Args:
            weights: what `add_weights` made.
            noise: where standard normal noise comes from; a source of zeros gives no perturbation.
            name: of the weight, under which the noise is asked for.
        """
        raise NotImplementedError

    def parameters(self, weights: Mapping[str, tf.Tensor]) -> dict[str, np.ndarray]:
        """The parameters in natural units, float32."""
        raise NotImplementedError

    def assign_parameters(self, weights: Mapping[str, keras.Variable], values: Mapping[str, np.ndarray]) -> None:
        """Sets the variables from parameters: the inverse of `parameters`, to the float32 rounding.

        Raises:
            ValueError: for values of another shape, NaN, infinite or no scale; nothing is changed then.
        """
        raise NotImplementedError


POSTERIORS: SpecRegistry[Posterior] = SpecRegistry("posterior")


class ScaledPosterior(Posterior):
    """A posterior with a mean and a scale for every weight. Abstract.

    scale = eps + softplus(untransformed_scale), with eps the float32 machine epsilon, as in
    `tfp.layers.default_mean_field_normal_fn`: a scale never reaches 0.

    Args:
        initial_scale: the scale at initialization, in the units of the weight. Must be larger than eps (1.2e-7).
        trainable: `"both"`, `"loc"` for the means only (the scales stay as they are) or `"scale"` for the scales only.

    Raises:
        ValueError: for a scale out of range or another `trainable`.
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
        untransformed_scale = add_weight(
            name=f"{name}_untransformed_scale",
            shape=loc.shape,
            initializer=keras.initializers.Constant(float(_untransform(np.asarray(self.initial_scale)))),
            trainable=self.trains_scale,
        )
        return {"loc": loc, "untransformed_scale": untransformed_scale}

    def parameters(self, weights: Mapping[str, tf.Tensor]) -> dict[str, np.ndarray]:
        return {"loc": np.asarray(weights["loc"]), "scale": self.scale(weights).numpy()}

    def assign_parameters(self, weights: Mapping[str, keras.Variable], values: Mapping[str, np.ndarray]) -> None:
        shape = weights["loc"].shape
        loc = require_array("posterior", values, "loc", shape)
        # A scale of eps itself is what an underflowing softplus leaves, and so what `parameters` may give.
        scale = require_array("posterior", values, "scale", shape, least=FLOAT32_EPS)
        weights["loc"].assign(loc)
        weights["untransformed_scale"].assign(_untransform(scale))

    def scale(self, weights: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """The scale of every weight, float32."""
        return FLOAT32_EPS + tf.nn.softplus(tf.convert_to_tensor(weights["untransformed_scale"]))


def kl_to_independent_normal(
    entropy: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor, prior: tfd.Independent
) -> tf.Tensor:
    """KL(q || p) in nats to a normal p that is independent per weight, for any q of known entropy and moments.

    Raises:
        NotImplementedError: when p is of another kind.
    """
    if not isinstance(prior.distribution, tfd.Normal):
        raise NotImplementedError("Only a normal prior has a closed form.")
    return -entropy - prior.log_prob(mean) + tf.reduce_sum(0.5 * variance / prior.distribution.scale**2)


def _untransform(scale: np.ndarray) -> np.ndarray:
    """The inverse of eps + softplus, in float64 so that scales near eps survive; finite also at eps."""
    one_ulp = FLOAT32_EPS**2
    above = np.maximum(np.asarray(scale, np.float64) - FLOAT32_EPS, one_ulp)
    return (above + np.log(-np.expm1(-above))).astype(np.float32)

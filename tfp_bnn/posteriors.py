"""Variational posteriors: the families of distributions that a weight's posterior is approximated by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.arguments import is_number
from tfp_bnn.registry import Spec, SpecRegistry

_FLOAT32_EPS = float(np.finfo(np.float32).eps)


class Posterior(Spec):
    """A family q(w | parameters) over one weight tensor. Abstract.

    `natural` parameters are those that a reader of a paper would expect (`loc`, `scale`); the trained variables may be
    a transformation of them.
    """

    symmetric_and_independent = False
    """Whether flipout applies: q must be symmetric about its mean and independent per weight (Wen et al. 2018)."""

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

    def perturbation(self, weights: Mapping[str, tf.Tensor], noise: tf.Tensor) -> tf.Tensor:
        """What a draw adds to the mean, a deterministic function of standard normal noise of the weight's shape."""
        raise NotImplementedError

    def natural(self, weights: Mapping[str, tf.Tensor]) -> dict[str, np.ndarray]:
        """The parameters in natural units, float32."""
        raise NotImplementedError

    def assign_natural(self, weights: Mapping[str, keras.Variable], values: Mapping[str, np.ndarray]) -> None:
        """Sets the variables from natural parameters: the inverse of `natural`, to the float32 rounding."""
        raise NotImplementedError


POSTERIORS: SpecRegistry[Posterior] = SpecRegistry("posterior")


@POSTERIORS.register("mean_field_normal")
class MeanFieldNormal(Posterior):
    """An independent normal for every weight.

    w = loc + scale * e,  e ~ N(0, 1),  scale = eps + softplus(untransformed_scale)

    with eps the float32 machine epsilon, as in `tfp.layers.default_mean_field_normal_fn`: a scale never
    reaches 0.

    Args:
        initial_scale: the scale at initialization, in the units of the weight. Must be larger than eps (1.2e-7).

    References:
        Blundell et al. 2015, Weight Uncertainty in Neural Networks, https://arxiv.org/abs/1505.05424
    """

    symmetric_and_independent = True

    def __init__(self, initial_scale: float = 0.05) -> None:
        if not is_number(initial_scale) or not _FLOAT32_EPS < initial_scale < 1e6:
            raise ValueError(
                f"`initial_scale` of the posterior 'mean_field_normal' must be a number between {_FLOAT32_EPS:.2g} and "
                f"1e6, but got {initial_scale!r}. Usual values are 0.001 to 0.1."
            )
        self.initial_scale = float(initial_scale)

    def get_config(self) -> dict[str, Any]:
        return {"initial_scale": self.initial_scale}

    def add_weights(
        self, add_weight: Callable[..., keras.Variable], name: str, loc: keras.Variable
    ) -> dict[str, keras.Variable]:
        untransformed_scale = add_weight(
            name=f"{name}_untransformed_scale",
            shape=loc.shape,
            initializer=keras.initializers.Constant(float(_untransform(np.asarray(self.initial_scale)))),
        )
        return {"loc": loc, "untransformed_scale": untransformed_scale}

    def distribution(self, weights: Mapping[str, tf.Tensor]) -> tfd.Distribution:
        loc = tf.convert_to_tensor(weights["loc"])
        return tfd.Independent(tfd.Normal(loc, self._scale(weights)), reinterpreted_batch_ndims=len(loc.shape))

    def perturbation(self, weights: Mapping[str, tf.Tensor], noise: tf.Tensor) -> tf.Tensor:
        return self._scale(weights) * noise

    def natural(self, weights: Mapping[str, tf.Tensor]) -> dict[str, np.ndarray]:
        return {"loc": np.asarray(weights["loc"]), "scale": self._scale(weights).numpy()}

    def assign_natural(self, weights: Mapping[str, keras.Variable], values: Mapping[str, np.ndarray]) -> None:
        scale = np.asarray(values["scale"])
        # A scale of eps itself is what an underflowing softplus leaves, and so what `natural` may give.
        out_of_range = ~((scale >= _FLOAT32_EPS) & np.isfinite(scale))
        if out_of_range.any():
            index = tuple(int(i) for i in np.argwhere(out_of_range)[0])
            raise ValueError(
                f"The posterior scale must be finite and at least {_FLOAT32_EPS:.2g}, but {int(out_of_range.sum())} of "
                f"{scale.size} values are not; the first is {scale[index]} at index {index}."
            )
        weights["loc"].assign(values["loc"])
        weights["untransformed_scale"].assign(_untransform(scale))

    def _scale(self, weights: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return _FLOAT32_EPS + tf.nn.softplus(tf.convert_to_tensor(weights["untransformed_scale"]))


def _untransform(scale: np.ndarray) -> np.ndarray:
    """The inverse of eps + softplus, in float64 so that scales near eps survive; finite also at eps."""
    one_ulp = _FLOAT32_EPS**2
    above = np.maximum(np.asarray(scale, np.float64) - _FLOAT32_EPS, one_ulp)
    return (above + np.log(-np.expm1(-above))).astype(np.float32)

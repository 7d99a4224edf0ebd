"""Priors on weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.arguments import is_number
from tfp_bnn.registry import Spec, SpecRegistry

_SCALE_FLOOR = 1e-3


class Prior(Spec):
    """A distribution p(w) over one weight tensor, independent per weight. Abstract."""

    def add_weights(self, add_weight: Callable[..., keras.Variable], name: str) -> dict[str, keras.Variable]:
        """Makes the variables of a prior that is learned, by their role. None by default.

        Args:
            add_weight: `layer.add_weight` with dtype float32 and no autocast.
            name: of the weight, such as `"kernel"`.
        """
        return {}

    def distribution(self, shape: Sequence[int], weights: Mapping[str, tf.Tensor]) -> tfd.Distribution:
        """The distribution p, with the whole weight tensor of the given shape as its event."""
        raise NotImplementedError

    def natural(self, weights: Mapping[str, tf.Tensor]) -> dict[str, np.ndarray]:
        """The learned parameters in natural units, float32; empty when nothing is learned."""
        return {}

    def assign_natural(self, weights: Mapping[str, keras.Variable], values: Mapping[str, np.ndarray]) -> None:
        """Sets the learned parameters from natural units."""


PRIORS: SpecRegistry[Prior] = SpecRegistry("prior")


@PRIORS.register("normal")
class Normal(Prior):
    """w ~ N(0, scale^2), independent per weight.

    With `empirical_bayes=True` the scale, one for the weight tensor, is learned with the posterior by maximizing the
    ELBO (type-II maximum likelihood); the ELBO's optimum is scale^2 = mean(loc^2 + posterior_scale^2). It cannot fall
    below 0.001: a prior that shrinks to a point takes the posterior with it.

    Args:
        scale: standard deviation, > 0; the initial one when it is learned.
        empirical_bayes: whether the scale is learned.
    """

    def __init__(self, scale: float = 1.0, empirical_bayes: bool = False) -> None:
        _require_positive("normal", "scale", scale)
        if not isinstance(empirical_bayes, bool):
            raise ValueError(
                f"`empirical_bayes` of the prior 'normal' must be True or False, but got {empirical_bayes!r}."
            )
        if empirical_bayes and scale <= _SCALE_FLOOR:
            raise ValueError(f"A learned `scale` must start above {_SCALE_FLOOR}, but got {scale!r}.")
        self.scale = float(scale)
        self.empirical_bayes = empirical_bayes

    def get_config(self) -> dict[str, Any]:
        return {"scale": self.scale, "empirical_bayes": self.empirical_bayes}

    def add_weights(self, add_weight: Callable[..., keras.Variable], name: str) -> dict[str, keras.Variable]:
        if not self.empirical_bayes:
            return {}
        start = keras.initializers.Constant(math.log(self.scale - _SCALE_FLOOR))
        return {
            "untransformed_scale": add_weight(name=f"{name}_prior_untransformed_scale", shape=(), initializer=start)
        }

    def distribution(self, shape: Sequence[int], weights: Mapping[str, tf.Tensor]) -> tfd.Distribution:
        scale = self._learned_scale(weights) if weights else tf.constant(self.scale, tf.float32)
        return tfd.Independent(tfd.Normal(tf.zeros(shape), scale), reinterpreted_batch_ndims=len(shape))

    def natural(self, weights: Mapping[str, tf.Tensor]) -> dict[str, np.ndarray]:
        return {"scale": self._learned_scale(weights).numpy()} if weights else {}

    def assign_natural(self, weights: Mapping[str, keras.Variable], values: Mapping[str, np.ndarray]) -> None:
        if weights:
            scale = float(values["scale"])
            if not _SCALE_FLOOR < scale < math.inf:
                raise ValueError(f"A learned prior scale must be finite and above {_SCALE_FLOOR}, but got {scale}.")
            weights["untransformed_scale"].assign(math.log(scale - _SCALE_FLOOR))

    def _learned_scale(self, weights: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return _SCALE_FLOOR + tf.exp(tf.convert_to_tensor(weights["untransformed_scale"]))


@PRIORS.register("scale_mixture")
class ScaleMixture(Prior):
    """w ~ mixture_probability * N(0, scale_1^2) + (1 - mixture_probability) * N(0, scale_2^2), independent per weight.

    A broad and a narrow component: many weights are pulled to zero, some may be large. Its KL has no closed form and is
    estimated with the layer's own weight draw.

    Args:
        mixture_probability: weight of the first component, in (0, 1).
        scale_1: standard deviation of the first component, > 0.
        scale_2: standard deviation of the second component, > 0.

    References:
        Blundell et al. 2015, equation 7, https://arxiv.org/abs/1505.05424
    """

    def __init__(self, mixture_probability: float = 0.5, scale_1: float = 1.0, scale_2: float = math.exp(-6.0)) -> None:
        _require_positive("scale_mixture", "scale_1", scale_1)
        _require_positive("scale_mixture", "scale_2", scale_2)
        if not is_number(mixture_probability) or not 0 < mixture_probability < 1:
            raise ValueError(
                "`mixture_probability` of the prior 'scale_mixture' must lie between 0 and 1, but got "
                f"{mixture_probability!r}."
            )
        self.mixture_probability = float(mixture_probability)
        self.scale_1 = float(scale_1)
        self.scale_2 = float(scale_2)

    def get_config(self) -> dict[str, Any]:
        return {"mixture_probability": self.mixture_probability, "scale_1": self.scale_1, "scale_2": self.scale_2}

    def distribution(self, shape: Sequence[int], weights: Mapping[str, tf.Tensor]) -> tfd.Distribution:
        components = tfd.Normal(0.0, tf.constant([self.scale_1, self.scale_2]))
        mixture = tfd.MixtureSameFamily(
            tfd.Categorical(probs=[self.mixture_probability, 1 - self.mixture_probability]), components
        )
        return tfd.Sample(mixture, sample_shape=shape)


def _require_positive(prior: str, name: str, value: object) -> None:
    if not is_number(value) or not 0 < value < math.inf:
        raise ValueError(f"`{name}` of the prior {prior!r} must be a finite number larger than 0, but got {value!r}.")

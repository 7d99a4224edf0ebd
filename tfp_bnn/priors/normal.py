"""Normal priors: one normal, and a mixture of a broad and a narrow one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.core.arguments import is_number, require_positive
from tfp_bnn.priors.base import PRIORS, ScaledPrior
from tfp_bnn.priors.hyperpriors import Hyperprior


@PRIORS.register("normal")
class Normal(ScaledPrior):
    """w ~ N(0, scale^2), independent per weight.

    The KL has a closed form. Where the scale is learned, the ELBO's optimum is scale^2 = mean(loc^2 +
    posterior_scale^2).

    Args are those of `ScaledPrior`; `scale` is the standard deviation.
    """

    def with_scale(self, shape: Sequence[int], scale: tf.Tensor) -> tfd.Distribution:
        return tfd.Independent(tfd.Normal(tf.zeros(shape), scale), reinterpreted_batch_ndims=len(shape))


@PRIORS.register("scale_mixture")
class ScaleMixture(ScaledPrior):
    """w ~ scale * m,  m ~ mixture_probability * N(0, scale_1^2) + (1 - mixture_probability) * N(0, scale_2^2).

    Independent per weight. A broad and a narrow component: many weights are pulled to zero, some may be large. Its KL
    has no closed form and is estimated with the layer's own weight draw.

    Args:
        mixture_probability: weight of the first component, in (0, 1).
        scale_1: standard deviation of the first component, > 0.
        scale_2: standard deviation of the second component, > 0.
        scale: common factor of both, > 0; the part that can be learned or inferred.
        empirical_bayes: see `ScaledPrior`.
        hyperprior: see `ScaledPrior`.
        shared: see `ScaledPrior`.

    References:
        Blundell et al. 2015, equation 7, https://arxiv.org/abs/1505.05424
    """

    def __init__(
        self,
        mixture_probability: float = 0.5,
        scale_1: float = 1.0,
        scale_2: float = math.exp(-6.0),
        scale: float = 1.0,
        empirical_bayes: bool = False,
        hyperprior: str | Mapping[str, Any] | Hyperprior | None = None,
        shared: str | None = None,
    ) -> None:
        super().__init__(scale, empirical_bayes, hyperprior, shared)
        self.scale_1 = require_positive("the prior 'scale_mixture'", "scale_1", scale_1)
        self.scale_2 = require_positive("the prior 'scale_mixture'", "scale_2", scale_2)
        if not is_number(mixture_probability) or not 0 < mixture_probability < 1:
            raise ValueError(
                "`mixture_probability` of the prior 'scale_mixture' must lie between 0 and 1, but got "
                f"{mixture_probability!r}."
            )
        self.mixture_probability = float(mixture_probability)

    def get_config(self) -> dict[str, Any]:
        own = {"mixture_probability": self.mixture_probability, "scale_1": self.scale_1, "scale_2": self.scale_2}
        return {**own, **super().get_config()}

    def with_scale(self, shape: Sequence[int], scale: tf.Tensor) -> tfd.Distribution:
        components = tfd.Normal(0.0, scale * tf.constant([self.scale_1, self.scale_2]))
        mixture = tfd.MixtureSameFamily(
            tfd.Categorical(probs=[self.mixture_probability, 1 - self.mixture_probability]), components
        )
        return tfd.Sample(mixture, sample_shape=shape)

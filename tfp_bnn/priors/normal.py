"""Normal priors: a single normal, and a mixture of a broad and a narrow one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.core.arguments import is_number, require_positive
from tfp_bnn.priors.base import PRIORS
from tfp_bnn.priors.hyperpriors import Hyperprior
from tfp_bnn.priors.located import LocatedPrior
from tfp_bnn.priors.scaled import ScaledPrior


@PRIORS.register("normal")
class Normal(LocatedPrior):
    """Normal prior, w ~ N(loc, scale^2), independent per weight; `loc` is 0 by default.

    The KL has a closed form. A learned scale has its optimum at scale^2 = mean((posterior_loc - loc)^2 +
    posterior_scale^2), a learned `loc` at the mean of the posterior means. With `groups`, the mean is over each group.

    Args are those of `LocatedPrior`; `scale` is the standard deviation.
    """

    def located(self, shape: Sequence[int], loc: tf.Tensor, scale: tf.Tensor) -> tfd.Distribution:
        """Builds the prior of a weight tensor for a given centre and scale; see `LocatedPrior.located`."""
        return tfd.Independent(tfd.Normal(loc, scale), reinterpreted_batch_ndims=len(shape))


@PRIORS.register("scale_mixture")
class ScaleMixture(ScaledPrior):
    """Mixture of a broad and a narrow normal, independent per weight.

    w ~ scale * m,  m ~ mixture_probability * N(0, scale_1^2) + (1 - mixture_probability) * N(0, scale_2^2)

    Many weights are pulled to zero, while some may be large. The KL has no closed form and is estimated with one
    draw of the weights.

    Args:
        mixture_probability: Probability of the first component, in (0, 1).
        scale_1: Standard deviation of the first component, > 0.
        scale_2: Standard deviation of the second component, > 0.
        scale: Common factor of both, > 0. It can be learned or inferred.
        empirical_bayes: See `ScaledPrior`.
        hyperprior: See `ScaledPrior`.
        shared: See `ScaledPrior`.
        groups: See `ScaledPrior`.

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
        groups: str | None = None,
    ) -> None:
        super().__init__(scale, empirical_bayes, hyperprior, shared, groups)
        self.scale_1 = require_positive("the prior 'scale_mixture'", "scale_1", scale_1)
        self.scale_2 = require_positive("the prior 'scale_mixture'", "scale_2", scale_2)
        if not is_number(mixture_probability) or not 0 < mixture_probability < 1:
            raise ValueError(
                "`mixture_probability` of the prior 'scale_mixture' must lie between 0 and 1, but got "
                f"{mixture_probability!r}."
            )
        self.mixture_probability = float(mixture_probability)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, JSON-serializable."""
        own = {"mixture_probability": self.mixture_probability, "scale_1": self.scale_1, "scale_2": self.scale_2}
        return {**own, **super().get_config()}

    def with_scale(self, shape: Sequence[int], scale: tf.Tensor) -> tfd.Distribution:
        """Builds the prior of a weight tensor for a given scale.

        Args:
            shape: Shape of the weight tensor.
            scale: Float32 scalar, > 0, the common factor of both components; with `groups` of a shape that broadcasts
                to that of the weight.

        Returns:
            A float32 distribution with event shape `shape`. Its `log_prob` is in nats.
        """
        shares = tfd.Categorical(probs=[self.mixture_probability, 1 - self.mixture_probability])
        scales = tf.constant([self.scale_1, self.scale_2])
        if self.groups is None:
            return tfd.Sample(tfd.MixtureSameFamily(shares, tfd.Normal(0.0, scale * scales)), sample_shape=shape)
        of_each = tfd.Normal(0.0, tf.broadcast_to(scale, shape)[..., None] * scales)
        return tfd.Independent(tfd.MixtureSameFamily(shares, of_each), reinterpreted_batch_ndims=len(shape))

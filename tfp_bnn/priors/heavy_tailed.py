"""Priors with heavier tails than the normal: most weights near 0, a few as large as the data require."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.core.arguments import require_positive
from tfp_bnn.priors.base import PRIORS
from tfp_bnn.priors.hyperpriors import Hyperprior
from tfp_bnn.priors.located import LocatedPrior
from tfp_bnn.priors.scaled import ScaledPrior


@PRIORS.register("laplace")
class Laplace(LocatedPrior):
    """Laplace prior, w ~ Laplace(loc, scale), independent per weight; `loc` is 0 by default.

    With a `delta` posterior it is the lasso.

    The KL of a normal posterior is estimated with one draw of the weights.

    Args are those of `LocatedPrior`; `scale` is the mean of |w - loc|.
    """

    def located(self, shape: Sequence[int], loc: tf.Tensor, scale: tf.Tensor) -> tfd.Distribution:
        """Builds the prior of a weight tensor for a given centre and scale; see `LocatedPrior.located`."""
        return tfd.Independent(tfd.Laplace(loc, scale), reinterpreted_batch_ndims=len(shape))


@PRIORS.register("cauchy")
class Cauchy(LocatedPrior):
    """Cauchy prior, w ~ Cauchy(loc, scale), independent per weight; `loc` is 0 by default.

    The KL is estimated with one draw of the weights.

    Args are those of `LocatedPrior`; `scale` is the median of |w - loc|.
    """

    def located(self, shape: Sequence[int], loc: tf.Tensor, scale: tf.Tensor) -> tfd.Distribution:
        """Builds the prior of a weight tensor for a given centre and scale; see `LocatedPrior.located`."""
        return tfd.Independent(tfd.Cauchy(loc, scale), reinterpreted_batch_ndims=len(shape))


@PRIORS.register("student_t")
class StudentT(LocatedPrior):
    """Student t prior, w ~ StudentT(df, loc, scale), independent per weight; `loc` is 0 by default.

    It lies between the Cauchy (df = 1) and the normal (df -> infinity).

    The KL is estimated with one draw of the weights.

    Args:
        df: Degrees of freedom, > 0.
        scale: See `ScaledPrior`. The standard deviation is scale * sqrt(df / (df - 2)) for df > 2.
        empirical_bayes: See `ScaledPrior`.
        hyperprior: See `ScaledPrior`.
        shared: See `ScaledPrior`.
        loc: See `LocatedPrior`.
        learn_loc: See `LocatedPrior`.
        groups: See `ScaledPrior`.
    """

    def __init__(
        self,
        df: float = 3.0,
        scale: float = 1.0,
        empirical_bayes: bool = False,
        hyperprior: str | Mapping[str, Any] | Hyperprior | None = None,
        shared: str | None = None,
        loc: float = 0.0,
        learn_loc: bool = False,
        groups: str | None = None,
    ) -> None:
        super().__init__(scale, empirical_bayes, hyperprior, shared, loc, learn_loc, groups)
        self.df = require_positive("the prior 'student_t'", "df", df)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, JSON-serializable."""
        return {"df": self.df, **super().get_config()}

    def located(self, shape: Sequence[int], loc: tf.Tensor, scale: tf.Tensor) -> tfd.Distribution:
        """Builds the prior of a weight tensor for a given centre and scale; see `LocatedPrior.located`."""
        return tfd.Independent(tfd.StudentT(self.df, loc, scale), reinterpreted_batch_ndims=len(shape))


@PRIORS.register("horseshoe")
class Horseshoe(ScaledPrior):
    """Horseshoe prior: sparse, while large weights are hardly shrunk. Independent per weight.

    w ~ N(0, (scale * t)^2),  t ~ HalfCauchy(0, 1)

    The KL is estimated with one draw of the weights. The marginal log-density of w is TFP's approximation, with an
    error of at most 0.00064 nats per weight (near |w| = 3 * scale). The density has a pole at 0 and is taken as
    constant below 1e-9 * scale.

    Args are those of `ScaledPrior`. `scale` is the global shrinkage, which usually has a `half_cauchy` hyperprior.

    References:
        Carvalho, Polson and Scott 2009, Handling Sparsity via the Horseshoe, AISTATS
    """

    def with_scale(self, shape: Sequence[int], scale: tf.Tensor) -> tfd.Distribution:
        """Builds the prior of a weight tensor for a given scale.

        Args:
            shape: Shape of the weight tensor.
            scale: Float32 scalar, > 0, the global shrinkage; with `groups` of a shape that broadcasts to that of the
                weight.

        Returns:
            A float32 distribution with event shape `shape`. Its `log_prob` is in nats.
        """
        return tfd.Independent(_FiniteHorseshoe(tf.broadcast_to(scale, shape)), reinterpreted_batch_ndims=len(shape))


class _FiniteHorseshoe(tfd.Horseshoe):
    # Closer to the pole the gradient with respect to the scale overflows.
    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        return super()._log_prob(tf.maximum(tf.abs(x), 1e-9 * self.scale))

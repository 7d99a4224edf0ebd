"""Hyperpriors: distributions over the scale of a prior."""

from __future__ import annotations

import math
from typing import Any

from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from tfp_bnn.core.arguments import is_number, require_positive
from tfp_bnn.core.registry import Spec, SpecRegistry


class Hyperprior(Spec):
    """A hyperprior p(s) over the scale s > 0 of a prior. Abstract.

    The posterior of s is inferred together with that of the weights; see `tfp_bnn.priors.ScaledPrior`.
    """

    def distribution(self) -> tfd.Distribution:
        """Builds p(s).

        Returns:
            A float32 distribution over the scale s itself, with batch and event shape `()`. Its `log_prob` is in nats.
        """
        raise NotImplementedError


HYPERPRIORS: SpecRegistry[Hyperprior] = SpecRegistry("hyperprior")


@HYPERPRIORS.register("half_normal")
class HalfNormal(Hyperprior):
    """Half-normal hyperprior, s = |x| with x ~ N(0, scale^2). It rules out scales much larger than `scale`.

    Args:
        scale: Scale of x, > 0.
    """

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = require_positive("the hyperprior 'half_normal'", "scale", scale)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, JSON-serializable."""
        return {"scale": self.scale}

    def distribution(self) -> tfd.Distribution:
        """Builds p(s) = HalfNormal(scale), float32, with batch and event shape `()`."""
        return tfd.HalfNormal(self.scale)


@HYPERPRIORS.register("half_cauchy")
class HalfCauchy(Hyperprior):
    """Half-Cauchy hyperprior, s = |x| with x ~ Cauchy(0, scale).

    It is weakly informative: its heavy tail allows a large scale if the data support it.

    Args:
        scale: Median of s, > 0.

    References:
        Gelman 2006, Prior distributions for variance parameters in hierarchical models, Bayesian Analysis 1(3)
    """

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = require_positive("the hyperprior 'half_cauchy'", "scale", scale)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, JSON-serializable."""
        return {"scale": self.scale}

    def distribution(self) -> tfd.Distribution:
        """Builds p(s) = HalfCauchy(0, scale), float32, with batch and event shape `()`."""
        return tfd.HalfCauchy(loc=0.0, scale=self.scale)


@HYPERPRIORS.register("inverse_gamma")
class InverseGamma(Hyperprior):
    """Inverse-gamma hyperprior on the *variance* of the prior, as in the conjugate model.

    s^2 ~ InverseGamma(concentration, scale)

    The density over s itself includes 2 s, the Jacobian of this change of variables.

    Args:
        concentration: Concentration alpha, > 0.
        scale: Scale beta, > 0, in the units of the variance. The mode of s^2 is beta / (alpha + 1).
    """

    def __init__(self, concentration: float = 1.0, scale: float = 1.0) -> None:
        self.concentration = require_positive("the hyperprior 'inverse_gamma'", "concentration", concentration)
        self.scale = require_positive("the hyperprior 'inverse_gamma'", "scale", scale)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, JSON-serializable."""
        return {"concentration": self.concentration, "scale": self.scale}

    def distribution(self) -> tfd.Distribution:
        """Builds p(s), with s^2 inverse-gamma, float32, with batch and event shape `()`."""
        variance = tfd.InverseGamma(self.concentration, self.scale)
        return tfd.TransformedDistribution(variance, tfb.Invert(tfb.Square()))


@HYPERPRIORS.register("log_normal")
class LogNormal(Hyperprior):
    """Log-normal hyperprior, log(s) ~ N(loc, scale^2).

    Args:
        loc: Mean of log(s), any finite number. The median of s is exp(loc).
        scale: Standard deviation of log(s), > 0.
    """

    def __init__(self, loc: float = 0.0, scale: float = 1.0) -> None:
        if not is_number(loc) or not math.isfinite(loc):
            raise ValueError(f"`loc` of the hyperprior 'log_normal' must be a finite number, but got {loc!r}.")
        self.loc = float(loc)
        self.scale = require_positive("the hyperprior 'log_normal'", "scale", scale)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, JSON-serializable."""
        return {"loc": self.loc, "scale": self.scale}

    def distribution(self) -> tfd.Distribution:
        """Builds p(s) = LogNormal(loc, scale), float32, with batch and event shape `()`."""
        return tfd.LogNormal(self.loc, self.scale)

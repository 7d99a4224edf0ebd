"""Hyperpriors: what is believed about the scale of a prior before any data are seen."""

from __future__ import annotations

import math
from typing import Any

from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from tfp_bnn.core.arguments import is_number, require_positive
from tfp_bnn.core.registry import Spec, SpecRegistry


class Hyperprior(Spec):
    """A distribution p(s) over the scale s > 0 of a prior. Abstract.

    The posterior of s is inferred with that of the weights: see `tfp_bnn.priors.ScaledPrior`.
    """

    def distribution(self) -> tfd.Distribution:
        """p(s), a scalar distribution over the scale itself, float32."""
        raise NotImplementedError


HYPERPRIORS: SpecRegistry[Hyperprior] = SpecRegistry("hyperprior")


@HYPERPRIORS.register("half_normal")
class HalfNormal(Hyperprior):
    """s = |x|,  x ~ N(0, scale^2): scales much larger than `scale` are ruled out.

    Args:
        scale: > 0.
    """

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = require_positive("the hyperprior 'half_normal'", "scale", scale)

    def get_config(self) -> dict[str, Any]:
        return {"scale": self.scale}

    def distribution(self) -> tfd.Distribution:
        return tfd.HalfNormal(self.scale)


@HYPERPRIORS.register("half_cauchy")
class HalfCauchy(Hyperprior):
    """s = |x|,  x ~ Cauchy(0, scale): weakly informative, with a tail that lets the data ask for a large scale.

    Args:
        scale: > 0, the median of s.

    References:
        Gelman 2006, Prior distributions for variance parameters in hierarchical models, Bayesian Analysis 1(3)
    """

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = require_positive("the hyperprior 'half_cauchy'", "scale", scale)

    def get_config(self) -> dict[str, Any]:
        return {"scale": self.scale}

    def distribution(self) -> tfd.Distribution:
        return tfd.HalfCauchy(loc=0.0, scale=self.scale)


@HYPERPRIORS.register("inverse_gamma")
class InverseGamma(Hyperprior):
    """s^2 ~ InverseGamma(concentration, scale): on the *variance* of the prior, as in the conjugate model.

    The density over s itself has the Jacobian 2 s of that change of variables.

    Args:
        concentration: alpha > 0.
        scale: beta > 0, in the units of the variance; the mode of s^2 is beta / (alpha + 1).
    """

    def __init__(self, concentration: float = 1.0, scale: float = 1.0) -> None:
        self.concentration = require_positive("the hyperprior 'inverse_gamma'", "concentration", concentration)
        self.scale = require_positive("the hyperprior 'inverse_gamma'", "scale", scale)

    def get_config(self) -> dict[str, Any]:
        return {"concentration": self.concentration, "scale": self.scale}

    def distribution(self) -> tfd.Distribution:
        variance = tfd.InverseGamma(self.concentration, self.scale)
        return tfd.TransformedDistribution(variance, tfb.Invert(tfb.Square()))


@HYPERPRIORS.register("log_normal")
class LogNormal(Hyperprior):
    """log(s) ~ N(loc, scale^2).

    Args:
        loc: the mean of log(s), any finite number; exp(loc) is the median of s.
        scale: > 0, the standard deviation of log(s).
    """

    def __init__(self, loc: float = 0.0, scale: float = 1.0) -> None:
        if not is_number(loc) or not math.isfinite(loc):
            raise ValueError(f"`loc` of the hyperprior 'log_normal' must be a finite number, but got {loc!r}.")
        self.loc = float(loc)
        self.scale = require_positive("the hyperprior 'log_normal'", "scale", scale)

    def get_config(self) -> dict[str, Any]:
        return {"loc": self.loc, "scale": self.scale}

    def distribution(self) -> tfd.Distribution:
        return tfd.LogNormal(self.loc, self.scale)

"""Prior distributions over weights."""

from tfp_bnn.priors.base import PRIORS, Prior, ScaledPrior
from tfp_bnn.priors.flat import Flat
from tfp_bnn.priors.heavy_tailed import Cauchy, Horseshoe, Laplace, StudentT
from tfp_bnn.priors.informed import Informed
from tfp_bnn.priors.normal import Normal, ScaleMixture

__all__ = [
    "PRIORS",
    "Cauchy",
    "Flat",
    "Horseshoe",
    "Informed",
    "Laplace",
    "Normal",
    "Prior",
    "ScaleMixture",
    "ScaledPrior",
    "StudentT",
]

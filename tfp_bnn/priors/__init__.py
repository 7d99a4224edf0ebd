"""Prior distributions over weights."""

from tfp_bnn.priors.base import PRIORS, Prior
from tfp_bnn.priors.flat import Flat
from tfp_bnn.priors.heavy_tailed import Cauchy, Horseshoe, Laplace, StudentT
from tfp_bnn.priors.informed import Informed
from tfp_bnn.priors.located import LocatedPrior
from tfp_bnn.priors.normal import Normal, ScaleMixture
from tfp_bnn.priors.scaled import ScaledPrior
from tfp_bnn.priors.tfp_distribution import TfpDistribution

__all__ = [
    "PRIORS",
    "Cauchy",
    "Flat",
    "Horseshoe",
    "Informed",
    "Laplace",
    "LocatedPrior",
    "Normal",
    "Prior",
    "ScaleMixture",
    "ScaledPrior",
    "StudentT",
    "TfpDistribution",
]

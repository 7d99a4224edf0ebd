"""Variational posteriors: families of distributions that approximate the posterior of a weight."""

from tfp_bnn.posteriors.base import POSTERIORS, Posterior, ScaledPosterior
from tfp_bnn.posteriors.delta import Delta
from tfp_bnn.posteriors.low_rank_normal import LowRankNormal
from tfp_bnn.posteriors.mean_field_normal import MeanFieldNormal
from tfp_bnn.posteriors.radial import Radial

__all__ = [
    "POSTERIORS",
    "Delta",
    "LowRankNormal",
    "MeanFieldNormal",
    "Posterior",
    "Radial",
    "ScaledPosterior",
]

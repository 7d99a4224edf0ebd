"""Acquisition: which examples to label next, and which arm to pull, by what a posterior does not know yet."""

from tfp_bnn.acquisition.active_learning import Round, active_learning
from tfp_bnn.acquisition.bandits import thompson
from tfp_bnn.acquisition.batch_bald import batch_bald
from tfp_bnn.acquisition.scores import bald, entropy, standard_deviation, variation_ratio
from tfp_bnn.acquisition.selection import ACQUISITIONS, select

__all__ = [
    "ACQUISITIONS",
    "Round",
    "active_learning",
    "bald",
    "batch_bald",
    "entropy",
    "select",
    "standard_deviation",
    "thompson",
    "variation_ratio",
]

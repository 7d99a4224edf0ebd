"""The evidence lower bound (ELBO), its schedules and its natural gradient."""

from tfp_bnn.variational.natural_gradient import NaturalGradient
from tfp_bnn.variational.schedules import SCHEDULES, Constant, LinearWarmup, Schedule

__all__ = ["SCHEDULES", "Constant", "LinearWarmup", "NaturalGradient", "Schedule"]

"""The evidence lower bound (ELBO) and its schedules: what a variational model maximizes."""

from tfp_bnn.variational.schedules import SCHEDULES, Constant, LinearWarmup, Schedule

__all__ = ["SCHEDULES", "Constant", "LinearWarmup", "Schedule"]

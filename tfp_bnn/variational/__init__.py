"""The evidence lower bound (ELBO), its relatives and its schedules: what a variational model maximizes."""

from tfp_bnn.variational.objectives import OBJECTIVES, Elbo, ImportanceWeighted, Objective, PacM, StepTerms
from tfp_bnn.variational.schedules import SCHEDULES, Constant, LinearWarmup, Schedule

__all__ = [
    "OBJECTIVES",
    "SCHEDULES",
    "Constant",
    "Elbo",
    "ImportanceWeighted",
    "LinearWarmup",
    "Objective",
    "PacM",
    "Schedule",
    "StepTerms",
]

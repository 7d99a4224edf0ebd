"""The evidence lower bound (ELBO), its relatives, schedules and natural gradient: how a model is trained."""

from tfp_bnn.variational.natural_gradient import NaturalGradient
from tfp_bnn.variational.objectives import OBJECTIVES, Elbo, ImportanceWeighted, Objective, PacM, StepTerms
from tfp_bnn.variational.schedules import SCHEDULES, Constant, LinearWarmup, Schedule

__all__ = [
    "OBJECTIVES",
    "SCHEDULES",
    "Constant",
    "Elbo",
    "ImportanceWeighted",
    "LinearWarmup",
    "NaturalGradient",
    "Objective",
    "PacM",
    "Schedule",
    "StepTerms",
]

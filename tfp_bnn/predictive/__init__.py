"""The posterior predictive: from draws of a function to predictions, their uncertainty and their scores."""

from tfp_bnn.predictive.agreement import agreement, compared_arrays
from tfp_bnn.predictive.calibrators import CALIBRATIONS, Calibration, Scale, Temperature
from tfp_bnn.predictive.conformal import CONFORMALS, Conformal, ConformalIntervals, ConformalSets
from tfp_bnn.predictive.joint_predictive import JointPredictive
from tfp_bnn.predictive.monte_carlo_error import standard_errors
from tfp_bnn.predictive.posterior_predictive import PosteriorPredictive
from tfp_bnn.predictive.sampling_error import sampling_errors
from tfp_bnn.predictive.scores import for_each_class, score

__all__ = [
    "CALIBRATIONS",
    "CONFORMALS",
    "Calibration",
    "Conformal",
    "ConformalIntervals",
    "ConformalSets",
    "JointPredictive",
    "PosteriorPredictive",
    "Scale",
    "Temperature",
    "agreement",
    "compared_arrays",
    "for_each_class",
    "sampling_errors",
    "score",
    "standard_errors",
]

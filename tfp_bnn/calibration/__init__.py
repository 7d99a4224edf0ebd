"""Calibration: one number, fitted to validation data, that corrects how confident predictions are.

An approximate posterior leaves the predictive overconfident or underconfident. The number that corrects this on average
belongs to the Monte Carlo predictive of one trained model, and `posterior_predictive` applies it by default.
"""

from tfp_bnn.calibration.conformalizing import conformalize
from tfp_bnn.calibration.fitting import calibrate
from tfp_bnn.predictive.calibrators import CALIBRATIONS, Calibration, Scale, Temperature
from tfp_bnn.predictive.conformal import Conformal

__all__ = ["CALIBRATIONS", "Calibration", "Conformal", "Scale", "Temperature", "calibrate", "conformalize"]

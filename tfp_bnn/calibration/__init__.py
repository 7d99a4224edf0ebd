"""Calibration: one number, fitted to validation data, that makes the predictive distribution as sure as it may be.

A posterior approximation leaves the predictive too sure of itself, or not sure enough. The number that mends this on
average belongs to the Monte Carlo predictive of one trained model; `posterior_predictive` uses it wherever it goes.
"""

from tfp_bnn.calibration.fitting import calibrate
from tfp_bnn.predictive.calibrators import CALIBRATIONS, Calibration, Scale, Temperature

__all__ = ["CALIBRATIONS", "Calibration", "Scale", "Temperature", "calibrate"]

"""Callbacks of `fit` that monitor Bayesian networks, warn about bad posteriors, and stop training in time."""

from __future__ import annotations

from tfp_bnn.callbacks.board.bayesian_tensorboard import BayesianTensorBoard
from tfp_bnn.callbacks.board.sinks import MlflowSink, Sink, WandbSink
from tfp_bnn.callbacks.calibration_early_stopping import CalibrationEarlyStopping
from tfp_bnn.callbacks.posterior_doctor import Finding, PosteriorDoctor, PosteriorWarning

__all__ = [
    "BayesianTensorBoard",
    "CalibrationEarlyStopping",
    "Finding",
    "MlflowSink",
    "PosteriorDoctor",
    "PosteriorWarning",
    "Sink",
    "WandbSink",
]

"""Scores of predictive distributions, as plain NumPy functions.

They take what a predictive distribution gives (probabilities averaged over Monte Carlo samples, means, quantiles),
never logits. Entropies and log-likelihoods are in nats.
"""

from __future__ import annotations

from tfp_bnn.metrics.classification import (
    accuracy,
    brier_score,
    expected_calibration_error,
    expected_entropy,
    mutual_information,
    nll,
    predictive_entropy,
)
from tfp_bnn.metrics.regression import interval_coverage, interval_width, mae, rmse

__all__ = [
    "accuracy",
    "brier_score",
    "expected_calibration_error",
    "expected_entropy",
    "interval_coverage",
    "interval_width",
    "mae",
    "mutual_information",
    "nll",
    "predictive_entropy",
    "rmse",
]

"""Keras metrics: what `tfp_bnn.metrics` has as functions, batch by batch, with and without samples."""

from __future__ import annotations

from tfp_bnn.metrics.keras_metrics.calibration import (
    ClasswiseCalibrationError,
    ExpectedCalibrationError,
    MaximumCalibrationError,
)
from tfp_bnn.metrics.keras_metrics.means import (
    BrierScore,
    ClassVariance,
    ExpectedEntropy,
    ExpectedErrorRate,
    MutualInformation,
    NegativeLogLikelihood,
    PredictiveEntropy,
)
from tfp_bnn.metrics.keras_metrics.ranking import (
    AreaUnderRiskCoverage,
    MisclassificationAUPR,
    MisclassificationAUROC,
    OutOfDistributionAUPR,
    OutOfDistributionAUROC,
    OutOfDistributionFPR,
    RiskAtCoverage,
)
from tfp_bnn.metrics.keras_metrics.regression import (
    ContinuousRankedProbabilityScore,
    IntervalCoverage,
    IntervalWidth,
    QuantileCalibrationError,
)

__all__ = [
    "AreaUnderRiskCoverage",
    "BrierScore",
    "ClassVariance",
    "ClasswiseCalibrationError",
    "ContinuousRankedProbabilityScore",
    "ExpectedCalibrationError",
    "ExpectedEntropy",
    "ExpectedErrorRate",
    "IntervalCoverage",
    "IntervalWidth",
    "MaximumCalibrationError",
    "MisclassificationAUPR",
    "MisclassificationAUROC",
    "MutualInformation",
    "NegativeLogLikelihood",
    "OutOfDistributionAUPR",
    "OutOfDistributionAUROC",
    "OutOfDistributionFPR",
    "PredictiveEntropy",
    "QuantileCalibrationError",
    "RiskAtCoverage",
]

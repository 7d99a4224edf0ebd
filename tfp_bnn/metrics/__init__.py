"""Scores of predictive distributions: as plain NumPy functions, and as Keras metrics.

They take what a predictive distribution provides (probabilities averaged over Monte Carlo samples, means, quantiles,
samples), never logits. Entropies and log-likelihoods are in nats. Errors and out-of-distribution inputs are the
positive class. A function takes all rows at once and is exact. A Keras metric takes one batch at a time and is a thin
wrapper around the same formula.
"""

from __future__ import annotations

from tfp_bnn.metrics.calibration import (
    ReliabilityDiagram,
    classwise_calibration_error,
    expected_calibration_error,
    maximum_calibration_error,
    reliability_diagram,
)
from tfp_bnn.metrics.classification import accuracy, brier_score, nll
from tfp_bnn.metrics.intervals import interval_coverage, interval_width, quantile_calibration_error
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
from tfp_bnn.metrics.out_of_distribution import (
    out_of_distribution_aupr,
    out_of_distribution_auroc,
    out_of_distribution_fpr,
)
from tfp_bnn.metrics.regression import (
    crps,
    mae,
    normal_crps,
    normal_nll,
    rmse,
)
from tfp_bnn.metrics.selective import (
    RiskCoverageCurve,
    area_under_risk_coverage,
    error_retention_curve,
    misclassification_aupr,
    misclassification_auroc,
    risk_at_coverage,
    risk_coverage_curve,
)
from tfp_bnn.metrics.uncertainty import (
    class_variance,
    expected_entropy,
    expected_error_rate,
    mutual_information,
    predictive_entropy,
    uncertainty_scores,
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
    "ReliabilityDiagram",
    "RiskAtCoverage",
    "RiskCoverageCurve",
    "accuracy",
    "area_under_risk_coverage",
    "brier_score",
    "class_variance",
    "classwise_calibration_error",
    "crps",
    "error_retention_curve",
    "expected_calibration_error",
    "expected_entropy",
    "expected_error_rate",
    "interval_coverage",
    "interval_width",
    "mae",
    "maximum_calibration_error",
    "misclassification_aupr",
    "misclassification_auroc",
    "mutual_information",
    "nll",
    "normal_crps",
    "normal_nll",
    "out_of_distribution_aupr",
    "out_of_distribution_auroc",
    "out_of_distribution_fpr",
    "predictive_entropy",
    "quantile_calibration_error",
    "reliability_diagram",
    "risk_at_coverage",
    "risk_coverage_curve",
    "rmse",
    "uncertainty_scores",
]

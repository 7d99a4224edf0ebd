"""Figures of predictions and their uncertainty, as matplotlib figures that need no display.

Each function returns a `matplotlib.figure.Figure`, to be written with its `savefig` or with `to_png`. None uses pyplot
or its state. The colours are those of Okabe and Ito, safe for colour-blind readers, and lines and hatches repeat what
the colours distinguish. Arguments and their error messages are those of `tfp_bnn.metrics`.
"""

from __future__ import annotations

from tfp_bnn.figures.confidence import confidence_histogram
from tfp_bnn.figures.confusion import confusion_matrix
from tfp_bnn.figures.curves import regression_curves
from tfp_bnn.figures.images import image_predictions
from tfp_bnn.figures.kl import kl_by_layer
from tfp_bnn.figures.predictions import class_predictions, number_predictions
from tfp_bnn.figures.regression import quantile_calibration, regression_predictions
from tfp_bnn.figures.reliability import reliability_diagram
from tfp_bnn.figures.risk import risk_coverage
from tfp_bnn.figures.severity import severity_curves
from tfp_bnn.figures.style import to_png
from tfp_bnn.figures.surface import decision_surface
from tfp_bnn.figures.uncertainty import uncertainty_histograms

__all__ = [
    "class_predictions",
    "confidence_histogram",
    "confusion_matrix",
    "decision_surface",
    "image_predictions",
    "kl_by_layer",
    "number_predictions",
    "quantile_calibration",
    "regression_curves",
    "regression_predictions",
    "reliability_diagram",
    "risk_coverage",
    "severity_curves",
    "to_png",
    "uncertainty_histograms",
]

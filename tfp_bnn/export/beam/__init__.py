"""Batch prediction on distributed engines, by Apache Beam: `pip install 'tfp_bnn[beam]'`."""

from tfp_bnn.export.beam.handler import PredictiveHandler
from tfp_bnn.export.beam.pipeline import BatchReport, predict_files

__all__ = ["BatchReport", "PredictiveHandler", "predict_files"]

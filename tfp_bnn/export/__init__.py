"""Export of predictions to files that other programs answer from, without this library."""

from tfp_bnn.export.mlflow_model import log_mlflow_model, save_mlflow_model
from tfp_bnn.export.portable import PORTABLE_FORMATS, export_portable, export_with_keras
from tfp_bnn.export.saved_model import export_saved_model

__all__ = [
    "PORTABLE_FORMATS",
    "export_portable",
    "export_saved_model",
    "export_with_keras",
    "log_mlflow_model",
    "save_mlflow_model",
]

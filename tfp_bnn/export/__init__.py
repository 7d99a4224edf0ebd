"""Export of predictions to files that other programs answer from, without this library."""

from tfp_bnn.export.plug_in import export_plug_in
from tfp_bnn.export.saved_model import export_saved_model

__all__ = ["export_plug_in", "export_saved_model"]

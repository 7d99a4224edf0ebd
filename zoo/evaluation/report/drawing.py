"""Converts figures into parts of a report."""

from __future__ import annotations

from matplotlib.figure import Figure

from tfp_bnn.figures import to_png
from zoo.evaluation.report.page import Image

_DPI = 120


def image(file: str, figure: Figure, alt: str, caption: str) -> Image:
    """Converts a figure to an image for the page and for a separate file."""
    return Image(file, to_png(figure, _DPI), alt, caption)

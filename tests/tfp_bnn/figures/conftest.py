"""Checks that every figure must pass."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def check_figure() -> Callable[..., np.ndarray]:
    """A function that draws a figure at 100 dpi and returns its pixels; every panel must have labels."""
    from tfp_bnn.figures import to_png

    def check(figure: Any, size: tuple[float, float] | None = (5.0, 4.0)) -> np.ndarray:
        if size is not None:
            assert tuple(figure.get_size_inches()) == size
        for panel in figure.axes:
            shares_x = panel.get_shared_x_axes().get_siblings(panel)
            shares_y = panel.get_shared_y_axes().get_siblings(panel)
            assert any(other.get_xlabel() for other in shares_x) or panel.get_label() == "<colorbar>"
            assert any(other.get_ylabel() for other in shares_y)
        with Image.open(io.BytesIO(to_png(figure))) as image:
            assert image.format == "PNG"
            width, height = figure.get_size_inches()
            assert abs(image.width - 100 * width) <= 1
            assert abs(image.height - 100 * height) <= 1
            pixels = np.asarray(image.convert("RGB"))
        # Something of it is neither white, nor grey, nor black.
        assert np.ptp(pixels, axis=-1).max() > 50
        return pixels

    return check


@pytest.fixture
def legend_of() -> Callable[[Any], list[str]]:
    """A function that gives the texts of all legends of a figure."""

    def texts(figure: Any) -> list[str]:
        legends = [*figure.legends, *(panel.get_legend() for panel in figure.axes if panel.get_legend())]
        return [text.get_text() for legend in legends for text in legend.get_texts()]

    return texts

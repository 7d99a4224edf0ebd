"""Figures of predictions and their uncertainty, as matplotlib figures that need no display."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

# Okabe and Ito's colours, which the colour-blind can tell apart.
_BLUE, _ORANGE = "#0072B2", "#D55E00"


def image_predictions(
    images: np.ndarray, sample_probabilities: np.ndarray, titles: Sequence[str], class_names: Sequence[str]
) -> Figure:
    """Images beside their class probabilities: bars for the mean, whiskers for the spread over the weight draws.

    Args:
        images: `(n, rows, columns, channels)` with 1 or 3 channels, any range.
        sample_probabilities: `(S, n, classes)`, the probabilities under each draw of the weights.
        titles: one for each image.
        class_names: one for each class.

    Returns:
        A figure with a pair of panels for each image; the whiskers are the central 90 % of the draws.

    Raises:
        ValueError: when the arrays do not belong together.
    """
    count, classes = len(images), len(class_names)
    if sample_probabilities.shape[1:] != (count, classes) or len(titles) != count or count == 0:
        raise ValueError(
            f"Expected probabilities of shape (S, {count}, {classes}) and {count} titles for {count} images and "
            f"{classes} classes, but got {sample_probabilities.shape} and {len(titles)}. Select the same rows "
            "everywhere, at least one."
        )
    across = min(count, 4)
    down = -(-count // across)
    figure = Figure(figsize=(3.4 * across, 1.9 * down), layout="constrained")
    panels = figure.subplots(down, 2 * across, squeeze=False, width_ratios=[1, 1.3] * across)
    for panel in panels.flat:
        panel.set_axis_off()
    for index, (image, title) in enumerate(zip(images, titles, strict=True)):
        row, column = divmod(index, across)
        picture, bars = panels[row, 2 * column], panels[row, 2 * column + 1]
        picture.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray_r")
        picture.set_title(title, fontsize=8)
        _draw_probabilities(bars, sample_probabilities[:, index], class_names, last_row=row == down - 1)
    return figure


def _draw_probabilities(panel: Any, samples: np.ndarray, class_names: Sequence[str], last_row: bool) -> None:
    mean = samples.mean(axis=0)
    low, high = np.quantile(samples, [0.05, 0.95], axis=0)
    positions = np.arange(len(class_names))
    panel.set_axis_on()
    panel.barh(positions, mean, color=_BLUE)
    panel.hlines(positions, low, high, color=_ORANGE, linewidth=1.5)
    panel.set_yticks(positions, class_names, fontsize=6)
    panel.set_xlim(0, 1)
    panel.invert_yaxis()
    panel.tick_params(axis="x", labelsize=6)
    panel.spines[["top", "right"]].set_visible(False)
    if last_row:
        panel.set_xlabel("probability (90 % of draws)", fontsize=7)

"""Images with their predictions."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from tfp_bnn.figures.style import new_figure, plain, probability_bars

# Characters that are as wide as an image.
_LINE = 18


def image_predictions(
    images: npt.NDArray[Any],
    sample_probabilities: npt.NDArray[Any],
    titles: Sequence[str],
    class_names: Sequence[str],
    columns: int = 4,
    labels: npt.NDArray[Any] | None = None,
) -> Figure:
    """Draws images next to their class probabilities: bars for the mean, whiskers for the spread over weight draws.

    Args:
        images: Images of shape `(n, rows, columns, channels)` with 1 or 3 channels. With 1 channel any range is
            stretched from white to black. With 3 channels integers run from 0 to 255 and floating-point numbers from 0
            to 1, and any other range is rescaled to that.
        sample_probabilities: Probabilities under each draw of the weights, of shape `(S, n, classes)`.
        titles: One title per image.
        class_names: One name per class.
        columns: Number of images in a row. Default: 4.
        labels: True classes, integers of shape `(n,)`, whose bars and names stand out. Default: not marked.

    Returns:
        A figure with a pair of panels per image. The whiskers are the central 90 % of the draws.

    Raises:
        ValueError: If the arrays are inconsistent.
    """
    count, classes = len(images), len(class_names)
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(
            f"Expected images of shape (n, rows, columns, channels) with 1 or 3 channels, but got {images.shape}."
        )
    if sample_probabilities.shape[1:] != (count, classes) or len(titles) != count or count == 0:
        raise ValueError(
            f"Expected probabilities of shape (S, {count}, {classes}) and {count} titles for {count} images and "
            f"{classes} classes, but got {sample_probabilities.shape} and {len(titles)}. Select the same rows "
            "everywhere, at least one."
        )
    if labels is not None and (np.shape(labels) != (count,) or not np.isin(labels, np.arange(classes)).all()):
        raise ValueError(f"Expected {count} labels from 0 to {classes - 1}, but got {labels!r}.")
    if columns < 1:
        raise ValueError(f"`columns` must be at least 1, but got {columns!r}.")
    across = min(count, columns)
    down = -(-count // across)
    figure = new_figure(3.4 * across, 2.0 * down)
    panels = figure.subplots(down, 2 * across, squeeze=False, width_ratios=[1, 1.3] * across)
    for panel in panels.flat:
        panel.set_axis_off()
    for index, (image, title) in enumerate(zip(images, titles, strict=True)):
        row, column = divmod(index, across)
        picture, bars = panels[row, 2 * column], panels[row, 2 * column + 1]
        picture.imshow(_for_display(image), cmap="gray_r")
        lines = textwrap.fill(plain(title, longest=2 * _LINE - 1), _LINE)
        picture.set_title(lines, fontsize=8, loc="left")
        bars.set_axis_on()
        label = None if labels is None else int(labels[index])
        probability_bars(bars, sample_probabilities[:, index], class_names, size=7, label=label)
        # Below the lowest image of its column.
        if index + across >= count:
            bars.set_xlabel("probability (90 % of draws)", fontsize=7)
    return figure


def _for_display(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if image.shape[-1] == 1:
        return image.squeeze(-1)
    if image.dtype == np.uint8 or (image.min() >= 0 and image.max() <= (255 if image.dtype.kind in "iu" else 1)):
        return image
    low, high = float(image.min()), float(image.max())
    return (image - low) / ((high - low) or 1.0)

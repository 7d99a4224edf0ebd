"""Which classes are taken for which."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from tfp_bnn import metrics
from tfp_bnn.figures.style import new_figure, plain

# Beyond it, numbers would not be legible.
_MOST_NUMBERS = 20
# Cells of so few are large.
_FEW_CLASSES = 6


def confusion_matrix(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, class_names: Sequence[str] | None = None
) -> Figure:
    """Draws how many examples of each class were given to each class.

    A row has the examples of one class and sums to their number; the colour is the share of the row. The numbers are
    written up to 20 classes.

    Args:
        labels: Integer labels of shape `(n,)`, or one-hot rows `(n, classes)`.
        probabilities: Predictive probabilities of shape `(n, classes)`.
        class_names: One name per class. Default: their numbers.

    Returns:
        A figure with one panel, whose title has the accuracy.

    Raises:
        ValueError: If shapes are inconsistent, a label is out of range, or there are no examples.

    Example:
        >>> from tfp_bnn.figures import confusion_matrix
        >>> confusion_matrix([0, 1, 1], [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]).axes[0].get_title()
        '2 of 3 examples are right (66.7 %)'
    """
    accuracy = metrics.accuracy(labels, probabilities)
    p, truth = metrics.validation.labelled(labels, probabilities)
    classes = p.shape[-1]
    names = [str(index) for index in range(classes)] if class_names is None else list(class_names)
    if len(names) != classes:
        raise ValueError(f"`class_names` must hold {classes} names, one for each class, but got {len(names)}.")
    counts = np.bincount(classes * truth + p.argmax(axis=-1), minlength=classes**2).reshape(classes, classes)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(8.0, 2.6 + 0.3 * classes)
    figure = new_figure(max(5.0, side + 0.6), max(4.0, side))
    panel = figure.subplots()
    panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    shown = np.arange(0, classes, 1 + (classes - 1) // 40)
    texts = [plain(names[index], longest=14) for index in shown]
    upright = max(map(len, texts)) > 2
    panel.set_xticks(shown, texts, fontsize=9, rotation=90 if upright and classes > 4 else 0)
    panel.set_yticks(shown, texts, fontsize=9)
    panel.set_xlabel("predicted class")
    panel.set_ylabel("true class")
    right = int(np.trace(counts))
    panel.set_title(f"{right:,} of {len(truth):,} examples are right ({100 * accuracy:.1f} %)", wrap=True)
    if classes <= _MOST_NUMBERS:
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "white" if shares[row, column] > 0.5 else "black"
            size = 8 if classes > _FEW_CLASSES else 12
            panel.text(column, row, f"{counts[row, column]}", ha="center", va="center", fontsize=size, color=colour)
    return figure

"""The confidence histogram."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from tfp_bnn.figures.style import BLACK, BLUE, VERMILION, filled, legend_below, logarithmic, new_figure, tidy
from tfp_bnn.metrics.validation import labelled

_NUM_BINS = 20


def confidence_histogram(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> Figure:
    """Draws histograms of the confidence of correct and of wrong predictions.

    Counts are on a logarithmic axis, because a good model makes few errors. Two vertical lines mark the accuracy and
    the mean confidence. If they are apart, the model is overconfident or underconfident on average.

    Args:
        labels: Integers of shape `(n,)` or one-hot of shape `(n, classes)`.
        probabilities: Probabilities of shape `(n, classes)`, averaged over Monte Carlo samples.

    Returns:
        A figure with one panel. Its 20 bins run from 1 / classes, the lowest possible confidence, to 1.

    Raises:
        ValueError: If labels or probabilities are invalid or inconsistent.

    Example:
        >>> from tfp_bnn.figures import confidence_histogram
        >>> confidence_histogram([0, 1], [[0.9, 0.1], [0.6, 0.4]]).axes[0].get_ylabel()
        'examples (log scale)'

    References:
        C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, On calibration of modern neural networks, ICML 2017.
        https://arxiv.org/abs/1706.04599
    """
    p, y = labelled(labels, probabilities)
    confidence, right = p.max(axis=1).astype(np.float64), p.argmax(axis=1) == y
    edges = np.linspace(1.0 / p.shape[1], 1.0, _NUM_BINS + 1)
    # Rounding may put a float32 probability just outside.
    inside = np.clip(confidence, edges[0], edges[-1])
    figure = new_figure()
    panel = figure.subplots()
    highest = 10
    for name, rows, colour, hatch in (("right", right, BLUE, None), ("wrong", ~right, VERMILION, "///")):
        counts, _ = np.histogram(inside[rows], edges)
        highest = max(highest, counts.max())
        label = f"{name}: {np.count_nonzero(rows):,}"
        panel.stairs(counts, edges, label=label, **filled(colour, hatch))
    accuracy, mean = float(right.mean()), float(confidence.mean())
    panel.axvline(accuracy, color=BLACK, linewidth=1.2, label=f"accuracy {accuracy:.4f}")
    panel.axvline(mean, color=BLACK, linewidth=1.2, linestyle="--", label=f"mean confidence {mean:.4f}")
    logarithmic(panel, 1, highest)
    panel.set_title(f"Confidence of {len(y):,} predictions")
    panel.set_xlabel("confidence (probability of the predicted class)")
    panel.set_ylabel("examples (log scale)")
    legend_below(figure, panel)
    tidy(panel)
    return figure

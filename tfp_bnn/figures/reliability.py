"""The reliability diagram."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.stats
from matplotlib.figure import Figure

from tfp_bnn import metrics
from tfp_bnn.figures.style import BLUE, GREY, SKY, legend_below, logarithmic, new_figure, tidy


def reliability_diagram(labels: npt.ArrayLike, probabilities: npt.ArrayLike, num_bins: int = 15) -> Figure:
    """Draws accuracy against confidence: on the diagonal, predictions made with 80 % are correct in 80 % of cases.

    The upper panel has a point for each non-empty bin of equal width, with the central 90 % interval of its accuracy
    (Jeffreys), which mostly contains the confidence of a calibrated model. The lower panel counts the examples. The
    title gives the expected calibration error over the same bins.

    Args:
        labels: Integers of shape `(n,)` or one-hot of shape `(n, classes)`.
        probabilities: Probabilities of shape `(n, classes)`, averaged over Monte Carlo samples.
        num_bins: Number of bins, at least 1. Default: 15.

    Returns:
        A figure with two panels.

    Raises:
        ValueError: If labels or probabilities are invalid or inconsistent, or no bins.

    Example:
        >>> from tfp_bnn.figures import reliability_diagram
        >>> reliability_diagram([0, 1], [[0.9, 0.1], [0.6, 0.4]]).axes[0].get_title()
        'Reliability of 2 examples: ECE 0.3500'

    References:
        C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, On calibration of modern neural networks, ICML 2017.
        https://arxiv.org/abs/1706.04599
        L. D. Brown, T. T. Cai, A. DasGupta, Interval estimation for a binomial proportion, Statistical Science 16,
        2001. https://doi.org/10.1214/ss/1009213286
    """
    data = metrics.reliability_diagram(labels, probabilities, num_bins)
    error = metrics.expected_calibration_error(labels, probabilities, num_bins)
    figure = new_figure()
    panel, counts = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    filled = data.counts > 0
    low, high = _intervals(data.counts[filled], data.accuracy[filled])
    panel.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="perfectly calibrated")
    # Above the intervals, but before them in the legend.
    panel.plot(data.confidence[filled], data.accuracy[filled], "o", color=BLUE, zorder=3, label="accuracy in a bin")
    panel.vlines(data.confidence[filled], low, high, color=SKY, linewidth=3, label="its 90 % interval")
    panel.set_title(f"Reliability of {data.counts.sum():,} examples: ECE {error:.4f}")
    panel.set_ylabel("accuracy (share right)")
    panel.set_xlim(0, 1.02)
    panel.set_ylim(-0.03, 1.04)
    tidy(panel)
    _draw_counts(counts, data.edges, data.counts)
    legend_below(figure, panel)
    return figure


def _intervals(
    counts: npt.NDArray[np.int64], accuracy: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Central 90 % of Beta(right + 1/2, wrong + 1/2), but from 0 if none is right and to 1 if all are."""
    right = np.rint(accuracy * counts)
    low, high = scipy.stats.beta.ppf([[0.05], [0.95]], right + 0.5, counts - right + 0.5)
    return np.where(right == 0, 0.0, low), np.where(right == counts, 1.0, high)


def _draw_counts(panel: Any, edges: npt.NDArray[np.float64], counts: npt.NDArray[np.int64]) -> None:
    filled = counts > 0
    panel.bar(edges[:-1][filled], counts[filled], np.diff(edges)[filled], align="edge", color=BLUE, edgecolor="white")
    logarithmic(panel, 1, max(counts.max(), 10))
    panel.set_xlabel("confidence (probability of the predicted class)")
    panel.set_ylabel("rows (log)")
    tidy(panel)

"""Predicted against true targets, and the calibration of quantiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from tfp_bnn import metrics
from tfp_bnn.figures.style import BLUE, GREY, SKY, VERMILION, new_figure, plain, tidy

_MOST_INTERVALS = 200


def regression_predictions(
    targets: npt.ArrayLike,
    means: npt.ArrayLike,
    lower: npt.ArrayLike,
    upper: npt.ArrayLike,
    level: float = 0.9,
    names: Sequence[str] | None = None,
) -> Figure:
    """Draws predictive means against targets, with their intervals.

    An interval that crosses the diagonal contains its target. With more than 200 rows, all means are drawn, but only
    200 intervals, evenly spread over the sorted targets.

    Args:
        targets: Targets of shape `(n,)` or `(n, outputs)`.
        means: Predictive means, of the same shape.
        lower: Lower ends of the central intervals, of the same shape.
        upper: Upper ends of the central intervals, of the same shape.
        level: Share of the targets that the intervals should contain, in (0, 1]. Default: 0.9.
        names: Names of the outputs, with their units. Default: `target`, or `target 0` and so on.

    Returns:
        A figure with one panel per output, whose title gives the share of targets in their intervals.

    Raises:
        ValueError: If shapes differ, there are no values, a value is NaN, a lower end exceeds the upper one, or `level`
            is out of range.

    Example:
        >>> from tfp_bnn.figures import regression_predictions
        >>> figure = regression_predictions([1.0, 2.0], [1.2, 2.6], [0.8, 2.2], [1.6, 3.0])
        >>> figure.axes[0].get_title()
        '50.0 % of 2 targets in their 90 % intervals'
    """
    level = metrics.validation.share("level", level)
    metrics.rmse(targets, means)
    metrics.interval_coverage(targets, lower, upper)
    y, mean, low, high = (
        np.asarray(array, np.float64).reshape(len(np.asarray(array)), -1) for array in (targets, means, lower, upper)
    )
    outputs = y.shape[1]
    if names is not None and len(names) != outputs:
        raise ValueError(f"`names` must hold {outputs} names, one for each output, but got {list(names)!r}.")
    if names is None:
        names = ["target"] if outputs == 1 else [f"target {index}" for index in range(outputs)]
    across = min(outputs, 3)
    down = -(-outputs // across)
    figure = new_figure(5.0 * across, 4.0 * down)
    panels = figure.subplots(down, across, squeeze=False)
    for panel in panels.flat[outputs:]:
        panel.set_axis_off()
    for index, panel in enumerate(panels.flat[:outputs]):
        _draw_output(panel, y[:, index], mean[:, index], low[:, index], high[:, index], level, plain(names[index]))
    return figure


def quantile_calibration(
    targets: npt.ArrayLike, quantiles: npt.ArrayLike, levels: Sequence[float] | npt.NDArray[np.floating]
) -> Figure:
    """Draws the share of targets below each predictive quantile, and in each central interval, against its level.

    On the diagonal, 80 % of the targets lie below the quantile of level 0.8. A curve above the diagonal on the left and
    below it on the right means that the predictions are too narrow. The coverage of central intervals is drawn too if
    `levels` are symmetric around 0.5. Below the diagonal, the intervals are too narrow.

    Args:
        targets: Targets of shape `(n,)` or `(n, outputs)`.
        quantiles: Quantiles of shape `(levels, n)` or `(levels, n, outputs)`, as from `predictive.quantiles(levels)`.
        levels: Levels of the quantiles, ascending, in (0, 1).

    Returns:
        A figure with one panel over all entries of the targets. Its title gives the calibration error of the quantiles.

    Raises:
        ValueError: If shapes are inconsistent, there are no values, a value is NaN, or levels are out of range or not
            ascending.

    Example:
        >>> from tfp_bnn.figures import quantile_calibration
        >>> quantile_calibration([1.0, 2.0], [[0.0, 0.0], [1.5, 1.5]], [0.1, 0.9]).axes[0].get_title()
        'Quantiles of 2 targets: calibration error 0.2500'

    References:
        V. Kuleshov, N. Fenner, S. Ermon, Accurate uncertainties for deep learning using calibrated regression, ICML
        2018. https://arxiv.org/abs/1807.00263
    """
    error = metrics.quantile_calibration_error(targets, quantiles, levels)
    y, q, nominal = (np.asarray(array, np.float64) for array in (targets, quantiles, levels))
    if (np.diff(nominal) <= 0).any():
        raise ValueError(f"`levels` must ascend, but got {list(levels)!r}.")
    below = (y <= q).reshape(len(q), -1).mean(axis=1)
    figure = new_figure()
    panel = figure.subplots()
    panel.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="perfectly calibrated")
    panel.plot(nominal, below, "o-", color=BLUE, linewidth=1.5, markersize=4, label="targets below the quantile")
    pairs = len(nominal) // 2
    if pairs and np.allclose(nominal[:pairs] + nominal[::-1][:pairs], 1.0):
        inside = (q[:pairs] <= y) & (y <= q[::-1][:pairs])
        coverage = inside.reshape(pairs, -1).mean(axis=1)
        widths = nominal[::-1][:pairs] - nominal[:pairs]
        panel.plot(
            widths, coverage, "s-.", color=VERMILION, linewidth=1.5, markersize=4, label="targets in the interval"
        )
    panel.set_title(f"Quantiles of {y.size:,} targets: calibration error {error:.4f}")
    panel.set_xlabel("nominal level (probability)")
    panel.set_ylabel("share of targets")
    panel.set_xlim(0, 1)
    panel.set_ylim(0, 1.02)
    panel.legend(loc="best", frameon=False)
    tidy(panel)
    return figure


def _draw_output(
    panel: Any,
    targets: npt.NDArray[np.float64],
    means: npt.NDArray[np.float64],
    low: npt.NDArray[np.float64],
    high: npt.NDArray[np.float64],
    level: float,
    name: str,
) -> None:
    count = len(targets)
    rows = np.argsort(targets, kind="stable")
    if count > _MOST_INTERVALS:
        rows = rows[np.linspace(0, count - 1, _MOST_INTERVALS).round().astype(int)]
    percent = f"{100 * level:.3g} %"
    some = "" if len(rows) == count else f" ({len(rows)} of {count:,})"
    panel.vlines(targets[rows], low[rows], high[rows], color=SKY, linewidth=1.2, label=f"{percent} interval{some}")
    panel.plot(targets, means, "o", color=BLUE, markersize=3, label="predictive mean")
    ends = [min(targets.min(), means.min()), max(targets.max(), means.max())]
    panel.plot(ends, ends, color=GREY, linestyle="--", label="prediction = target")
    coverage = metrics.interval_coverage(targets, low, high)
    panel.set_title(f"{100 * coverage:.1f} % of {count:,} targets in their {percent} intervals")
    panel.set_xlabel(f"{name}, true")
    panel.set_ylabel(f"{name}, predicted")
    # Room for the legend above the data.
    bottom, top = panel.get_ylim()
    panel.set_ylim(bottom, top + 0.25 * (top - bottom))
    panel.legend(loc="upper left", frameon=False)
    tidy(panel)

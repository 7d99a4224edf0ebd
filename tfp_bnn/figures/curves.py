"""Predictive distributions of a number over one input, for one or several models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from tfp_bnn.figures.style import BLACK, BLUE, SKY, new_figure, plain, tidy

_DEVIATIONS = 2.0


def regression_curves(
    x: npt.ArrayLike,
    predictions: Mapping[str, Sequence[npt.ArrayLike]],
    data: tuple[npt.ArrayLike, npt.ArrayLike],
    axis_names: Sequence[str] = ("x", "y"),
    columns: int = 4,
) -> Figure:
    """Draws the predictive mean of one target over one input, one panel for each model.

    The dark band is 2 standard deviations of the mean over the weights, the epistemic uncertainty, on either side of
    the mean. The pale band is that of the target, with the noise. Panels share their axes, which show all data and the
    bands of the first model at least; a band that is wider is cut off.

    Args:
        x: Inputs of shape `(m,)`, ascending.
        predictions: For each model by name: the arrays of its predictive `mean()`, `epistemic()` and `aleatoric()`,
            of shape `(m,)` or `(m, 1)`. The last two are variances.
        data: Inputs and targets of the training data, `(n,)` each.
        axis_names: Names of input and target, with their units if they have any.
        columns: Number of panels in a row.

    Returns:
        A figure with one panel per model.

    Raises:
        ValueError: If there are no predictions, an array has another shape or is not finite, or a variance is negative.

    Example:
        >>> from tfp_bnn.figures import regression_curves
        >>> figure = regression_curves([0, 1], {"line": ([0, 1], [0, 0.1], [0.2, 0.2])}, ([0.5], [0.4]))
        >>> figure.axes[0].get_title()
        'line'
    """
    if not predictions:
        raise ValueError("`predictions` is empty; expected the arrays of at least one model by its name.")
    if columns < 1:
        raise ValueError(f"`columns` must be at least 1, but got {columns!r}.")
    inputs = _column("x", x, np.size(x))
    arrays = {
        name: tuple(_column(f"predictions[{name!r}]", array, inputs.size) for array in of_model)
        for name, of_model in predictions.items()
    }
    for name, of_model in arrays.items():
        if len(of_model) != 3 or min(of_model[1].min(), of_model[2].min()) < 0:
            raise ValueError(
                f"`predictions[{name!r}]` must be three arrays, mean, epistemic and aleatoric variance, and variances "
                f"must not be negative; got {len(of_model)} arrays."
            )
    points = tuple(_column("data", array, np.size(data[0])) for array in data)
    across = min(columns, len(arrays))
    down = -(-len(arrays) // across)
    figure = new_figure(2.7 * across + 0.3, 2.3 * down + 0.5)
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    for panel in panels.flat[len(arrays) :]:
        panel.set_axis_off()
    for panel, (name, of_model) in zip(panels.flat, arrays.items(), strict=False):
        mean, epistemic, aleatoric = of_model
        _draw_model(panel, inputs, mean, epistemic, aleatoric, points)
        panel.set_title(plain(name), fontsize=10)
    for panel in panels[-1]:
        panel.set_xlabel(plain(axis_names[0]))
    for panel in panels[:, 0]:
        panel.set_ylabel(plain(axis_names[1]))
    mean, epistemic, aleatoric = next(iter(arrays.values()))
    reach = _DEVIATIONS * np.sqrt(epistemic + aleatoric)
    lowest, highest = min((mean - reach).min(), points[1].min()), max((mean + reach).max(), points[1].max())
    margin = 0.05 * ((highest - lowest) or 1.0)
    panels[0, 0].set_ylim(lowest - margin, highest + margin)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def _draw_model(
    panel: Any,
    x: npt.NDArray[np.float64],
    mean: npt.NDArray[np.float64],
    epistemic: npt.NDArray[np.float64],
    aleatoric: npt.NDArray[np.float64],
    points: tuple[npt.NDArray[np.float64], ...],
) -> None:
    for variance, alpha, label in (
        (epistemic + aleatoric, 0.3, "target: 2 standard deviations"),
        (epistemic, 0.7, "mean: 2 standard deviations (epistemic)"),
    ):
        reach = _DEVIATIONS * np.sqrt(variance)
        panel.fill_between(x, mean - reach, mean + reach, color=SKY, alpha=alpha, linewidth=0, label=label)
    panel.plot(x, mean, color=BLUE, linewidth=1.5, label="predictive mean")
    panel.plot(*points, ".", color=BLACK, markersize=3, label="data")
    tidy(panel)


def _column(name: str, array: npt.ArrayLike, size: int) -> npt.NDArray[np.float64]:
    values = np.asarray(array, np.float64)
    if values.shape not in ((size,), (size, 1)) or size == 0 or not np.isfinite(values).all():
        raise ValueError(
            f"`{name}` must hold {size} finite numbers, at least one, but got an array of shape {values.shape}."
        )
    return values.reshape(-1)

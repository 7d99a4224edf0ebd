"""A few predictions with their uncertainty, one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from tfp_bnn.core.arguments import require_integer
from tfp_bnn.figures.style import BLACK, BLUE, VERMILION, new_figure, plain, probability_bars, tidy

_MOST_CLASSES = 10


def class_predictions(
    sample_probabilities: npt.NDArray[Any],
    titles: Sequence[str],
    class_names: Sequence[str],
    columns: int = 4,
    level: float = 0.9,
) -> Figure:
    """Draws the class probabilities of a few inputs: bars for the mean, whiskers for the spread over weight draws.

    Args:
        sample_probabilities: Probabilities under each draw of the weights, of shape `(S, n, classes)`.
        titles: One title per input.
        class_names: One name per class.
        columns: Number of panels in a row. Default: 4.
        level: Share of the draws in the whiskers, in [0, 1]. Default: 0.9.

    Returns:
        A figure with a panel per input. Of more than 10 classes, each panel has the 10 most probable.

    Raises:
        ValueError: If the arrays are inconsistent or empty, or `columns` is below 1.

    Example:
        >>> import numpy as np
        >>> from tfp_bnn.figures import class_predictions
        >>> figure = class_predictions(np.array([[[0.2, 0.8]], [[0.4, 0.6]]]), ["input 0"], ["no", "yes"])
        >>> figure.axes[0].get_title()
        'input 0'
    """
    count, classes = len(titles), len(class_names)
    if sample_probabilities.ndim != 3 or sample_probabilities.shape[1:] != (count, classes) or not count:
        raise ValueError(
            f"Expected probabilities of shape (S, {count}, {classes}) for {count} titles and {classes} class names, at "
            f"least one, but got {sample_probabilities.shape}."
        )
    require_integer("columns", columns, 1)
    across = min(count, columns)
    down = -(-count // across)
    shown = min(classes, _MOST_CLASSES)
    figure = new_figure(2.4 * across, (0.75 + 0.19 * shown) * down)
    panels = figure.subplots(down, across, squeeze=False, sharex=True)
    for panel in panels.flat[count:]:
        panel.set_axis_off()
    for index, (panel, title) in enumerate(zip(panels.flat, titles, strict=False)):
        samples = sample_probabilities[:, index]
        best = np.sort(np.argsort(-samples.mean(axis=0), kind="stable")[:shown])
        probability_bars(panel, samples[:, best], [class_names[k] for k in best], level)
        panel.set_title(plain(title, longest=28), fontsize=9)
    figure.supxlabel(f"probability ({100 * level:g} % of draws)", fontsize=9)
    return figure


def number_predictions(
    means: npt.ArrayLike,
    lower: npt.ArrayLike,
    upper: npt.ArrayLike,
    targets: npt.ArrayLike | None = None,
    level: float = 0.9,
    names: Sequence[str] | None = None,
) -> Figure:
    """Draws predictive means with their intervals, input by input.

    Args:
        means: Predictive means of shape `(n, targets)`.
        lower: Lower ends of the central intervals, of the same shape.
        upper: Upper ends of the central intervals, of the same shape.
        targets: True targets, drawn as crosses, of the same shape; None if they are not known.
        level: Probability of the intervals. Default: 0.9.
        names: Names of the targets, with their units. Default: `target`, or `target 0` and so on.

    Returns:
        A figure with one panel per target, one below the other.

    Raises:
        ValueError: If shapes differ, or there are no values.

    Example:
        >>> from tfp_bnn.figures import number_predictions
        >>> number_predictions([[1.0], [2.0]], [[0.5], [1.0]], [[1.5], [3.0]]).axes[0].get_xlabel()
        'input'
    """
    mean, low, high = (np.asarray(array, np.float64) for array in (means, lower, upper))
    truth = None if targets is None else np.asarray(targets, np.float64).reshape(len(mean), -1)
    shapes = [array.shape for array in (mean, low, high, *(() if truth is None else (truth,)))]
    if mean.ndim != 2 or mean.size == 0 or len(set(shapes)) != 1:
        raise ValueError(f"Expected arrays of one shape (n, targets), n > 0, but got {shapes}.")
    count, outputs = mean.shape
    if names is not None and len(names) != outputs:
        raise ValueError(f"`names` must hold {outputs} names, one for each target, but got {list(names)!r}.")
    if names is None:
        names = ["target"] if outputs == 1 else [f"target {index}" for index in range(outputs)]
    figure = new_figure(min(8.0, 3.5 + 0.12 * count), 2.8 * outputs)
    rows = np.arange(count)
    for index, panel in enumerate(figure.subplots(outputs, 1, squeeze=False).flat):
        panel.vlines(rows, low[:, index], high[:, index], color=VERMILION, linewidth=1.5, label=f"{100 * level:g} %")
        panel.plot(rows, mean[:, index], "o", color=BLUE, markersize=4, label="mean")
        if truth is not None:
            panel.plot(rows, truth[:, index], "x", color=BLACK, markersize=5, label="target")
        panel.set_ylabel(plain(names[index]))
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.set_xlabel("input")
        panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)
        tidy(panel)
    return figure

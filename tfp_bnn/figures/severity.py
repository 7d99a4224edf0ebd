"""Scores against the severity of a change of the inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from tfp_bnn.figures.style import BLUE, GREY, VERMILION, new_figure, plain, tidy


def severity_curves(scores: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Draws scores against the severity of several changes of the inputs, such as corruptions of images.

    Args:
        scores: For each score by its label: for each change by its name, the values at severities 0, 1, 2, ..., where 0
            is without a change.

    Returns:
        A figure with a panel for each score: a thin line for each change, their mean, and the one that is furthest from
        severity 0 at the end, with its name in the legend.

    Raises:
        ValueError: If there are no scores or no changes, or the changes of a score differ in their number of
            severities.

    Example:
        >>> from tfp_bnn.figures import severity_curves
        >>> figure = severity_curves({"accuracy": {"fog": [0.9, 0.8], "noise": [0.9, 0.5]}})
        >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        ['mean of 2', 'noise']

    References:
        Y. Ovadia et al., Can you trust your model's uncertainty? Evaluating predictive uncertainty under dataset
        shift, NeurIPS 2019. https://arxiv.org/abs/1906.02530
    """
    if not scores:
        raise ValueError("`scores` is empty; expected at least one score by its label.")
    for label, changes in scores.items():
        lengths = sorted({len(values) for values in changes.values()})
        if len(lengths) != 1 or lengths[0] == 0:
            raise ValueError(
                f"`scores[{label!r}]` has {len(changes)} changes with {lengths} severities; expected at least one "
                "change, and the same number of severities, at least one, for each."
            )
    figure = new_figure(3.4 * len(scores), 3.4)
    for panel, (label, changes) in zip(figure.subplots(1, len(scores), squeeze=False)[0], scores.items(), strict=True):
        values = np.array(list(changes.values()), float)
        severities = np.arange(values.shape[1])
        moved = np.abs(values[:, -1] - values[:, 0])
        # A score that could not be computed did not move furthest.
        worst = int(np.argmax(np.where(np.isnan(moved), -1.0, moved)))
        panel.plot(severities, values.T, color=GREY, linewidth=0.8, alpha=0.7)
        panel.plot(severities, values.mean(axis=0), "o-", color=BLUE, linewidth=2, label=f"mean of {len(values)}")
        panel.plot(severities, values[worst], "--", color=VERMILION, linewidth=1.5, label=plain(list(changes)[worst]))
        panel.set_xlabel("severity")
        panel.set_ylabel(plain(label))
        panel.set_xticks(severities)
        panel.legend(frameon=False, fontsize=9)
        tidy(panel)
    return figure

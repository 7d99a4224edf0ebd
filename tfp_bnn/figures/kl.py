"""The KL of each layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import SupportsFloat

import numpy as np
from matplotlib.figure import Figure

from tfp_bnn.figures.style import BLUE, GREY, new_figure, plain, tidy

# Inches. Beyond it, bars become thinner.
_TALLEST = 30.0
# Names beside the bars leave room for them.
_LONGEST = 28
# Share of the longest bar.
_ROOM_PER_CHARACTER = 0.036


def kl_by_layer(terms: Mapping[str, SupportsFloat]) -> Figure:
    """Draws the KL of the posterior of each layer to its prior, with one bar per term.

    A layer near 0 nats has learned nothing beyond its prior: its posterior has collapsed.

    Args:
        terms: KL in nats by name, such as `model.kl_by_layer()`, in the order of the bars from the top.

    Returns:
        A figure with one panel, taller for many terms, with the total in the title.

    Raises:
        ValueError: If there are no terms, or one is not finite.

    Example:
        >>> from tfp_bnn.figures import kl_by_layer
        >>> kl_by_layer({"conv1": 120.0, "logits": 30.5}).axes[0].get_title()
        'KL(posterior || prior): 150.5 nats in all'
    """
    if not terms:
        raise ValueError("`terms` is empty; expected the KL of at least one layer, in nats, by its name.")
    values = np.array([float(value) for value in terms.values()])
    if not np.isfinite(values).all():
        wrong = [name for name, value in zip(terms, values, strict=True) if not np.isfinite(value)]
        raise ValueError(f"`terms` must be finite, but the KL is not for {', '.join(map(repr, wrong))}.")
    figure = new_figure(height=min(max(2.5, 1.2 + 0.3 * len(values)), _TALLEST))
    panel = figure.subplots()
    positions = np.arange(len(values))
    panel.barh(positions, values, color=BLUE)
    for position, value in enumerate(values):
        panel.annotate(
            f"{value:,.1f}",
            (value, position),
            xytext=(3 if value >= 0 else -3, 0),
            textcoords="offset points",
            va="center",
            ha="left" if value >= 0 else "right",
            fontsize=8,
        )
    panel.axvline(0, color=GREY, linewidth=1)
    panel.set_yticks(positions, [plain(name, _LONGEST) for name in terms], fontsize=9)
    panel.set_ylim(len(values) - 0.4, -0.6)
    # Room for the numbers.
    room = _ROOM_PER_CHARACTER * max(len(f"{value:,.1f}") for value in values)
    low, high = min(values.min(), 0.0), max(values.max(), 0.0)
    span = (high - low) or 1.0
    panel.set_xlim(low - (room * span if low < 0 else 0.0), high + room * span)
    panel.set_title(f"KL(posterior || prior): {values.sum():,.1f} nats in all")
    panel.set_xlabel("KL (nats)")
    tidy(panel)
    return figure

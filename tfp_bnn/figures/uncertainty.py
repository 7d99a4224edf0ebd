"""Histograms of uncertainty, in and out of distribution."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from tfp_bnn.figures.style import BLUE, VERMILION, filled, legend_below, logarithmic, new_figure, plain, tidy
from tfp_bnn.metrics.validation import scores

_NUM_BINS = 30


def uncertainty_histograms(
    in_distribution: npt.ArrayLike,
    out_of_distribution: npt.ArrayLike | None = None,
    name: str = "predictive entropy",
    unit: str = "nats",
) -> Figure:
    """Draws histograms of the uncertainty of predictions, in and out of distribution.

    A model that recognizes unknown inputs separates the two. Shares are on a logarithmic axis, because most predictions
    of a good model are nearly certain.

    Args:
        in_distribution: Uncertainty of inputs like the training data, of shape `(n,)`.
        out_of_distribution: Uncertainty of inputs of another kind, of shape `(m,)`. Default: None, not drawn.
        name: Name of the uncertainty.
        unit: Unit of the uncertainty. Default: `"nats"`.

    Returns:
        A figure with one panel. Each histogram sums to 1, and its mean is in the legend.

    Raises:
        ValueError: If an array has a different shape, is empty or is not finite.

    Example:
        >>> from tfp_bnn.figures import uncertainty_histograms
        >>> uncertainty_histograms([0.1, 0.2], [0.6, 0.7]).axes[0].get_xlabel()
        'predictive entropy (nats)'
    """
    groups = {"in distribution": scores("in_distribution", in_distribution)}
    if out_of_distribution is not None:
        groups["out of distribution"] = scores("out_of_distribution", out_of_distribution)
    values = np.concatenate(list(groups.values()))
    edges = _edges(float(values.min()), float(values.max()))
    figure = new_figure()
    panel = figure.subplots()
    smallest = 0.1
    for (group, of_group), colour, hatch in zip(groups.items(), (BLUE, VERMILION), (None, "///"), strict=False):
        shares = np.histogram(of_group, edges)[0] / len(of_group)
        smallest = min(smallest, 1.0 / len(of_group))
        label = f"{group}: mean {of_group.mean():.3g} of {len(of_group):,}"
        panel.stairs(shares, edges, label=label, **filled(colour, hatch))
    logarithmic(panel, smallest, 1)
    panel.set_title(f"Uncertainty of predictions: {plain(name)}")
    panel.set_xlabel(f"{plain(name)} ({plain(unit)})")
    panel.set_ylabel("share of examples (log scale)")
    legend_below(figure, panel, columns=1)
    tidy(panel)
    return figure


def _edges(low: float, high: float) -> npt.NDArray[np.float64]:
    """Returns bin edges, from 0 if the values allow it, as for entropies, and of some width if all are equal."""
    low = min(low, 0.0) if low < 0.5 * high else low
    width = max(abs(low), abs(high)) * 1e-3 or 1e-3
    if high - low < width:
        low, high = low - width / 2, high + width / 2
    return np.linspace(low, high, _NUM_BINS + 1)

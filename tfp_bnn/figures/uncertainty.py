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
    """How uncertain predictions are, for inputs of the kind trained on and for others.

    A model that knows what it has not seen puts the two apart. Shares are on a logarithmic axis, because most
    predictions of a good model are nearly certain.

    Args:
        in_distribution: uncertainty of inputs such as those trained on, `(n,)`.
        out_of_distribution: of inputs of another kind, `(m,)`; None to leave them out.
        name: of the uncertainty.
        unit: of the uncertainty.

    Returns:
        A figure of one panel; each histogram sums to 1, its mean is in the legend.

    Raises:
        ValueError: for arrays of another shape, empty or not finite.

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
    """From 0 on where the values allow it, as for entropies; some width where all are the same."""
    low = min(low, 0.0) if low < 0.5 * high else low
    width = max(abs(low), abs(high)) * 1e-3 or 1e-3
    if high - low < width:
        low, high = low - width / 2, high + width / 2
    return np.linspace(low, high, _NUM_BINS + 1)

"""The risk-coverage curve."""

from __future__ import annotations

from collections.abc import Mapping

import numpy.typing as npt
from matplotlib.figure import Figure

from tfp_bnn.figures.style import BLACK, COLOURS, GREY, LINES, legend_below, new_figure, plain, tidy
from tfp_bnn.metrics.selective import risk_coverage_curve
from tfp_bnn.metrics.validation import labelled

# Risks at a lower coverage come from few examples and do not set the scale.
_STEADY = 0.05


def risk_coverage(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, uncertainties: Mapping[str, npt.ArrayLike]
) -> Figure:
    """Draws the error rate among the most certain examples against the share of examples that are answered.

    The longer a curve stays low, the better its uncertainty identifies the errors. The figure also shows an oracle,
    which answers all errors last, and chance, which is the error rate.

    Args:
        labels: Integers of shape `(n,)` or one-hot of shape `(n, classes)`.
        probabilities: Probabilities of shape `(n, classes)`, averaged over Monte Carlo samples.
        uncertainties: Scores of shape `(n,)`, higher for less certain examples, by their name in the legend.

    Returns:
        A figure with one panel and the area under each curve in the legend.

    Raises:
        ValueError: If arguments are invalid or inconsistent, or there are no uncertainties.

    Example:
        >>> from tfp_bnn.figures import risk_coverage
        >>> figure = risk_coverage([0, 1], [[0.9, 0.1], [0.6, 0.4]], {"entropy": [0.3, 0.7]})
        >>> [text.get_text() for text in figure.legends[0].get_texts()]
        ['entropy: area 0.25', 'oracle: area 0.25', 'chance: area 0.5']

    References:
        Y. Geifman, R. El-Yaniv, Selective classification for deep neural networks, NeurIPS 2017.
        https://arxiv.org/abs/1705.08500
    """
    if not uncertainties:
        raise ValueError("`uncertainties` is empty; expected at least one array of scores by its name.")
    p, y = labelled(labels, probabilities)
    wrong = p.argmax(axis=1) != y
    error_rate = float(wrong.mean())
    curves = {name: risk_coverage_curve(y, p, scores) for name, scores in uncertainties.items()}
    oracle = risk_coverage_curve(y, p, wrong)
    figure = new_figure()
    panel = figure.subplots()
    highest = error_rate
    for index, (name, curve) in enumerate(curves.items()):
        panel.plot(
            curve.coverage,
            curve.risk,
            color=COLOURS[index % len(COLOURS)],
            linestyle=LINES[index % len(LINES)],
            linewidth=1.8,
            marker="o" if len(y) == 1 else None,
            label=f"{plain(name)}: area {curve.risk.mean():.3g}",
        )
        highest = max(highest, curve.risk[curve.coverage >= _STEADY].max())
    panel.plot(oracle.coverage, oracle.risk, color=BLACK, linewidth=1, label=f"oracle: area {oracle.risk.mean():.3g}")
    panel.axhline(error_rate, color=GREY, linestyle="--", linewidth=1, label=f"chance: area {error_rate:.3g}")
    panel.set_title(f"Risk and coverage of {len(y):,} examples")
    panel.set_xlabel("coverage (share of examples that are answered)")
    panel.set_ylabel("risk (share of errors among them)")
    panel.set_xlim(0, 1.02)
    panel.set_ylim(-0.02 * (highest or 1.0), 1.05 * (highest or 1.0))
    legend_below(figure, panel)
    tidy(panel)
    return figure

"""Shared style of the figures: size, colours, text and conversion to PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

# Okabe and Ito's colours, safe for colour-blind readers; without yellow, which is hard to see on white.
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
LINES = ("-", "--", "-.", ":")
GREY = "#767676"


def new_figure(width: float = 5.0, height: float = 4.0) -> Figure:
    """Creates an empty figure that needs no display.

    Args:
        width: Width in inches.
        height: Height in inches.
    """
    return Figure(figsize=(width, height), layout="constrained")


def tidy(panel: Any) -> None:
    """Hides the top and right spines of a panel, and breaks its title into lines that fit into the figure."""
    panel.spines[["top", "right"]].set_visible(False)
    panel.title.set_wrap(True)


def probability_bars(
    panel: Any,
    samples: Any,
    class_names: Sequence[str],
    level: float = 0.9,
    size: int = 8,
    label: int | None = None,
) -> None:
    """Draws a bar for the mean probability of each class, and a whisker for its spread over the draws of the weights.

    Args:
        panel: Axes to draw on.
        samples: Probabilities under each draw, of shape `(S, classes)`.
        class_names: One name per class.
        level: Share of the draws in the whiskers, in [0, 1]. Default: 0.9.
        size: Font size of the labels of the ticks.
        label: The true class, which stands out. None if it is not known.
    """
    low, high = np.quantile(samples, [0.5 - level / 2, 0.5 + level / 2], axis=0)
    positions = np.arange(len(class_names))
    panel.barh(positions, samples.mean(axis=0), color=[GREEN if index == label else BLUE for index in positions])
    # Not `xerr`, which is relative to the mean: that can lie outside of the whisker.
    panel.hlines(positions, low, high, color=VERMILION, linewidth=1.5)
    for ends in (low, high):
        panel.plot(ends, positions, "|", color=VERMILION, markersize=5, markeredgewidth=1.2, clip_on=False)
    panel.set_yticks(positions, [plain(name, longest=12) for name in class_names], fontsize=size)
    if label is not None:
        panel.get_yticklabels()[label].set_fontweight("bold")
    panel.set_xlim(0, 1)
    panel.invert_yaxis()
    panel.tick_params(axis="x", labelsize=size)
    tidy(panel)


def filled(colour: str, hatch: str | None) -> dict[str, Any]:
    """Returns the style of an area: a pale fill, through which others show, with an outline and an optional hatch."""
    return {"fill": True, "facecolor": (colour, 0.3), "edgecolor": colour, "hatch": hatch, "linewidth": 1.6}


def logarithmic(panel: Any, lowest: float, highest: float) -> None:
    """Makes the y-axis logarithmic, with labels only at powers of ten."""
    panel.set_yscale("log")
    panel.set_ylim(0.5 * lowest, 1.5 * highest)
    panel.yaxis.set_major_formatter("{x:,g}")
    panel.yaxis.set_minor_formatter(NullFormatter())


def legend_below(figure: Figure, panel: Any, columns: int = 2) -> None:
    """Puts the legend of a panel below it, where it hides no data."""
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9, columnspacing=1.2
    )


def plain(text: object, longest: int = 40) -> str:
    """Returns a name as literal text on one line: dollar signs are escaped and long names shortened.

    Args:
        text: Name from the user, such as that of a layer or a class.
        longest: Maximum number of characters. Longer names lose their middle.
    """
    line = "".join(character if character.isprintable() else " " for character in str(text))
    if len(line) > longest:
        tail = (longest - 1) // 2
        line = f"{line[: longest - 1 - tail]}…{line[-tail:]}"
    return line.replace("$", r"\$")


def to_png(figure: Figure, dpi: int = 100) -> bytes:
    """Converts a figure to a PNG image.

    Args:
        figure: Matplotlib figure, of this package or any other.
        dpi: Resolution in pixels per inch.

    Returns:
        The bytes of a PNG file, identical for the same figure.
    """
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi)
    return stream.getvalue()

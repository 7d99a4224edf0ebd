"""What the figures have in common: their size, their colours, their text, and how they become PNG."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

# Okabe and Ito's colours, which the colour-blind can tell apart; without yellow, which is lost on white.
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
    """An empty figure that needs no display.

    Args:
        width: in inches.
        height: in inches.
    """
    return Figure(figsize=(width, height), layout="constrained")


def tidy(panel: Any) -> None:
    """Takes away the lines above and to the right of the data."""
    panel.spines[["top", "right"]].set_visible(False)


def filled(colour: str, hatch: str | None) -> dict[str, Any]:
    """How an area is drawn: pale, behind an outline of its colour, hatched or not, so that others show through it."""
    return {"fill": True, "facecolor": (colour, 0.3), "edgecolor": colour, "hatch": hatch, "linewidth": 1.6}


def logarithmic(panel: Any, lowest: float, highest: float) -> None:
    """Makes the y-axis logarithmic, with numbers at powers of ten only."""
    panel.set_yscale("log")
    panel.set_ylim(0.5 * lowest, 1.5 * highest)
    panel.yaxis.set_major_formatter("{x:,g}")
    panel.yaxis.set_minor_formatter(NullFormatter())


def legend_below(figure: Figure, panel: Any, columns: int = 2) -> None:
    """Explains what is in a panel below it, where it hides no data."""
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9, columnspacing=1.2
    )


def plain(text: object, longest: int = 40) -> str:
    """A name as text to be drawn as it is: no mathematics between dollar signs, one line, not too long.

    Args:
        text: a name of the user, such as that of a layer or of a class.
        longest: characters to be shown; of a longer name the middle is left out.
    """
    line = "".join(character if character.isprintable() else " " for character in str(text))
    if len(line) > longest:
        tail = (longest - 1) // 2
        line = f"{line[: longest - 1 - tail]}…{line[-tail:]}"
    return line.replace("$", r"\$")


def to_png(figure: Figure, dpi: int = 100) -> bytes:
    """A figure as a PNG image.

    Args:
        figure: of this package, or any other.
        dpi: pixels per inch.

    Returns:
        The bytes of a PNG file; the same for the same figure.
    """
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi)
    return stream.getvalue()

"""Table and figure of the results of `run.py`."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

Row = dict[str, str]
COLUMNS = [
    *("network", "contestant", "measure", "median", "least", "most", "cpu"),
    *("ratio", "least ratio", "most ratio", "ratio of cpu"),
]
# Of the table: the measure, and how many of its units a second has.
MEASURES = {
    "fit": ("step, ms", 1e3),
    "zoo": ("zoo step, ms", 1e3),
    "predict": ("predict, s", 1),
    "one row": ("one row, ms", 1e3),
    "first step": ("first step, s", 1),
    "memory, MiB": ("memory, MiB", 1),
}


def read(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table(rows: Sequence[Row]) -> str:
    """For each network a table of the contestants: medians, and in brackets the ratio with its range over rounds."""
    lines = []
    for network in dict.fromkeys(row["network"] for row in rows):
        of_network = [row for row in rows if row["network"] == network]
        lines += ["", f"### {network}", "", f"| | {' | '.join(title for title, _ in MEASURES.values())} |"]
        lines += [f"|{'---|' * (len(MEASURES) + 1)}"]
        for contestant in dict.fromkeys(row["contestant"] for row in of_network):
            found = {row["measure"]: row for row in of_network if row["contestant"] == contestant}
            cells = [_cell(found.get(measure), units) for measure, (_, units) in MEASURES.items()]
            lines.append(f"| {contestant} | {' | '.join(cells)} |")
    return "\n".join(lines[1:])


def _cell(row: Row | None, units: float) -> str:
    if row is None:
        return ""
    value = f"{float(row['median']) * units:.4g}"
    if not row["ratio"]:
        return value
    return f"{value} ({float(row['ratio']):.2f}; {float(row['least ratio']):.2f} to {float(row['most ratio']):.2f})"


def figure(rows: Sequence[Row], path: Path) -> None:
    """Bars of the ratios of a training step and of a prediction, one panel for each network; a line at the reference."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    networks = list(dict.fromkeys(row["network"] for row in rows))
    of_figure = Figure(figsize=(10, 0.6 + 2.9 * len(networks)), layout="constrained")
    FigureCanvasAgg(of_figure)
    panels = of_figure.subplots(len(networks), 2, squeeze=False)
    for network, of_network in zip(networks, panels, strict=True):
        for panel, (measure, title) in zip(
            of_network, {"fit": "training step", "predict": "prediction"}.items(), strict=True
        ):
            bars = [r for r in rows if r["network"] == network and r["measure"] == measure and r["ratio"]][::-1]
            ratios = [float(row["ratio"]) for row in bars]
            below = [ratio - float(row["least ratio"]) for ratio, row in zip(ratios, bars, strict=True)]
            above = [float(row["most ratio"]) - ratio for ratio, row in zip(ratios, bars, strict=True)]
            ours = ["#0b6e99" if row["contestant"].startswith("ours") else "#b8b8b8" for row in bars]
            panel.barh([row["contestant"] for row in bars], ratios, xerr=[below, above], color=ours, ecolor="#555555")
            panel.axvline(1, color="#555555", linewidth=1)
            panel.set_title(f"{network}: {title}, ratio to the reference", fontsize=9)
            panel.tick_params(labelsize=8)
    of_figure.savefig(path, dpi=110)

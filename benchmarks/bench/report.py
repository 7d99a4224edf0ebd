"""Rows, table and figure of the results of `run.py`."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, str]
Readings = dict[tuple[str, str], dict[int, dict[str, float]]]
"""By contestant and measure: `seconds`, `cpu` and `memory` of each round, of a step if it trains; round 0 warms up."""
COLUMNS = [
    *("network", "contestant", "measure", "median", "least", "most", "cpu"),
    *("ratio", "least ratio", "most ratio", "ratio of cpu"),
]
# Of the table: the measure, and how many of its units a second has.
MEASURES = {
    "fit": ("step, ms", 1e3),
    "zoo": ("zoo step, ms", 1e3),
    "predict": ("predict, s", 1),
    "predict again": ("again, s", 1),
    "one row": ("one row, ms", 1e3),
    "first step": ("first step, s", 1),
    "memory": ("memory, MiB", 1),
    "imports": ("imports, MiB", 1),
}


def rows(readings: Readings, reference: str) -> list[dict[str, Any]]:
    """Rows of the results of a network, without its name.

    Args:
        readings: What was measured.
        reference: Contestant that the others are divided by, round by round.
    """
    found: list[dict[str, Any]] = []
    for (contestant, measure), of_rounds in readings.items():
        theirs = readings.get((reference, "fit" if measure == "zoo" else measure), {})
        if measure == "imports":
            found.append({"contestant": contestant, "measure": measure, "median": of_rounds[1]["memory"]})
        elif of_rounds:
            found.append({"contestant": contestant, "measure": measure, **_summary(of_rounds, theirs)})
    for contestant in dict.fromkeys(contestant for contestant, _ in readings):
        memory, of_reference = _memory(readings, contestant), _memory(readings, reference)
        ratio = {"ratio": memory / of_reference} if of_reference else {}
        found.append({"contestant": contestant, "measure": "memory", "median": memory, **ratio})
    return found


def _summary(ours: Mapping[int, Any], theirs: Mapping[int, Any]) -> dict[str, float]:
    ours = {number: reading for number, reading in ours.items() if number}
    seconds = [reading["seconds"] for reading in ours.values()]
    found = {"median": statistics.median(seconds), "least": min(seconds), "most": max(seconds)}
    found["cpu"] = statistics.median(reading["cpu"] for reading in ours.values())
    if both := ours.keys() & theirs.keys():
        ratios, of_cpu = ([ours[n][clock] / theirs[n][clock] for n in both] for clock in ("seconds", "cpu"))
        found |= {"ratio": statistics.median(ratios), "least ratio": min(ratios), "most ratio": max(ratios)}
        found["ratio of cpu"] = statistics.median(of_cpu)
    return found


def _memory(readings: Readings, contestant: str) -> float:
    """The peak before the loop of the zoo, which is warmed up after "one row"; 0 for one that does not take part."""
    return readings.get((contestant, "one row"), {}).get(0, {}).get("memory", 0.0)


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
    spread = (
        f"; {float(row['least ratio']):.2f} to {float(row['most ratio']):.2f}"
        if row["least ratio"] != row["most ratio"]
        else ""
    )
    return f"{value} ({float(row['ratio']):.2f}{spread})"


def figure(rows: Sequence[Row], path: Path) -> None:
    """Bars of the ratios of a training step and of a prediction, a panel for each network; a line at the reference."""
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
            panel.set_title(f"{network}: {title} / reference", fontsize=9)
            panel.tick_params(labelsize=8)
    of_figure.savefig(path, dpi=110)

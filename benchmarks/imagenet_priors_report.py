"""Writes the tables and the figure of `docs/imagenet_priors.md` from the results of `imagenet_priors.py`."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tfp_bnn.figures import to_png
from tfp_bnn.figures.style import BLUE, GREEN, ORANGE, PURPLE, VERMILION, legend_below, new_figure, tidy

RESULTS = Path(__file__).parent / "results" / "imagenet_priors.csv"
COLUMNS = ("size", "seed", "method", "nll", "accuracy", "ece", "test", "chosen")
METHODS = ("linear probe", "last-layer Laplace", "informed prior, head", "fine-tuning", "informed prior, last stage")
GUIDE = Path(__file__).parents[1] / "docs" / "imagenet_priors.md"
BEGIN, END = "<!-- results -->", "<!-- end of results -->"
SCORES = {"nll": "test NLL (nats per image)", "accuracy": "test accuracy (share right)", "ece": "test ECE"}
COLOURS = (ORANGE, GREEN, PURPLE, VERMILION, BLUE)


def read_results(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_report(rows: Sequence[Mapping[str, str]]) -> int:
    """Writes the figure, and the tables between two markers of the guide."""
    before, _, rest = GUIDE.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    tables = "\n".join(table(rows, score) for score in SCORES)
    GUIDE.write_text(f"{before}{BEGIN}\n\n{tables}\n{END}{after}", "utf-8")
    GUIDE.with_suffix(".png").write_bytes(_figure(rows))
    return 0


def values(rows: Sequence[Mapping[str, str]], size: int, method: str, score: str) -> list[float]:
    """A score of each seed."""
    return [float(row[score]) for row in rows if (row["size"], row["method"]) == (str(size), method)]


def sizes_of(rows: Sequence[Mapping[str, str]]) -> list[int]:
    return sorted({int(row["size"]) for row in rows})


def table(rows: Sequence[Mapping[str, str]], score: str) -> str:
    """A table of means and spreads over the seeds; the best is bold where all methods have the same number of seeds."""
    sizes = sizes_of(rows)
    lines = [f"**{SCORES[score][0].upper()}{SCORES[score][1:]}**: mean (least to largest; number of seeds)\n"]
    lines += [f"| method | {' | '.join(f'{size:,} images' for size in sizes)} |", "|---" * (len(sizes) + 1) + "|"]
    found = {(method, size): values(rows, size, method, score) for method in METHODS for size in sizes}
    means = {key: float(np.mean(of)) for key, of in found.items() if of}
    best = {
        size: (max if score == "accuracy" else min)(mean for (_, other), mean in means.items() if other == size)
        for size in sizes
    }
    for method in METHODS:
        cells = []
        for size in sizes:
            of = found[method, size]
            if not of:
                cells.append("not run")
                continue
            mean = means[method, size]
            fair = len({len(found[other, size]) for other in METHODS}) == 1
            cell = f"**{mean:.3f}**" if fair and mean == best[size] else f"{mean:.3f}"
            cells.append(f"{cell} ({min(of):.3f} to {max(of):.3f}; {len(of)})")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _figure(rows: Sequence[Mapping[str, str]]) -> bytes:
    figure = new_figure(10.0, 3.6)
    panels = figure.subplots(1, len(SCORES))
    sizes = sizes_of(rows)
    for panel, (score, label) in zip(panels, SCORES.items(), strict=True):
        for method, colour in zip(METHODS, COLOURS, strict=True):
            of_sizes = {size: values(rows, size, method, score) for size in sizes}
            of_sizes = {size: found for size, found in of_sizes.items() if found}
            means = np.array([np.mean(found) for found in of_sizes.values()])
            reach = np.abs([[f(found) for found in of_sizes.values()] - means for f in (min, max)])
            panel.errorbar(list(of_sizes), means, reach, color=colour, marker="o", markersize=4, label=method)
        panel.set_xscale("log")
        panel.set_xticks(sizes, [f"{size:,}" for size in sizes])
        panel.minorticks_off()
        panel.set_xlabel("labelled images")
        panel.set_ylabel(label)
        panel.set_ylim(bottom=0)
        tidy(panel)
    legend_below(figure, panels[0], columns=3)
    return to_png(figure)

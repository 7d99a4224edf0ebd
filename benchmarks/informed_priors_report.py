"""Writes the tables and the figure of `docs/informed_priors.md` from the results of `informed_priors.py`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfp_bnn.figures import to_png
from tfp_bnn.figures.style import BLUE, GREEN, ORANGE, PURPLE, VERMILION, legend_below, new_figure, tidy

GUIDE = Path(__file__).parents[1] / "docs" / "informed_priors.md"
BEGIN, END = "<!-- results -->", "<!-- end of results -->"
AGAINST = "deterministic"
LOOKS = ((BLUE, "-", "o"), (GREEN, "-.", "s"), (ORANGE, ":", "v"), (VERMILION, "--", "^"), (PURPLE, "-", "D"))

Values = dict[tuple[str, int, str], dict[int, tuple[float, float]]]


def write_report(rows: Sequence[dict[str, str]], pairs: Sequence[str], methods: Sequence[str]) -> int:
    """Writes the figure, and the tables between two markers of the guide."""
    values: Values = {}
    for row in rows:
        key = (row["pair"], int(row["size"]), row["method"])
        values.setdefault(key, {})[int(row["seed"])] = (float(row["nll"]), float(row["accuracy"]))
    sizes = sorted({size for _, size, _ in values})
    text = GUIDE.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    tables = "\n".join(_table(values, pair, sizes, methods, rows) for pair in pairs)
    GUIDE.write_text(f"{before}{BEGIN}\n\n{tables}\n{END}{after}", "utf-8")
    (GUIDE.parent / "informed_priors.png").write_bytes(_figure(values, pairs, sizes, methods))
    return 0


def _table(
    values: Values, pair: str, sizes: Sequence[int], methods: Sequence[str], rows: Sequence[dict[str, str]]
) -> str:
    ours = methods[0]
    seeds = len(values[pair, sizes[0], ours])
    lines = []
    for index, score, better in ((0, "NLL", min), (1, "accuracy", max)):
        last = f" inflate | NLL better than {AGAINST} |" if index == 0 else ""
        lines += [f"**{pair}, {score}**, mean ± standard deviation over {seeds} seeds\n"]
        lines += [f"| images | {' | '.join(methods)} |{last}", "|---" * (len(methods) + 1 + 2 * bool(last)) + "|"]
        for size in sizes:
            means = {method: _of(values, pair, size, method)[:, index].mean() for method in methods}
            best = better(means, key=means.__getitem__)
            cells = [str(size)]
            for method in methods:
                spread = np.std(_of(values, pair, size, method)[:, index], ddof=1)
                number = f"{means[method]:.3f} ± {spread:.3f}"
                cells.append(f"**{number}**" if method == best else number)
            if last:
                cells += [_chosen(rows, pair, size, ours), _wins(values, pair, size, ours)]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _chosen(rows: Sequence[dict[str, str]], pair: str, size: int, method: str) -> str:
    of_task = (row for row in rows if (row["pair"], row["size"], row["method"]) == (pair, str(size), method))
    return ", ".join(f"{value:g}" for value in sorted({float(row["inflate"]) for row in of_task}))


def _wins(values: Values, pair: str, size: int, method: str) -> str:
    wins = _of(values, pair, size, method)[:, 0] < _of(values, pair, size, AGAINST)[:, 0]
    return f"{wins.sum()} of {len(wins)} seeds"


def _of(values: Values, pair: str, size: int, method: str) -> np.ndarray:
    by_seed = values[pair, size, method]
    return np.array([by_seed[seed] for seed in sorted(by_seed)])


def _figure(values: Values, pairs: Sequence[str], sizes: Sequence[int], methods: Sequence[str]) -> bytes:
    figure = new_figure(10.0, 5.5)
    panels = figure.subplots(2, len(pairs), sharex=True)
    for column, pair in enumerate(pairs):
        for index, label in ((0, "test NLL (nats per image)"), (1, "test accuracy (share right)")):
            panel = panels[index, column]
            for method, (colour, line, mark) in zip(methods, LOOKS, strict=True):
                of_sizes = np.array(
                    [
                        [f(_of(values, pair, size, method)[:, index]) for f in (np.mean, lambda v: np.std(v, ddof=1))]
                        for size in sizes
                    ]
                )
                panel.errorbar(
                    sizes, of_sizes[:, 0], of_sizes[:, 1], color=colour, linestyle=line, marker=mark, label=method
                )
            panel.set_xscale("log")
            panel.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=8)
            panel.minorticks_off()
            if index == 0:
                panel.set_title(pair)
                panel.set_ylim(bottom=0)
            else:
                panel.set_xlabel("labelled images")
            if column == 0:
                panel.set_ylabel(label)
            tidy(panel)
    legend_below(figure, panels[0, 0], columns=len(methods))
    return to_png(figure)

"""The leaderboard: every model beside its baselines, in `results/leaderboard.csv`, as tables and as a figure.

`python -m zoo.evaluation.leaderboard` writes the table and the figure of `docs/comparing.md`. Imports no TensorFlow.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.core.files import write_atomically
from zoo.core.shown import table_cell

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEADERBOARD_NAME = "leaderboard.csv"
_SCORES = ("accuracy", "rmse", "nll", "brier", "ece", "coverage_90")
_AUROCS = ("auroc_entropy", "auroc_mutual_information", "auroc_epistemic_std")
COLUMNS = (
    *("model", "inference", "dataset", "license", "num_weights", "members", "epochs", "settings"),
    *("candidates", "tuning_epochs", "validation_nll", "seeds", "num_samples"),
    *(column for score in _SCORES for column in (score, f"{score}_spread")),
    *("nll_uncalibrated", "ece_uncalibrated", "out_of_distribution", *_AUROCS, "kl", "beta", "temperature"),
    *("seconds", "cpu_seconds"),
)
"""What a row says; see `docs/comparing.md`. A cell is empty if there is no such number."""

_SHOWN = {
    "accuracy": "accuracy",
    "rmse": "RMSE",
    "nll": "NLL",
    "brier": "Brier",
    "ece": "ECE",
    "auroc_entropy": "AUROC by entropy",
    "auroc_mutual_information": "by mutual information",
}
_BEGIN, _END = "<!-- leaderboard: written by `python -m zoo.evaluation.leaderboard` -->", "<!-- /leaderboard -->"
_RESULTS = Path(__file__).parents[1] / "results" / LEADERBOARD_NAME

Row = Mapping[str, Any]
"""A row by column: values as they were measured, or cells as they were read."""


def row_of(metrics: Mapping[str, Any], **about: Any) -> dict[str, Any]:
    """Returns a row of the leaderboard.

    Args:
        metrics: Numbers of the card. With several training seeds, scores are means over them.
        **about: Values of the other columns.
    """
    test, spread = metrics["test"], metrics.get("spread") or {}
    uncalibrated = metrics.get("test_uncalibrated", {})
    outside = metrics.get("out_of_distribution", {})
    numbers: dict[str, Any] = {score: spread.get(score, {}).get("mean", test.get(score)) for score in _SCORES}
    numbers |= {f"{score}_spread": over["std"] for score, over in spread.items()}
    numbers |= {f"{score}_uncalibrated": uncalibrated.get(score) for score in ("nll", "ece")}
    numbers |= {name: outside.get(name) for name in _AUROCS}
    numbers |= {
        "out_of_distribution": outside.get("data"),
        "num_samples": metrics["num_samples"],
        "seeds": len(metrics.get("training_seeds", [0])),
        "kl": metrics.get("kl", {}).get("total"),
        "beta": metrics.get("beta"),
    }
    values = {**numbers, **about}
    return {column: values.get(column) for column in COLUMNS}


def read_leaderboard(path: Path = _RESULTS) -> list[dict[str, str]]:
    """Returns the rows of a leaderboard, cells by column; none if there is no file."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_leaderboard(rows: Iterable[Row], path: Path) -> None:
    """Writes rows to a leaderboard. They replace those of the same model and inference; all others stay.

    Args:
        rows: New rows, from `row_of`.
        path: The file. Its folder is created if it does not exist.
    """
    new = {(row["model"], row["inference"]): {name: table_cell(value) for name, value in row.items()} for row in rows}
    old = {(row["model"], row["inference"]): row for row in read_leaderboard(path)}
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(row for _, row in sorted({**old, **new}.items()))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.getvalue())


def leaderboard_table(rows: Sequence[Row]) -> str:
    """Formats rows as a Markdown table, without columns in which no row has a number."""
    shown = {name: title for name, title in _SHOWN.items() if any(_number(row, name) is not None for row in rows)}
    header = ["model", "inference", "epochs", "seeds", *shown.values(), "CPU s"]
    lines = [header, ["---"] * len(header)]
    for row in rows:
        members, epochs = row["members"], f"{table_cell(row['epochs'])}"
        way = str(row["inference"]).replace("_", " ")
        cells = [f"`{row['model']}`", way, f"{members} x {epochs}" if members else epochs]
        cells += [table_cell(row["seeds"]), *(_score(row, name) for name in shown)]
        seconds = _number(row, "cpu_seconds")
        lines.append([*cells, "" if seconds is None else f"{seconds:,.0f}"])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def leaderboard_figure(rows: Sequence[Row]) -> Figure:
    """Draws the test NLL of rows against their CPU seconds of training, a panel for each model of several methods.

    Args:
        rows: Rows of at least one model of which two methods are known.
    """
    # Not at the top, because matplotlib takes a second.
    from tfp_bnn.figures.style import COLOURS, new_figure, tidy

    models = [model for model, number in Counter(str(row["model"]) for row in rows).items() if number > 1]
    ways = list(dict.fromkeys(str(row["inference"]) for row in rows))
    colour, columns = dict(zip(ways, COLOURS * len(ways), strict=False)), min(3, len(models))
    figure = new_figure(4.2 * columns, 3.4 * -(-len(models) // columns))
    for index, model in enumerate(models, start=1):
        panel = figure.add_subplot(-(-len(models) // columns), columns, index)
        for row in rows:
            seconds, nll = _number(row, "cpu_seconds"), _number(row, "nll")
            if row["model"] != model or seconds is None or nll is None:
                continue
            way = str(row["inference"])
            panel.errorbar(seconds, nll, _number(row, "nll_spread"), fmt="o", color=colour[way], capsize=3)
            panel.annotate(way.replace("_", " "), (seconds, nll), xytext=(6, 4), textcoords="offset points", fontsize=8)
        panel.set_xscale("log")
        panel.margins(x=0.35, y=0.15)
        panel.set(title=model, xlabel="CPU seconds of training", ylabel="test NLL (nats)")
        tidy(panel)
    return figure


def with_leaderboard(text: str, rows: Sequence[Row]) -> str:
    """Returns the text of a page with its leaderboard updated.

    Raises:
        ValueError: If the markers are missing.
    """
    if _BEGIN not in text or _END not in text:
        raise ValueError(f"The page has no place for the leaderboard: expected the lines {_BEGIN!r} and {_END!r}.")
    before, rest = text.split(_BEGIN, 1)
    shown = leaderboard_table(rows) if rows else "No comparison of a model of the zoo has been run yet."
    return f"{before}{_BEGIN}\n{shown}\n{_END}{rest.split(_END, 1)[1]}"


def _score(row: Row, name: str) -> str:
    value, spread = _number(row, name), _number(row, f"{name}_spread") if f"{name}_spread" in row else None
    if value is None:
        return ""
    return f"{value:.4g}" if spread is None else f"{value:.4g} ± {spread:.2g}"


def _number(row: Row, name: str) -> float | None:
    value = row.get(name)
    number = math.nan if value in (None, "") else float(value)
    return number if math.isfinite(number) else None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "page",
        nargs="?",
        default="docs/comparing.md",
        type=Path,
        help="file to write to (default: %(default)s)",
    )
    page = parser.parse_args().page
    found = read_leaderboard()
    write_atomically(page, with_leaderboard(page.read_text("utf-8"), found))
    if len(found) > len({row["model"] for row in found}):
        from tfp_bnn.figures import to_png

        write_atomically(page.with_name("leaderboard.png"), to_png(leaderboard_figure(found)))

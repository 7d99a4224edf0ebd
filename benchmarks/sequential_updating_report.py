"""Makes the table and the figure of `docs/sequential_updating.md` from the scores of `sequential_updating.py`."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfp_bnn.figures import style

ROOT = Path(__file__).parent.parent
CSV = ROOT / "benchmarks" / "results" / "sequential_updating.csv"
GUIDE = ROOT / "docs" / "sequential_updating.md"
FIGURE = ROOT / "docs" / "sequential_updating.png"
MARKERS = ("<!-- results: begin -->\n", "<!-- results: end -->")

NUM_TASKS = 5
# The experiment in which all parts have the same task.
OF_ONE_TASK = "five random parts"
POSTERIOR, NAIVE, DETERMINISTIC, JOINT = "posterior as prior", "plain refitting", "deterministic refitting", "joint"
METHODS = (POSTERIOR, NAIVE, DETERMINISTIC, JOINT)


@dataclass
class Score:
    """Scores of one method after the last part: means over the tasks, and the accuracy on each.

    `nll` is in nats. If each task has its own classes, `to_last` is the share of test images of earlier tasks that are
    classified as classes of the last one, and `told` is the accuracy if the task is given, so only its classes are
    possible. Otherwise they are None.
    """

    accuracy: float
    nll: float
    by_task: list[float]
    to_last: float | None = None
    told: float | None = None

    def row(self) -> dict[str, float | None]:
        """Returns the cells of the CSV, by column."""
        by_task = {f"accuracy_task_{number}": value for number, value in enumerate(self.by_task, 1)}
        of_classes = {"predicted_last_task": self.to_last, "accuracy_task_known": self.told}
        return {"accuracy": self.accuracy, "nll": self.nll, **by_task, **of_classes}


Results = dict[str, dict[str, list[Score]]]


def mean_and_deviation(values: Sequence[Any]) -> str:
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=min(1, len(values) - 1)):.3f}"


def markdown(results: Results) -> str:
    lines = [
        "| | | accuracy | NLL (nats) | NLL above joint (nats) | accuracy, first task | accuracy, last task |",
        "|---|---|---|---|---|---|---|",
    ]
    for experiment, by_method in results.items():
        joint = np.array([each.nll for each in by_method[JOINT]])
        for method, scores in by_method.items():
            columns: list[Sequence[float]] = [[each.accuracy for each in scores], [each.nll for each in scores]]
            gap = "" if method == JOINT else mean_and_deviation(list(np.array(columns[1]) - joint))
            cells = [experiment, method, *map(mean_and_deviation, columns), gap]
            cells += [mean_and_deviation([each.by_task[task] for each in scores]) for task in (0, -1)]
            lines.append(f"| {' | '.join(cells)} |")
            experiment = ""
    return "\n".join(lines)


def sentence(results: Results) -> str:
    """Describes forgetting in the experiment in which every task has its own classes."""
    if "class-split MNIST" not in results:
        return ""
    by_method = results["class-split MNIST"]
    shares = [f"{100 * np.mean([each.to_last for each in of]):.1f} % ({method})" for method, of in by_method.items()]
    told = [f"{mean_and_deviation([each.told for each in of])} ({method})" for method, of in by_method.items()]
    return (
        f"Class-split MNIST, test images of 0 to 7 that are taken for an 8 or a 9: {', '.join(shares)}. "
        f"Accuracy on all, if told which two digits are possible: {', '.join(told)}."
    )


def tables(results: Results) -> str:
    return "\n\n".join([markdown(results), sentence(results)]).rstrip()


def draw(results: Results) -> bytes:
    figure = style.new_figure(10.0, 3.6)
    panels = figure.subplots(1, len(results), squeeze=False)[0]
    for panel, (experiment, by_method) in zip(panels, results.items(), strict=True):
        style.tidy(panel)
        panel.set_title(experiment, fontsize=10)
        of_one_task = experiment == OF_ONE_TASK
        for index, (method, scores) in enumerate(by_method.items()):
            look = {"color": style.COLOURS[index], "marker": "os^Dv"[index]}
            nll = [each.nll for each in scores]
            accuracy = np.array([each.by_task for each in scores])
            if of_one_task:
                panel.plot(
                    index + np.linspace(-0.15, 0.15, len(nll)), nll, linestyle="", markerfacecolor="none", **look
                )
                panel.plot([index - 0.3, index + 0.3], [np.mean(nll)] * 2, color=look["color"])
            else:
                panel.errorbar(
                    np.arange(1, NUM_TASKS + 1) + 0.05 * (index - 1.5),
                    accuracy.mean(axis=0),
                    accuracy.std(axis=0, ddof=min(1, len(scores) - 1)),
                    label=method,
                    linestyle=style.LINES[index % len(style.LINES)],
                    capsize=2,
                    **look,
                )
        if of_one_task:
            panel.set_xticks(range(len(by_method)), [method.replace(" ", "\n") for method in by_method], fontsize=8)
            panel.set_ylim(bottom=0)
            panel.set_ylabel("predictive NLL (nats per image)")
        else:
            panel.set_xticks(range(1, NUM_TASKS + 1))
            panel.set_ylim(-0.03, 1.03)
            panel.set_xlabel("task, in the order of training")
            panel.set_ylabel("accuracy after the last task")
    style.legend_below(figure, panels[0], columns=4)
    return style.to_png(figure, dpi=120)


def write_csv(results: Results, seeds: Sequence[int]) -> None:
    CSV.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"experiment": experiment, "method": method, "seed": seed, **each.row()}
        for experiment, by_method in results.items()
        for method, scores in by_method.items()
        for seed, each in zip(seeds, scores, strict=True)
    ]
    with CSV.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: f"{v:.6f}" if isinstance(v, float) else v for key, v in row.items()} for row in rows)


def read_csv() -> Results:
    results: Results = {}
    with CSV.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            by_task = [float(row[f"accuracy_task_{number}"]) for number in range(1, NUM_TASKS + 1)]
            names = ("predicted_last_task", "accuracy_task_known")
            of_classes = [float(row[name]) if row[name] else None for name in names]
            found = Score(float(row["accuracy"]), float(row["nll"]), by_task, *of_classes)
            results.setdefault(row["experiment"], {}).setdefault(row["method"], []).append(found)
    return results


def write_guide(results: Results) -> None:
    FIGURE.write_bytes(draw(results))
    before, rest = GUIDE.read_text("utf-8").split(MARKERS[0])
    after = rest.split(MARKERS[1])[1]
    GUIDE.write_text(f"{before}{MARKERS[0]}{tables(results)}\n{MARKERS[1]}{after}", "utf-8")

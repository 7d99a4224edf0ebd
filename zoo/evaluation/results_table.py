"""Results: `results/test.csv`, with the numbers of `tfp-bnn verify --full`, and the README's table.

`python -m zoo.evaluation.results_table` makes the table from it and from `leaderboard.csv`. Imports no TensorFlow.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.core.files import write_atomically
from zoo.core.shown import table_cell
from zoo.evaluation.leaderboard import read_leaderboard
from zoo.hub.reading import read_artifact

if TYPE_CHECKING:
    from zoo.evaluation.verification import Check

RESULTS_NAME = "test.csv"
_RESULTS = Path(__file__).parents[1] / "results" / RESULTS_NAME
_BEGIN, _END = "<!-- models: written by `python -m zoo.evaluation.results_table` -->", "<!-- /models -->"
_CLASSIFICATION = ("accuracy", "nll", "ece", "brier", "entropy", "mutual_information")
_REGRESSION = ("rmse", "mae", "coverage_90", "aleatoric_std", "epistemic_std")
_METRICS = (*_CLASSIFICATION, *_REGRESSION)
_UNCERTAINTIES = ("mutual_information", "entropy", "epistemic_std")
_OUTSIDE = (*_UNCERTAINTIES, *(f"auroc_{name}" for name in _UNCERTAINTIES))
_VERSIONS = ("uncalibrated", "plug_in")
_POSTERIOR = ("median_scale", "median_signal_to_noise", "active_fraction")
_SHOWN = ("accuracy", "rmse", "nll", "ece", "coverage_90")


def write_results(checks: Iterable[Check], folder: Path) -> Path:
    """Writes `test.csv`, with a row for each fully verified model. Rows of other models stay.

    The numbers of the posterior are the measured ones, to six digits. Those of the test split have their own names,
    with the suffix `_uncalibrated` if the model has a calibration, and `_plug_in` for the mean of the weights. Those of
    out-of-distribution data have the prefix `ood_`. `kl` is in nats; medians and active fraction are those of
    `posterior_statistics`. Numbers that only training can give are copied from the card: `beta`, and the standard
    deviation over training seeds, with the suffix `_spread`. A cell is empty if there is no such number.

    Args:
        checks: Results of `zoo.verify(name, full=True)`, one model after the other.
        folder: Destination folder, created if it does not exist.

    Returns:
        Path of the file.
    """
    path = folder / RESULTS_NAME
    rows = {row["name"]: row for row in read_results(path)} if path.is_file() else {}
    for name, of_model in groupby(checks, key=lambda check: check.model):
        row = {column: table_cell(value) for column, value in _row(name, list(of_model)).items()}
        rows[row["name"]], columns = row, list(row)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(row for _, row in sorted(rows.items()))
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.getvalue())
    return path


def read_results(path: Path = _RESULTS) -> list[dict[str, str]]:
    """Returns the rows of the results (default: those in the package), cells by column; empty if there is no number."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def models_table() -> str:
    """Formats the models of the results and their test metrics as a Markdown table.

    Next to them are those of their deterministic twins, the same networks without distributions, as far as these are in
    the leaderboard: rows of the method `map`, means over training seeds.
    """
    twins = {row["model"]: row for row in read_leaderboard() if row["inference"] == "map"}
    header = ["model", "weights", "accuracy", "RMSE", "NLL", "ECE", "coverage of 90 % intervals"]
    header += ["twin: accuracy or RMSE", "twin: NLL", "twin: ECE"] if twins else []
    lines = [header]
    for result in read_results():
        twin = twins.get(result["name"], {})
        cells = [_four_digits(result[key]) for key in _SHOWN]
        of_twin = twin.get("accuracy") or twin.get("rmse"), twin.get("nll"), twin.get("ece")
        cells += map(_four_digits, of_twin) if twins else ()
        lines.append([f"`{result['name']}`", f"{int(result['num_weights']):,}", *cells])
    first, *others = [f"| {' | '.join(cells)} |" for cells in lines]
    return "\n".join([first, "|---" * len(header) + "|", *others])


def _four_digits(cell: str | None) -> str:
    return f"{float(cell):.4g}" if cell else ""


def with_table(text: str) -> str:
    """Returns the text of a README with its table updated.

    Raises:
        ValueError: If the markers are missing.
    """
    if _BEGIN not in text or _END not in text:
        raise ValueError(f"The README has no place for the table: expected the lines {_BEGIN!r} and {_END!r}.")
    before, rest = text.split(_BEGIN, 1)
    return f"{before}{_BEGIN}\n{models_table()}\n{_END}{rest.split(_END, 1)[1]}"


def _row(name: str, checks: list[Check]) -> dict[str, Any]:
    artifact = read_artifact(name)
    config, metrics = artifact["config"], artifact["metrics"]
    measured = {check.quantity: check.measured for check in checks}
    calibration: Mapping[str, Any] = config.get("calibration") or {}
    spread = metrics.get("spread", {})
    return {
        "name": config["name"],
        "dataset": config["data"]["dataset"],
        "task": config["data"]["task"],
        "num_weights": config["num_weights"],
        "num_examples": metrics["num_examples"],
        "num_samples": metrics["num_samples"],
        "seed": metrics["seed"],
        "beta": metrics.get("beta"),
        "temperature": calibration.get("temperature"),
        "scale": calibration.get("scale"),
        **{metric: measured.get(f"test/{metric}") for metric in _METRICS},
        **{f"{metric}_{of}": measured.get(f"test_{of}/{metric}") for of in _VERSIONS for metric in _METRICS},
        **{f"{metric}_spread": spread.get(metric, {}).get("std") for metric in _METRICS},
        "num_training_seeds": len(metrics.get("training_seeds", ())),
        "ood_data": metrics.get("out_of_distribution", {}).get("data"),
        **{f"ood_{metric}": measured.get(f"out_of_distribution/{metric}") for metric in _OUTSIDE},
        **{
            f"ood_{metric}_{of}": measured.get(f"out_of_distribution/{of}/{metric}")
            for of in _VERSIONS
            for metric in _OUTSIDE
        },
        "kl": measured.get("kl/total"),
        **{statistic: measured.get(f"posterior/{statistic}") for statistic in _POSTERIOR},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "page", nargs="?", default="README.md", type=Path, help="file to write to (default: %(default)s)"
    )
    readme = parser.parse_args().page
    write_atomically(readme, with_table(readme.read_text("utf-8")))

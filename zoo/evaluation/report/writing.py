"""Evaluation reports: a folder that shows how good a model is on a split, and how well it knows where it is not.

    index.html         one self-contained page with everything below but the single predictions
    predictions.csv    a row for each example: target, prediction, uncertainty and its parts
    metrics.json       all numbers, and how they were measured
    *.png              the figures
    suite.csv          the numbers of the suite, if there is one

`write_evaluation_report` writes it; `tfp-bnn evaluate NAME --report DIR` does so from the command line.
"""

from __future__ import annotations

import contextlib
import csv
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from tfp_bnn.models import PredictiveModel
from zoo.core.files import check_folder_target, written_whole
from zoo.core.shown import cell
from zoo.core.untrusted import MAX_JSON_BYTES, parse_json
from zoo.datasets import Dataset, load_dataset
from zoo.evaluation.card_numbers import UNIFORM
from zoo.evaluation.report import classification, regression, sections
from zoo.evaluation.report.measured import Measured, measure
from zoo.evaluation.report.page import Section, page
from zoo.evaluation.report.provenance import date_of_report, likelihood_in_words, provenance, subtitle
from zoo.evaluation.report.robustness import robustness
from zoo.evaluation.suite import Suite
from zoo.evaluation.suite_files import suite_csv
from zoo.hub.manifest import to_json

SCHEMA_VERSION = 1
_FILES = ("index.html", "metrics.json", "predictions.csv")
# By the kind of target; a dataset has one label for each example.
CONTENTS: Mapping[str, Any] = {"class": classification, "number": regression}
_PACKAGES = ("tfp_bnn", "tensorflow", "keras", "tensorflow_probability", "numpy", "matplotlib")


@dataclass(frozen=True)
class EvaluationReport:
    """A report that was written.

    Attributes:
        path: Path of the page, `index.html`.
        metrics: Scores of `zoo.evaluate`, by name.
    """

    path: Path
    metrics: dict[str, float]


def write_evaluation_report(
    model: PredictiveModel,
    data: str | Dataset,
    split: str,
    folder: str | os.PathLike[str],
    *,
    name: str | None = None,
    num_samples: int = 50,
    seed: int = 0,
    calibrated: bool = True,
    out_of_distribution: str | None = UNIFORM,
    suite: Suite | None = None,
    split_name: str | None = None,
    overwrite: bool = False,
    command: str | None = None,
) -> EvaluationReport:
    """Evaluates a model on a split of a dataset and writes a report, completely or not at all.

    The same model, arguments, versions and day give identical bytes. The environment variable `SOURCE_DATE_EPOCH`,
    seconds since 1970, stands for another day.

    Args:
        model: Model to report on.
        data: Dataset or its name.
        split: `"train"`, `"validation"` or `"test"`.
        folder: Folder to create. It may exist if it is empty or contains only a report, but not be the current one.
        name: Name of the model in the report. Default: its own.
        num_samples: Number of Monte Carlo samples of the weights.
        seed: Seed of the samples.
        calibrated: Whether to apply the model's calibration, if it has one.
        out_of_distribution: Name of a dataset with the same input shape, of which the first 2,000 test rows are
            compared with the split. `"uniform"` for noise, uniform over the range of the inputs in the training split
            of `data`. None to leave it out.
        suite: Results of `zoo.evaluate_suite` for the same model and split, which get a section and the file
            `suite.csv`; or None.
        split_name: Name of the split in the report, such as `"all"` for one that holds all rows. Default: `split`.
        overwrite: Whether to replace an existing report.
        command: Command line shown in the report as its origin. Default: the call of this function.

    Returns:
        Path of the page, and the scores of `zoo.evaluate` for the same samples.

    Raises:
        ValueError: For a folder that must not be replaced, an unknown dataset or split (the message gives the nearest),
            or data that do not fit the model.
        DataMissingError: If the data are not on this machine and cannot be obtained.
        OSError: If the folder cannot be written; found out before anything is measured.

    Example:
        >>> import tempfile, zoo
        >>> model = zoo.load_model("mlp_flipout.iris")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = zoo.write_evaluation_report(model, "iris", "test", folder, num_samples=5)
        ...     report.path.name, sorted(report.metrics)[:2]
        ('index.html', ['accuracy', 'brier'])
    """
    target = check_target(folder, overwrite)
    dataset = load_dataset(data) if isinstance(data, str) else data
    with written_whole(target) as working:
        measured = measure(
            model,
            dataset,
            split,
            name=name or model.name,
            num_samples=num_samples,
            seed=seed,
            calibrated=calibrated,
            out_of_distribution=out_of_distribution,
            split_name=split_name,
        )
        _write_files(working, measured, suite, command or _call(measured, data, split, folder, suite))
    return EvaluationReport(target / "index.html", dict(measured.scores))


def check_target(path: str | os.PathLike[str], overwrite: bool) -> Path:
    """Returns the folder of a report.

    Raises:
        ValueError: If it must not be replaced, or cannot be, as the current folder.
        OSError: If it could not be made.
    """
    target = Path(path).absolute()
    check_folder_target(target)
    if not os.path.lexists(target) or (target.is_dir() and not any(target.iterdir())):
        return target
    foreign = _foreign_files(target)
    if foreign is None:
        hint = "It is not an evaluation report; choose another folder"
    elif foreign:
        hint = f"Besides an evaluation report it contains {', '.join(foreign)}; move that, or choose another folder"
    elif not overwrite:
        hint = "Pass overwrite=True (on the command line: --overwrite) to replace it"
    else:
        return target
    raise ValueError(f"The folder {str(target)!r} exists. {hint}.")


def _foreign_files(folder: Path) -> list[str] | None:
    """What is in the folder of a report and does not belong to it; None for a folder that is no report."""
    described = folder / "metrics.json"
    if not described.is_file():
        return None
    with described.open("rb") as file:
        try:
            content = parse_json(file.read(MAX_JSON_BYTES + 1), str(described))
        except ValueError:
            return None
    if not isinstance(content, dict) or "report" not in content or not isinstance(content.get("files"), list):
        return None
    return sorted({path.name for path in folder.iterdir()} - set(map(str, content["files"])))


def _write_files(folder: Path, measured: Measured, suite: Suite | None, command: str) -> None:
    task: Any = CONTENTS[measured.predictive.target_kind]
    scores = task.further_scores(measured.predictive, measured.part.y)
    further = {key: _or_none(value) for key, value in scores.items()}
    errors = {"examples": measured.errors_of_examples(task.resampled_scores), "draws": measured.errors_of_draws}
    date = date_of_report()
    facts = provenance(measured.model, measured.name)
    outside = sections.out_of_distribution(task, measured)
    versions = _versions()
    parts = [
        sections.scores(task, measured, further, errors),
        Section("Calibration" if task is classification else "Predictions", images=task.images(measured)),
        Section(
            "Least certain examples",
            tables=[task.least_certain(measured)],
            images=task.images_of_least_certain(measured),
        ),
        sections.uncertainty(task, measured, outside),
        *([] if suite is None else [robustness(suite)]),
        sections.kl(measured),
        sections.reproduction(measured, command, versions),
    ]
    images = [image for part in parts for image in part.images]
    for image in images:
        (folder / image.file).write_bytes(image.png)
    _write_csv(folder / "predictions.csv", task.columns(measured))
    if suite is not None:
        (folder / "suite.csv").write_text(suite_csv(suite, measured.name), "utf-8")
    text = page(f"Evaluation of {measured.name}", subtitle(facts, date), sections.lead(measured), parts)
    (folder / "index.html").write_text(text, "utf-8")
    content = {
        **described_run(measured),
        "calibration": measured.calibration,
        "date": date,
        "provenance": facts,
        "likelihood": likelihood_in_words(measured.model),
        "metrics": dict(measured.scores),
        "further": further,
        "standard_errors": errors,
        "out_of_distribution": outside,
        "kl": {"total": sum(measured.kl.values(), 0.0), "by_layer": dict(measured.kl)},
        "command": command,
        "versions": versions,
        **({} if suite is None else {"suite": suite.to_dict()}),
        "files": sorted([*_FILES, *(image.file for image in images), *([] if suite is None else ["suite.csv"])]),
    }
    (folder / "metrics.json").write_text(to_json(content), "utf-8")


def described_run(measured: Measured) -> dict[str, Any]:
    """Returns the first entries of `metrics.json`: what was measured, and how."""
    return {
        "report": SCHEMA_VERSION,
        "name": measured.name,
        "dataset": measured.data.name,
        "task": measured.data.task,
        "split": measured.split,
        "num_examples": len(measured.part),
        "num_samples": measured.num_samples,
        "seed": measured.seed,
        "calibrated": measured.calibrated,
    }


def _call(
    measured: Measured, data: str | Dataset, split: str, folder: str | os.PathLike[str], suite: Suite | None
) -> str:
    arguments = {
        "name": measured.name,
        "num_samples": measured.num_samples,
        "seed": measured.seed,
        "calibrated": measured.calibrated,
        "out_of_distribution": measured.outside_name,
    }
    words = ["model", repr(data) if isinstance(data, str) else "data", repr(split), repr(os.fspath(folder))]
    words += [f"{name}={value!r}" for name, value in arguments.items()]
    words += [] if suite is None else ["suite=suite"]
    return f"zoo.write_evaluation_report({', '.join(words)})"


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        # TensorFlow has other names, such as tensorflow-cpu.
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


def _write_csv(path: Path, columns: list[tuple[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([cell(name) for name, _ in columns])
        writer.writerows([_cell(value) for value in row] for row in zip(*(v for _, v in columns), strict=True))


def _cell(value: Any) -> Any:
    """Nine digits bring a float32 back as it was."""
    if isinstance(value, float | np.floating):
        return f"{value:.9g}"
    return cell(value) if isinstance(value, str) else value


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value

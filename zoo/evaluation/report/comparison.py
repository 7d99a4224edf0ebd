"""A report that compares models on the same examples, side by side."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tfp_bnn.models import PredictiveModel
from tfp_bnn.predictive.sampling_error import scores_of_resamples, spread
from zoo.core.files import written_whole
from zoo.core.shown import shown
from zoo.datasets import Dataset, load_dataset
from zoo.evaluation.blocks import check_draws_fit
from zoo.evaluation.report.measured import Measured, measure
from zoo.evaluation.report.page import Section, Table, page, with_error
from zoo.evaluation.report.provenance import date_of_report, likelihood_in_words, provenance
from zoo.evaluation.report.writing import CONTENTS, EvaluationReport, check_target, described_run
from zoo.hub.manifest import to_json

_FILES = ["index.html", "metrics.json"]


def write_comparison_report(
    models: Mapping[str, PredictiveModel],
    data: str | Dataset | Mapping[str, Dataset],
    split: str,
    folder: str | os.PathLike[str],
    *,
    num_samples: int = 50,
    seed: int = 0,
    calibrated: bool = True,
    split_name: str | None = None,
    overwrite: bool = False,
    command: str | None = None,
) -> EvaluationReport:
    """Evaluates several models on the same examples and writes a report that compares them, completely or not at all.

    Differences have an error bar of their own: all models see the same resampled examples, so what they find hard
    together cancels.

    Args:
        models: Models by name, at least two. The others are compared with the first.
        data: Dataset or its name; or, for models that read other columns of the same rows, a dataset for each, by the
            name of the model.
        split: `"train"`, `"validation"` or `"test"`.
        folder: Folder to create; see `write_evaluation_report`.
        num_samples: Number of Monte Carlo samples of the weights.
        seed: Seed of the samples.
        calibrated: Whether to apply the calibration of the models that have one.
        split_name: Name of the split in the report, such as `"all"` for one that holds all rows. Default: `split`.
        overwrite: Whether to replace an existing report.
        command: Command line shown in the report as its origin, or None.

    Returns:
        Path of the page, and the scores of `zoo.evaluate` of all models, as `<name>/<score>`.

    Raises:
        ValueError: For fewer than two models, datasets whose targets differ, or as in `write_evaluation_report`.
        DataMissingError: If the data are not on this machine and cannot be obtained.
        OSError: If the folder cannot be written.
    """
    if len(models) < 2:
        raise ValueError(f"A comparison needs at least two models, but got {list(models)}.")
    target = check_target(folder, overwrite)
    dataset = load_dataset(data) if isinstance(data, str) else data
    datasets = dict.fromkeys(models, dataset) if isinstance(dataset, Dataset) else dataset
    _check_targets({name: datasets[name] for name in models}, split)
    for name, model in models.items():
        check_draws_fit("A report", model, datasets[name].split(split).x, num_samples, seed)
    with written_whole(target) as working:
        how: dict[str, Any] = {"num_samples": num_samples, "seed": seed, "calibrated": calibrated}
        how["split_name"] = split_name
        measured = [
            measure(model, datasets[name], split, name=name, out_of_distribution=None, **how)
            for name, model in models.items()
        ]
        found = _write_files(working, measured, command)
    return EvaluationReport(target / "index.html", found)


def _check_targets(datasets: Mapping[str, Dataset], split: str) -> None:
    """Refuses datasets that are not the same rows with the same classes."""
    (name, first), *others = datasets.items()
    for other, data in others:
        if data.class_names != first.class_names:
            raise ValueError(
                f"{name} knows the classes {shown(list(first.class_names or ()))}, and {other} "
                f"{shown(list(data.class_names or ()))}. Models can only be compared if their classes are the same, in "
                "the same order."
            )
        if not np.array_equal(data.split(split).y, first.split(split).y):
            raise ValueError(f"The {split} split for {other} has other targets than for {name}. Give the same rows.")


def _write_files(folder: Path, measured: list[Measured], command: str | None) -> dict[str, float]:
    first = measured[0]
    task: Any = CONTENTS[first.predictive.target_kind]
    values = [{**of.scores, **task.further_scores(of.predictive, of.part.y)} for of in measured]
    errors, of_differences = _errors(measured, task.further_scores)
    names = [of.name for of in measured]
    known = [name for name in values[0] if all(name in of_model for of_model in values)]
    scores = [
        [
            name,
            *(with_error(v[name], e.get(name)) for v, e in zip(values, errors, strict=True)),
            _meaning(task, first, name),
        ]
        for name in known
    ]
    differences = [
        [
            name,
            *(
                _difference(of_model[name] - values[0][name], error.get(name))
                for of_model, error in zip(values[1:], of_differences[1:], strict=True)
            ),
        ]
        for name in known
    ]
    about = [provenance(of.model, of.name) | {"likelihood": likelihood_in_words(of.model)} for of in measured]
    facts = [
        [key, *(of_model.get(key, "-") for of_model in about)] for key in dict.fromkeys(k for a in about for k in a)
    ]
    pictures = {of.name: _renamed(index, task.images(of)) for index, of in enumerate(measured, start=1)}
    parts = [
        Section(
            "Metrics",
            tables=[
                Table(
                    "± 2 standard errors over the examples.",
                    ["metric", *names, "unit and meaning"],
                    scores,
                    "l" + "r" * len(names) + "s",
                ),
                Table(
                    f"Differences from {names[0]}, ± 2 standard errors over the examples, which are the same for all "
                    "models. A star marks those that are larger than that.",
                    ["metric", *names[1:]],
                    differences,
                    "l" + "r" * (len(names) - 1),
                ),
            ],
        ),
        Section("Models", tables=[Table("How each was made.", ["", *names], facts, "l" * (1 + len(names)))]),
        *(Section(name, images=images) for name, images in pictures.items()),
        *([] if command is None else [Section("Reproduce", ["This makes the page again."], code=[command])]),
    ]
    images = [image for part in parts for image in part.images]
    for image in images:
        (folder / image.file).write_bytes(image.png)
    date = date_of_report()
    lead = (
        f"On {first.rows}: {len(first.part):,} examples, {first.num_samples} samples, "
        f"seed {first.seed}, the same for all models."
    )
    title = f"Comparison of {', '.join(names)}"
    (folder / "index.html").write_text(page(title, f"{len(names)} models · {date}", lead, parts), "utf-8")
    content = {
        **described_run(first),
        "name": title,
        "date": date,
        "models": {
            of.name: {"metrics": dict(of.scores), "standard_errors": error, "provenance": fact}
            for of, error, fact in zip(measured, errors, about, strict=True)
        },
        "command": command,
        "files": sorted([*_FILES, *(image.file for image in images)]),
    }
    (folder / "metrics.json").write_text(to_json(content), "utf-8")
    return {f"{of.name}/{name}": value for of in measured for name, value in of.scores.items()}


def _errors(measured: list[Measured], further: Any) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """The standard errors of the scores of each model, and of the differences from the first, by the bootstrap."""
    by_model = scores_of_resamples([of.predictive for of in measured], measured[0].part.y, further)
    differences = [
        [
            {name: value - first[name] for name, value in of_set.items() if name in first}
            for first, of_set in zip(by_model[0], of_model, strict=True)
        ]
        for of_model in by_model
    ]
    return [spread(sets) for sets in by_model], [spread(sets) for sets in differences]


def _difference(value: float, error: float | None) -> str:
    sign = "+" if value >= 0 else ""
    star = " *" if error is not None and abs(value) > 2 * error > 0 else ""
    return f"{sign}{with_error(value, error)}{star}"


def _meaning(task: Any, measured: Measured, name: str) -> str:
    unit, meaning = task.SCORES.get(name, ("", "score of the likelihood"))
    return f"{measured.in_units(unit)}: {meaning}" if unit else meaning


def _renamed(index: int, images: list[Any]) -> list[Any]:
    return [replace(image, file=f"model_{index}_{image.file}") for image in images]

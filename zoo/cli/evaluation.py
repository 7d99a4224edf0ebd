"""The command `evaluate`."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from zoo.cli.data import ALL, FORMS, TargetOption, check_data, is_own, load_files
from zoo.cli.early import check_dataset, check_model
from zoo.cli.early_recipes import check_option
from zoo.cli.models import JsonOption, TrustOption, print_numbers
from zoo.cli.progress import say, working
from zoo.cli.starting import start
from zoo.cli.suite_tables import print_suite
from zoo.core.files import check_file_target
from zoo.core.names import unknown_name_message
from zoo.core.shown import printable
from zoo.hub.manifest import to_json


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command("evaluate")(evaluate)


def evaluate(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL",
            help="Name of a pretrained model, or folder or address of an artifact; of several, with --report, that are "
            "compared.",
        ),
    ],
    dataset: Annotated[
        str | None,
        typer.Option(metavar="DATA", help=f"Dataset: {FORMS}. Default: the one that the model was trained on."),
    ] = None,
    target: TargetOption = None,
    split: Annotated[
        str, typer.Option(metavar="SPLIT", help="Split: train, validation or test; of your own data, all for all rows.")
    ] = "test",
    num_samples: Annotated[
        int, typer.Option(min=1, metavar="N", help="Number of Monte Carlo samples of the weights.")
    ] = 50,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the samples.")] = 0,
    calibrated: Annotated[bool, typer.Option(help="Apply the model's calibration.")] = True,
    report: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="New folder for figures, a CSV of all predictions and an HTML page."),
    ] = None,
    suite: Annotated[
        bool,
        typer.Option("--suite", help="Also judge a classifier of images on other data and on corrupted images."),
    ] = False,
    ood: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATASET",
            help="Out-of-distribution data of --report or --suite; can be repeated with --suite. Default: uniform "
            "noise in the report; two of MNIST, Fashion-MNIST and CIFAR-10 in the suite.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --suite: CSV file to write, one number to a row.")
    ] = None,
    save_probabilities: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --suite: NPZ file for labels and 16-bit logarithms of probabilities."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="With --report: replace the report in DIR.")] = False,
    trust: TrustOption = False,
    json: JsonOption = False,
) -> None:
    """Evaluate a model on a split of a dataset.

    With --report, DIR/index.html is a self-contained page with figures and tables that needs no network. It compares
    several models side by side, on the same examples.

    With --suite, a classifier of images is also judged by the plug-in mean of its weights, by how well its uncertainty
    detects other data, on 12 corruptions with 5 severities, and by risk and coverage. On --split validation the other
    data are made from that split: make choices there, not on the test split.
    """
    if not suite and (out is not None or save_probabilities is not None):
        raise ValueError(
            "--out and --save-probabilities can only be used with --suite: give --suite together with them."
        )
    if report is None and overwrite:
        raise ValueError("--overwrite can only be used with --report: give --report DIR together with it.")
    if ood is not None and not suite and (report is None or len(ood) > 1):
        raise ValueError(
            "--ood can only be used once, with --report, or any number of times with --suite: give --report DIR or "
            "--suite together with it."
        )
    for name in names:
        check_model(name, trust)
    check_option("--seed", seed, "EvaluationRecipe", "seed")
    _check_split(split, dataset)
    if dataset is not None:
        check_data(dataset, target)
    elif target is not None:
        raise ValueError("--target names a column of a table of yours: give the table with --dataset.")
    for other in ood or []:
        if other != "uniform":
            check_dataset(other)
    for path in (out, save_probabilities):
        check_file_target(path)
    how: dict[str, Any] = {"num_samples": num_samples, "seed": seed, "calibrated": calibrated}
    if len(names) > 1:
        if report is None or suite or ood is not None:
            raise ValueError(
                "Several models can only be compared in a report: give --report DIR, without --suite and --ood; or "
                "name one model."
            )
        start()
        _compare(names, dataset, target, split, how, report, overwrite, trust, json)
        return
    (name,) = names
    start()
    from zoo.evaluation.card_numbers import UNIFORM
    from zoo.evaluation.card_numbers import evaluate as measure
    from zoo.evaluation.suite import evaluate_suite
    from zoo.evaluation.suite_files import write_probabilities, write_suite
    from zoo.hub.loading import open_model
    from zoo.hub.locating import local
    from zoo.hub.reading import read_artifact

    if report is not None:
        from zoo.evaluation.report.writing import check_target

        # Before the suite, which takes long.
        check_target(report, overwrite)
    # Of an address, one version is read and loaded.
    place = local(name)
    config = read_artifact(place)["config"]
    # What an artifact says is a name, never a path.
    files = dataset if dataset is not None and is_own(dataset) else None
    dataset = dataset or config.get("data", {}).get("dataset")
    if dataset is None:
        raise ValueError(
            f"The artifact {name!r} does not name the dataset that it was trained on. Give it with --dataset."
        )
    judged = page = None
    model: Any = open_model(place, trust)
    data: Any = dataset if files is None else _own_data(files, target, split, model)
    of_data = "test" if split == ALL else split
    # The suite tells what it does, once it has seen that it can.
    message = f"evaluating {name} on {dataset} ({split}), {num_samples} samples"
    with contextlib.nullcontext() if suite else working(message):
        if suite:
            judged = evaluate_suite(model, data, of_data, **how, out_of_distribution=ood, split_name=split, tell=say)
            if out is not None:
                write_suite(judged, config["name"], out)
            if save_probabilities is not None:
                write_probabilities(judged, config["name"], save_probabilities)
        if report is not None:
            from zoo.evaluation.report import write_evaluation_report

            of_report = UNIFORM if suite or not ood else ood[0]
            others = ["--suite"] if suite else ["--ood", of_report]
            others += [word for other in ood or [] if suite for word in ("--ood", other)]
            written = write_evaluation_report(
                model,
                data,
                of_data,
                report,
                name=config["name"],
                **how,
                out_of_distribution=of_report,
                suite=judged,
                split_name=split,
                overwrite=overwrite,
                command=_command([name], dataset, target, split, how, others, report, trust),
            )
            metrics, page = written.metrics, str(written.path)
        elif judged is None:
            metrics = measure(model, data, of_data, num_samples, seed, calibrated)
    if json:
        numbers = metrics if judged is None else judged.to_dict()
        about: dict[str, Any] = {"name": name, "dataset": dataset, "split": split, **how, **numbers}
        typer.echo(to_json(about if page is None else {**about, "report": page}), nl=False)
        return
    if judged is None:
        print_numbers(metrics)
    else:
        print_suite(judged)
    if page:
        typer.echo(printable(f"report: {page}"))


def _compare(
    names: list[str],
    dataset: str | None,
    target: str | None,
    split: str,
    how: dict[str, Any],
    report: Path,
    overwrite: bool,
    trust: bool,
    json: bool,
) -> None:
    from zoo.evaluation.report import write_comparison_report
    from zoo.hub.loading import open_model
    from zoo.hub.locating import local

    with working(f"comparing {', '.join(names)} ({split}), {how['num_samples']} samples"):
        models: dict[str, Any] = {name: open_model(local(name), trust) for name in dict.fromkeys(names)}
        trained_on = {name: model.card["config"].get("data", {}).get("dataset") for name, model in models.items()}
        # What an artifact says is a name, never a path.
        own = dataset is not None and is_own(dataset)
        if dataset is None:
            known = list(dict.fromkeys(filter(None, trained_on.values())))
            if len(known) != 1:
                trained = ", ".join(f"{name} on {of or 'data without a name'}" for name, of in trained_on.items())
                raise ValueError(f"The models do not name the same dataset: {trained}. Give one with --dataset.")
            (dataset,) = known
        data = _own_data_of(models, dataset, target, split) if own else dataset
        written = write_comparison_report(
            models,
            data,
            "test" if split == ALL else split,
            report,
            **how,
            split_name=split,
            overwrite=overwrite,
            command=_command(names, dataset, target, split, how, [], report, trust),
        )
    if json:
        typer.echo(
            to_json({"dataset": dataset, "split": split, **written.metrics, "report": str(written.path)}), nl=False
        )
        return
    print_numbers(written.metrics)
    typer.echo(printable(f"report: {written.path}"))


def _command(
    names: list[str],
    dataset: str,
    target: str | None,
    split: str,
    how: dict[str, Any],
    others: list[str],
    report: Path,
    trust: bool,
) -> str:
    """Returns the command that makes a report again."""
    words = ["tfp-bnn", "evaluate", *names, "--dataset", dataset, "--split", split]
    words += [] if target is None else ["--target", target]
    words += ["--num-samples", str(how["num_samples"]), "--seed", str(how["seed"]), *others]
    words += ["--report", str(report), "--calibrated" if how["calibrated"] else "--no-calibrated"]
    return shlex.join([*words, *(["--trust"] if trust else [])])


def _own_data(files: str, target: str | None, split: str, model: Any) -> Any:
    """Returns own files as a dataset for a model: its task, its classes, and its columns by name."""
    return load_files(
        files,
        target,
        task=model.likelihood.task,
        class_names=model.class_names,
        feature_names=_columns_of(model),
        whole=split == ALL,
        images=_takes_images(model),
    )


def _takes_images(model: Any) -> bool:
    return len(model.card["config"]["config"]["input_shape"]) == 3


def _own_data_of(models: dict[str, Any], files: str, target: str | None, split: str) -> dict[str, Any]:
    """Returns own files as a dataset for each of some models, read once for those of the same columns and classes."""
    keys = {name: to_json([_columns_of(m), m.class_names, _takes_images(m)]) for name, m in models.items()}
    # Of those with the same key, any one.
    of_keys = {keys[name]: model for name, model in models.items()}
    read = {key: _own_data(files, target, split, model) for key, model in of_keys.items()}
    return {name: read[key] for name, key in keys.items()}


def _columns_of(model: Any) -> list[str] | None:
    names: list[str] | None = model.card["config"].get("data", {}).get("feature_names")
    return names


def _check_split(split: str, dataset: str | None) -> None:
    splits = ["train", "validation", "test"]
    if dataset is not None and is_own(dataset):
        splits.append(ALL)
    if split not in splits:
        raise ValueError(unknown_name_message("split", split, splits))

"""The command `evaluate`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from zoo.cli.models import JsonOption, TrustOption, print_numbers
from zoo.cli.progress import say, working
from zoo.cli.suite_tables import print_suite
from zoo.core.shown import printable
from zoo.hub.manifest import to_json


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command("evaluate")(evaluate)


def evaluate(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...",
            help="Name of a pretrained model, or folder or address of an artifact; of several, with --report, that are "
            "compared.",
        ),
    ],
    dataset: Annotated[
        str | None, typer.Option(help="Dataset. Default: the one that the model was trained on.")
    ] = None,
    split: Annotated[str, typer.Option(help="Split: train, validation or test.")] = "test",
    num_samples: Annotated[int, typer.Option(min=1, help="Number of Monte Carlo samples of the weights.")] = 50,
    seed: Annotated[int, typer.Option(help="Seed of the samples.")] = 0,
    calibrated: Annotated[bool, typer.Option(help="Apply the model's calibration.")] = True,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for figures, a CSV of all predictions and an HTML page.")
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
    if len(names) > 1:
        if report is None or suite or ood is not None:
            raise ValueError(
                "Several models can only be compared in a report: give --report DIR, without --suite and --ood; or "
                "name one model."
            )
        _compare(names, dataset, split, num_samples, seed, calibrated, report, overwrite, trust, json)
        return
    (name,) = names
    from zoo.evaluation.card_numbers import UNIFORM
    from zoo.evaluation.card_numbers import evaluate as measure
    from zoo.evaluation.suite import evaluate_suite
    from zoo.evaluation.suite_files import check_file, write_probabilities, write_suite
    from zoo.hub.loading import open_model
    from zoo.hub.locating import local
    from zoo.hub.reading import read_artifact

    for path in (out, save_probabilities):
        check_file(path)
    # Of an address, one version is read and loaded.
    place = local(name)
    config = read_artifact(place)["config"]
    dataset = dataset or config.get("data", {}).get("dataset")
    if dataset is None:
        raise ValueError(f"The artifact {name!r} does not name the dataset that it was trained on. Pass --dataset.")
    judged = page = None
    with working(f"evaluating {name} on {dataset} ({split}), {num_samples} samples"):
        model = open_model(place, trust)
        how: dict[str, Any] = {"num_samples": num_samples, "seed": seed, "calibrated": calibrated}
        if suite:
            judged = evaluate_suite(model, dataset, split, **how, out_of_distribution=ood, tell=say)
            if out is not None:
                write_suite(judged, config["name"], out)
            if save_probabilities is not None:
                write_probabilities(judged, config["name"], save_probabilities)
        if report is not None:
            from zoo.evaluation.report import write_evaluation_report

            of_report = UNIFORM if suite or not ood else ood[0]
            words = ["tfp-bnn", "evaluate", name, "--dataset", dataset, "--split", split]
            words += ["--num-samples", str(num_samples), "--seed", str(seed)]
            words += ["--suite"] if suite else ["--ood", of_report]
            words += [word for other in ood or [] if suite for word in ("--ood", other)]
            words += ["--report", str(report), "--calibrated" if calibrated else "--no-calibrated"]
            words += ["--trust"] if trust else []
            written = write_evaluation_report(
                model,
                dataset,
                split,
                report,
                name=config["name"],
                **how,
                out_of_distribution=of_report,
                suite=judged,
                overwrite=overwrite,
                command=shlex.join(words),
            )
            metrics, page = written.metrics, str(written.path)
        elif judged is None:
            metrics = measure(model, dataset, split, num_samples, seed, calibrated)
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
    split: str,
    num_samples: int,
    seed: int,
    calibrated: bool,
    report: Path,
    overwrite: bool,
    trust: bool,
    json: bool,
) -> None:
    from zoo.evaluation.report import write_comparison_report
    from zoo.hub.loading import open_model
    from zoo.hub.locating import local

    with working(f"comparing {', '.join(names)} ({split}), {num_samples} samples"):
        models: dict[str, Any] = {name: open_model(local(name), trust) for name in dict.fromkeys(names)}
        trained_on = {name: model.card["config"].get("data", {}).get("dataset") for name, model in models.items()}
        dataset = dataset or next(filter(None, trained_on.values()), None)
        if dataset is None:
            raise ValueError(
                f"The artifacts {names} do not name the dataset that they were trained on. Pass --dataset."
            )
        words = ["tfp-bnn", "evaluate", *names, "--dataset", dataset, "--split", split]
        words += ["--num-samples", str(num_samples), "--seed", str(seed), "--report", str(report)]
        words += ["--calibrated" if calibrated else "--no-calibrated", *(["--trust"] if trust else [])]
        written = write_comparison_report(
            models,
            dataset,
            split,
            report,
            num_samples=num_samples,
            seed=seed,
            calibrated=calibrated,
            overwrite=overwrite,
            command=shlex.join(words),
        )
    if json:
        typer.echo(
            to_json({"dataset": dataset, "split": split, **written.metrics, "report": str(written.path)}), nl=False
        )
        return
    print_numbers(written.metrics)
    typer.echo(printable(f"report: {written.path}"))

"""The commands `train`, `finetune` and `evaluate`."""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from zoo.cli.models import JsonOption, TrustOption
from zoo.cli.progress import say, training_progress, working
from zoo.core.shown import printable
from zoo.hub.manifest import to_json


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command("train")(train)
    app.command("finetune")(finetune)
    app.command("evaluate")(evaluate)


def train(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe of the zoo, or a YAML file.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the artifact. Default: nothing is saved.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Number of epochs. Default: the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Training seed. Default: the recipe's.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Number of training seeds for the spread.")] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe, as in optimizer.learning_rate=1e-3."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an artifact or unfinished run.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the unfinished run of --out.")] = False,
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for TensorBoard logs: tensorboard --logdir DIR.")
    ] = None,
    trust: TrustOption = False,
    json: JsonOption = False,
) -> None:
    """Train a model from a recipe, calibrate it, and evaluate it on the test split for the recipe's training seeds.

    A recipe with start_from is run as a fine-tuning. With --out, checkpoints and log.csv are kept in OUT.training until
    the artifact is written. A run that was killed or interrupted continues with --resume, and its result is the same as
    without the interruption.
    """
    from zoo.recipes import parse_changes
    from zoo.training import train as train_by_recipe

    with _says_how_to_go_on(out), training_progress() as callbacks:
        run = train_by_recipe(
            recipe,
            out,
            epochs=epochs,
            seed=seed,
            seeds=seeds,
            overrides=parse_changes(changes or []),
            overwrite=overwrite,
            resume=resume,
            trust=trust,
            callbacks=callbacks,
            tensorboard=tensorboard,
            tell=say,
        )
    if json:
        typer.echo(
            to_json({"name": run.recipe.name, "path": str(run.path) if run.path else None, **run.metrics}), nl=False
        )
        return
    _print_table({**run.metrics["test"], **run.metrics.get("conformal", {})})
    if run.path:
        typer.echo(printable(f"saved: {run.path}"))


def finetune(
    name: Annotated[str, typer.Argument(help="Name of a pretrained model, or the folder of an artifact.")],
    dataset: Annotated[str, typer.Option(help="Dataset to fine-tune on. Its training split is used.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the artifact. Default: nothing is saved.")] = None,
    prior: Annotated[
        str, typer.Option(help="posterior, default, or a prior in YAML, such as '{name: laplace, scale: 0.3}'.")
    ] = "posterior",
    inflate: Annotated[str, typer.Option(help="Factor for the posterior's standard deviations, or auto.")] = "auto",
    head_scale: Annotated[str, typer.Option(help="Scale of the prior of the new head, or auto.")] = "auto",
    mix: Annotated[float | None, typer.Option(help="Share of a broad component of the prior, in (0, 1).")] = None,
    freeze: Annotated[
        list[str] | None, typer.Option(metavar="LAYER", help="Layer that is not trained. Can be repeated.")
    ] = None,
    head: Annotated[str, typer.Option(help="Last layer: new or keep.")] = "new",
    adapt_inputs: Annotated[
        bool, typer.Option("--adapt-inputs", help="Let the model resize and rescale images.")
    ] = False,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps. Default: 10 passes, at least 300 steps.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Rows per step. Default: 16 for up to 500 rows, 32 for up to 5,000, else 128.")
    ] = None,
    learning_rate: Annotated[float, typer.Option(help="Initial learning rate of Adam.")] = 4e-3,
    seed: Annotated[int, typer.Option(help="Seed of the new head, the order of the rows and the noise.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an artifact or unfinished run.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the unfinished run of --out.")] = False,
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for TensorBoard logs: tensorboard --logdir DIR.")
    ] = None,
    trust: TrustOption = False,
    json: JsonOption = False,
) -> None:
    """Fine-tune a model on another dataset, with its posterior as the prior, and evaluate it on the test split.

    Cross-validation (auto) only uses the training split. Checkpoints and --resume work as in train, with a tenth of the
    steps as an epoch. To repeat the fine-tuning, run: tfp-bnn train OUT/recipe.yaml.
    """
    from zoo.training.fine_tuning import fine_tune

    say(f"fine-tuning {name} on {dataset} ...")
    with _says_how_to_go_on(out), training_progress() as callbacks:
        done = fine_tune(
            name,
            dataset,
            prior=_prior(prior),
            inflate=_number_or_word("--inflate", inflate),
            head_scale=_number_or_word("--head-scale", head_scale),
            mix=mix,
            freeze=freeze or [],
            head=head,  # type: ignore[arg-type]
            adapt_inputs=adapt_inputs,
            steps=steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            seed=seed,
            out=out,
            overwrite=overwrite,
            trust=trust,
            resume=resume,
            callbacks=callbacks,
            tensorboard=tensorboard,
            tell=say,
        )
    about = {"inflate": done.inflate, "head_scale": done.head_scale, "path": str(done.path) if done.path else None}
    if json:
        typer.echo(to_json({"source": name, "dataset": dataset, **about, **done.metrics}), nl=False)
        return
    _print_table({key: value for key, value in about.items() if isinstance(value, float)} | done.metrics["test"])
    if done.path:
        typer.echo(printable(f"saved: {done.path}"))


def evaluate(
    name: Annotated[str, typer.Argument(help="Name of a pretrained model, or the folder of an artifact.")],
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
    ood: Annotated[
        str | None,
        typer.Option(metavar="DATASET", help="With --report: out-of-distribution data. Default: uniform noise."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="With --report: replace the report in DIR.")] = False,
    trust: TrustOption = False,
    json: JsonOption = False,
) -> None:
    """Evaluate a model on a split of a dataset.

    With --report, DIR/index.html is a self-contained page with figures and tables that needs no network.
    """
    if report is None and (overwrite or ood is not None):
        raise ValueError("--ood and --overwrite can only be used with --report: give --report DIR together with them.")
    from zoo.evaluation.card_numbers import UNIFORM
    from zoo.evaluation.card_numbers import evaluate as measure
    from zoo.hub.loading import open_model
    from zoo.hub.reading import read_artifact

    config = read_artifact(name)["config"]
    dataset = dataset or config.get("data", {}).get("dataset")
    if dataset is None:
        raise ValueError(f"The artifact {name!r} does not name the dataset that it was trained on. Pass --dataset.")
    page = None
    with working(f"evaluating {name} on {dataset} ({split}), {num_samples} samples"):
        model = open_model(name, trust)
        if report is None:
            metrics = measure(model, dataset, split, num_samples, seed, calibrated)
        else:
            from zoo.evaluation.report import write_evaluation_report

            ood = ood or UNIFORM
            words = ["tfp-bnn", "evaluate", name, "--dataset", dataset, "--split", split]
            words += ["--num-samples", str(num_samples), "--seed", str(seed), "--ood", ood, "--report", str(report)]
            words += ["--calibrated" if calibrated else "--no-calibrated", *(["--trust"] if trust else [])]
            written = write_evaluation_report(
                model,
                dataset,
                split,
                report,
                name=config["name"],
                num_samples=num_samples,
                seed=seed,
                calibrated=calibrated,
                out_of_distribution=ood,
                overwrite=overwrite,
                command=shlex.join(words),
            )
            metrics, page = written.metrics, str(written.path)
    if json:
        about: dict[str, Any] = {"name": name, "dataset": dataset, "split": split, "num_samples": num_samples}
        about |= {"seed": seed, "calibrated": calibrated, **metrics}
        typer.echo(to_json(about if page is None else {**about, "report": page}), nl=False)
        return
    _print_table(metrics)
    if page:
        typer.echo(printable(f"report: {page}"))


@contextlib.contextmanager
def _says_how_to_go_on(out: Path | None) -> Iterator[None]:
    """Turns an interruption into exit code 128 + signal and prints the command that continues the run."""
    from zoo.training.signals import TrainingInterrupted

    try:
        yield
    except TrainingInterrupted as interruption:
        say(f"{interruption}. To continue:\n{_resume_command(sys.argv[1:])}")
        raise typer.Exit(128 + interruption.signum) from None
    except KeyboardInterrupt:
        # Interrupted while reading data, choosing a prior, or calibrating and evaluating the trained model.
        if out is not None:
            say(f"interrupted. To continue:\n{_resume_command(sys.argv[1:])}")
        raise typer.Exit(128 + signal.SIGINT) from None


def _resume_command(arguments: list[str]) -> str:
    return shlex.join(["tfp-bnn", *arguments, *([] if "--resume" in arguments else ["--resume"])])


def _number_or_word(option: str, value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        if value != "auto":
            raise ValueError(f"{option} must be a number or auto, but got {value!r}.") from None
        return value


def _prior(text: str) -> Any:
    """Parses a prior from the command line: a name, or a mapping in YAML."""
    from zoo.recipes.yaml_text import parse_yaml, with_numbers

    try:
        return with_numbers(parse_yaml(text))
    except ValueError as error:
        raise ValueError(f"--prior {text!r} is not valid YAML: {error}.") from None


def _print_table(metrics: dict[str, float]) -> None:
    for name, value in metrics.items():
        typer.echo(f"{name:<20} {value:.4f}")

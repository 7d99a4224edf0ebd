"""The commands `train` and `finetune`."""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from zoo.cli.data import FORMS, TargetOption, UnitOption, check_data, check_unit, is_own, load_files, load_files_like
from zoo.cli.early import bundled_recipes, check_model, check_recipe
from zoo.cli.early_recipes import check_changes, check_layers, check_option, check_prior, check_strategy
from zoo.cli.models import JsonOption, ModelArgument, TrustOption, print_numbers
from zoo.cli.progress import say, training_progress
from zoo.cli.starting import start
from zoo.core.names import unknown_name_message
from zoo.core.shown import printable
from zoo.core.yaml_text import parse_changes, parse_yaml, with_numbers
from zoo.hub.manifest import bundled_models, check_target, to_json

EpochsOption = Annotated[int | None, typer.Option(metavar="N", help="Number of epochs. Default: the recipe's.")]
SeedsOption = Annotated[
    int | None,
    typer.Option(min=1, max=1000, metavar="N", help="Number of training seeds for the spread. Default: the recipe's."),
]


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command("train", short_help="Train a model from a recipe, and evaluate it.")(train)
    app.command("finetune", short_help="Fine-tune a model on other data: its posterior is the prior.")(finetune)


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE", help="Name of a recipe of the zoo, or a YAML file.", autocompletion=names_of_recipes
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the artifact. Default: nothing is saved.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="DATA", help=f"Dataset: {FORMS}. Default: the recipe's.")
    ] = None,
    target: TargetOption = None,
    target_unit: UnitOption = None,
    epochs: EpochsOption = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Training seed. Default: the recipe's.")] = None,
    seeds: SeedsOption = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe, as in optimizer.learning_rate=1e-3."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an artifact or unfinished run.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the unfinished run of --out.")] = False,
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for TensorBoard logs: tensorboard --logdir DIR.")
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(metavar="NAME", help="mirrored: all GPUs share each batch. Default: one.")
    ] = None,
    trust: TrustOption = False,
    json: JsonOption = False,
) -> None:
    """Train a model from a recipe, calibrate it, and evaluate it on the test split for the recipe's training seeds.

    A recipe with start_from is run as a fine-tuning. With --out, checkpoints and log.csv are kept in OUT.training until
    the artifact is written. A run that was killed or interrupted continues with --resume, and its result is the same as
    without the interruption.

    Data of your own are split at random, always in the same way: 64 % train, 16 % validation and 20 % test. On another
    dataset than the recipe's, pixels are divided by a maximum that fits these data, and inputs out of distribution are
    uniform noise, unless --set says otherwise.
    """
    check_recipe(recipe)
    overrides = parse_changes(changes or [])
    if dataset is not None:
        check_data(dataset, target)
        overrides["dataset"] = None if is_own(dataset) else dataset
    elif target is not None:
        raise ValueError("--target names a column of a table of yours: give the table with --dataset.")
    given = {key: value for key, value in {"epochs": epochs, "seed": seed}.items() if value is not None}
    check_changes(recipe, [overrides | given])
    check_strategy(strategy)
    check_unit(target_unit, dataset)
    check_out(out, overwrite, resume)
    say(f"training {recipe}; {_saves(out)}")
    start()
    from zoo.training import train as train_by_recipe
    from zoo.training.planning import named_after, number_of_fits, planned, takes_images, task_of

    plan = planned(recipe, overrides, epochs=epochs, seed=seed, seeds=seeds)
    data: Any = None
    if dataset is not None and is_own(dataset):
        start_from = getattr(plan, "start_from", None)
        if start_from is not None and start_from.model is not None:
            keep = start_from.head == "keep"
            data = load_files_like(start_from.model, dataset, target, keep_classes=keep, target_unit=target_unit)
        else:
            data = load_files(dataset, target, task=task_of(plan), target_unit=target_unit, images=takes_images(plan))
    if data is not None and "name" not in overrides:
        plan = named_after(plan, data.name)
    with says_how_to_go_on(_resumable(out)), training_progress(number_of_fits(plan)) as callbacks:
        run = train_by_recipe(
            plan,
            out,
            data=data,
            overwrite=overwrite,
            resume=resume,
            trust=trust,
            callbacks=callbacks,
            tensorboard=tensorboard,
            strategy=strategy,
            tell=say,
        )
    if json:
        typer.echo(
            to_json({"name": run.recipe.name, "path": str(run.path) if run.path else None, **run.metrics}), nl=False
        )
        return
    print_numbers({**run.metrics["test"], **run.metrics.get("conformal", {})})
    if run.path:
        typer.echo(printable(f"saved: {run.path}"))


def finetune(
    name: ModelArgument,
    dataset: Annotated[
        str, typer.Option(metavar="DATA", help=f"Dataset: {FORMS}. Its training split is used to fine-tune.")
    ],
    target: TargetOption = None,
    target_unit: UnitOption = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the artifact. Default: nothing is saved.")
    ] = None,
    prior: Annotated[
        str,
        typer.Option(
            metavar="PRIOR", help="posterior, default, or a prior in YAML, such as '{name: laplace, scale: 0.3}'."
        ),
    ] = "posterior",
    inflate: Annotated[
        str, typer.Option(metavar="NUMBER", help="Factor for the posterior's standard deviations, or auto.")
    ] = "auto",
    head_scale: Annotated[
        str, typer.Option(metavar="NUMBER", help="Scale of the prior of the new head, or auto.")
    ] = "auto",
    mix: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="Share of a broad component of the prior, in (0, 1).")
    ] = None,
    freeze: Annotated[
        list[str] | None, typer.Option(metavar="LAYER", help="Layer that is not trained. Can be repeated.")
    ] = None,
    head: Annotated[str, typer.Option(metavar="new|keep", help="Last layer: new or keep.")] = "new",
    adapt_inputs: Annotated[
        bool | None,
        typer.Option(
            "--adapt-inputs/--no-adapt-inputs",
            help="Let the model resize and rescale images, and turn them grey. Default: for a folder of images.",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(metavar="N", help="Optimizer steps. Default: 10 passes, at least 300 steps.")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(metavar="N", help="Rows per step. Default: 16 for up to 500 rows, 32 for up to 5,000, else 128."),
    ] = None,
    learning_rate: Annotated[float, typer.Option(metavar="NUMBER", help="Initial learning rate of Adam.")] = 4e-3,
    seed: Annotated[
        int, typer.Option(metavar="N", help="Seed of the new head, the order of the rows and the noise.")
    ] = 0,
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
    steps as an epoch. To repeat the fine-tuning, run: tfp-bnn train OUT/recipe.yaml, with the same --dataset and
    --target if the data are files of yours.
    """
    check_model(name, trust)
    check_data(dataset, target)
    check_unit(target_unit, dataset)
    check_out(out, overwrite, resume)
    how: dict[str, Any] = {
        "prior": _prior(prior),
        "inflate": _number_or_word("--inflate", inflate),
        "head_scale": _number_or_word("--head-scale", head_scale),
    }
    for option, value, field in (
        ("--inflate", how["inflate"], "inflate"),
        ("--head-scale", how["head_scale"], "head_scale"),
        ("--mix", mix, "mix"),
    ):
        check_option(option, value, "StartFromRecipe", field)
    for option, value, field in (
        ("--steps", steps, "steps"),
        ("--batch-size", batch_size, "batch_size"),
        ("--learning-rate", learning_rate, "learning_rate"),
        ("--seed", seed, "seed"),
    ):
        check_option(option, value, "FineTuneRecipe", field)
    check_prior(how["prior"])
    check_layers(name, freeze or [])
    if head not in ("new", "keep"):
        raise ValueError(unknown_name_message("--head", head, ("new", "keep")))
    say(f"fine-tuning {name} on {dataset}; {_saves(out)}")
    start()
    from zoo.training.fine_tuning import fine_tune

    data: Any = dataset
    if is_own(dataset):
        data = load_files_like(name, dataset, target, keep_classes=head == "keep", target_unit=target_unit)
    with says_how_to_go_on(_resumable(out)), training_progress() as callbacks:
        done = fine_tune(
            name,
            data,
            **how,
            mix=mix,
            freeze=freeze or [],
            head=head,  # type: ignore[arg-type]
            adapt_inputs=is_own(dataset) and Path(dataset).is_dir() if adapt_inputs is None else adapt_inputs,
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
    chosen = {"inflate": done.inflate, "head_scale": done.head_scale, "path": str(done.path) if done.path else None}
    if json:
        typer.echo(to_json({"source": name, "dataset": dataset, **chosen, **done.metrics}), nl=False)
        return
    print_numbers({key: value for key, value in chosen.items() if isinstance(value, float)} | done.metrics["test"])
    if done.path:
        typer.echo(printable(f"saved: {done.path}"))


def names_of_recipes(incomplete: str) -> list[str]:
    """Returns the names of the zoo's recipes that begin in some way, for the completion of shells."""
    return [name for name in bundled_recipes() if name.startswith(incomplete)]


def check_out(out: Path | None, overwrite: bool, resume: bool = False) -> None:
    """Checks the folder for an artifact before TensorFlow is imported, as the training does.

    Raises:
        ValueError: If it exists and must not be replaced, has the name of a bundled model, or is missing for
            `--resume`.
        OSError: If it could not be made.
    """
    if out is not None and str(out) in bundled_models():
        raise ValueError(
            f"--out {out} is the name of a bundled model, which other commands would open instead of the folder. "
            f"Choose another, such as runs/{out}."
        )
    if out is not None:
        # A run that was killed once its artifact was written finds that; see `RunFolder`.
        check_target(out, overwrite or resume)
    elif resume:
        raise ValueError("There is nothing to resume without a folder. Give the --out of the run.")


def _saves(out: Path | None) -> str:
    return f"to be saved in {out}" if out is not None else "nothing will be saved (--out FOLDER saves it)"


@contextlib.contextmanager
def says_how_to_go_on(resumable: Callable[[], bool]) -> Iterator[None]:
    """Turns an interruption into exit code 128 + signal and prints the command that continues the run.

    Args:
        resumable: Function that says, once the run is interrupted, whether there is anything to go on with.
    """
    from zoo.training.signals import TrainingInterrupted

    try:
        yield
    except TrainingInterrupted as interruption:
        say(f"{interruption}. To continue:\n{_resume_command(sys.argv[1:])}")
        raise typer.Exit(128 + interruption.signum) from None
    except KeyboardInterrupt:
        # Interrupted while reading data, choosing a prior, or calibrating and evaluating the trained model.
        if resumable():
            say(f"interrupted. To continue:\n{_resume_command(sys.argv[1:])}")
        else:
            say("interrupted. There is nothing to go on with: start the command again.")
        raise typer.Exit(128 + signal.SIGINT) from None


def _resumable(out: Path | None) -> Callable[[], bool]:
    from zoo.training.run_folder import has_unfinished

    return lambda: out is not None and has_unfinished(out)


def _resume_command(arguments: list[str]) -> str:
    return shlex.join(["tfp-bnn", *arguments, *([] if "--resume" in arguments else ["--resume"])])


def _number_or_word(option: str, value: str) -> float | str:
    if value == "auto":
        return value
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"{option} must be a number or auto, but got {value!r}.") from None


def _prior(text: str) -> Any:
    """Parses a prior from the command line: a name, or a mapping in YAML."""
    try:
        return with_numbers(parse_yaml(text))
    except ValueError as error:
        raise ValueError(f"--prior {text!r} is not valid YAML: {error}.") from None

"""The command `prune`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from zoo.cli.data import FORMS, TargetOption, check_data, is_own, load_files
from zoo.cli.early import check_model
from zoo.cli.early_recipes import check_layers, check_option
from zoo.cli.models import JsonOption, ModelArgument, TrustOption, print_numbers
from zoo.cli.progress import say, training_progress
from zoo.cli.starting import start
from zoo.core.shown import printable
from zoo.hub.manifest import check_target, to_json


class By(StrEnum):
    """The criteria by their names on the command line."""

    SIGNAL_TO_NOISE = "signal_to_noise"
    KL = "kl"
    MAGNITUDE = "magnitude"
    L1 = "l1"


class Scope(StrEnum):
    """What is compared with each other."""

    GLOBAL = "global"
    LAYER = "layer"


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command("prune")(prune)


def prune(
    name: ModelArgument,
    fraction: Annotated[
        float, typer.Option(metavar="NUMBER", help="Share of the weights to remove, or of the units: 0 to below 1.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the artifact. Default: nothing is saved.")
    ] = None,
    by: Annotated[By, typer.Option(help="What a weight is worth. l1 is another name of magnitude.")] = (
        By.SIGNAL_TO_NOISE
    ),
    scope: Annotated[Scope, typer.Option(help="Compare all weights, or remove the share of every layer.")] = (
        Scope.GLOBAL
    ),
    units: Annotated[
        bool, typer.Option("--units", help="Remove whole units and filters: the result is a smaller dense network.")
    ] = False,
    layer: Annotated[
        list[str] | None, typer.Option(metavar="LAYER", help="Layer to prune. Can be repeated. Default: all.")
    ] = None,
    finetune_epochs: Annotated[
        int, typer.Option(metavar="N", help="Passes over the training split after pruning. Pruned weights stay pruned.")
    ] = 0,
    rounds: Annotated[
        int,
        typer.Option(metavar="N", help="Prune in rounds, each with the passes of --finetune-epochs."),
    ] = 1,
    learning_rate: Annotated[
        float, typer.Option(metavar="NUMBER", help="Initial learning rate of Adam in these passes.")
    ] = 1e-3,
    dataset: Annotated[
        str | None, typer.Option(metavar="DATA", help=f"Dataset: {FORMS}. Default: that of the model.")
    ] = None,
    target: TargetOption = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the order of the rows.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an artifact.")] = False,
    trust: TrustOption = False,
    json: JsonOption = False,
) -> None:
    """Remove the weights or units that matter least.

    What is left can be trained further, and is evaluated on the test split. The artifact stores the weights that are
    kept, and which these are. Its calibration is fitted again.
    """
    check_model(name, trust)
    for option, value, field in (
        ("--fraction", fraction, "fraction"),
        ("--finetune-epochs", finetune_epochs, "epochs"),
        ("--rounds", rounds, "rounds"),
        ("--learning-rate", learning_rate, "learning_rate"),
        ("--seed", seed, "seed"),
    ):
        check_option(option, value, "PruningRecipe", field)
    check_layers(name, layer or [], "prune")
    if rounds > 1 and not finetune_epochs:
        raise ValueError("--rounds without training between them are one: give --finetune-epochs, the passes of each.")
    if dataset is not None:
        check_data(dataset, target)
    elif target is not None:
        raise ValueError("--target names a column of a table of yours: give the table with --dataset.")
    if out is not None:
        check_target(out, overwrite)
    say(f"pruning {name}; " + (f"to be saved in {out}" if out else "nothing will be saved (--out FOLDER saves it)"))
    start()
    from zoo.datasets import load_dataset
    from zoo.hub.reading import read_artifact
    from zoo.training.pruning import prune_artifact

    data: Any = None
    if dataset is not None and is_own(dataset):
        about = read_artifact(name)["config"].get("data", {})
        data = load_files(
            dataset,
            target,
            task=about.get("task"),
            class_names=about.get("class_names"),
            feature_names=about.get("feature_names"),
        )
    elif dataset is not None:
        data = load_dataset(dataset)
    with training_progress(rounds) as callbacks:
        done = prune_artifact(
            name,
            fraction,
            by.value,
            scope.value,
            units=units,
            layers=layer,
            epochs=finetune_epochs,
            rounds=rounds,
            learning_rate=learning_rate,
            seed=seed,
            data=data,
            out=out,
            overwrite=overwrite,
            trust=trust,
            callbacks=callbacks,
            tell=say,
        )
    path = str(done.path) if done.path else None
    if json:
        typer.echo(to_json({"path": path, "pruning": done.about["pruning"], **done.metrics}), nl=False)
        return
    for of_layer, share in done.about["pruning"]["sparsity"].items():
        left = done.about["pruning"]["layer_units"].get(of_layer)
        typer.echo(printable(f"{of_layer:<20} {f'{left} units' if left else f'{share:.1%} pruned'}"))
    print_numbers(done.metrics.get("test", {}))
    if path:
        typer.echo(printable(f"saved: {path}"))

"""The command `prune`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from zoo.cli.data import FORMS, TargetOption, check_data, is_own, load_files_like
from zoo.cli.early import check_criterion, check_model
from zoo.cli.early_recipes import check_layers, check_option
from zoo.cli.models import JsonOption, ModelArgument, TrustOption, print_numbers
from zoo.cli.progress import say, training_progress
from zoo.cli.starting import start
from zoo.cli.training import check_out
from zoo.core.shown import printable
from zoo.hub.manifest import to_json


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
        float | None,
        typer.Option(metavar="NUMBER", help="Share of the weights to remove, or of the units: 0 to below 1."),
    ] = None,
    below: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="Instead of a share, remove all that is worth less; > 0.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the artifact. Default: nothing is saved.")
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What a weight is worth: signal_to_noise, kl or magnitude, which is also called l1.",
        ),
    ] = "signal_to_noise",
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
    rounds: Annotated[int, typer.Option(metavar="N", help="Prune in rounds, each the same share of what is left.")] = 1,
    epochs_between: Annotated[int, typer.Option(metavar="N", help="Passes between rounds, at a constant rate.")] = 1,
    learning_rate: Annotated[
        float, typer.Option(metavar="NUMBER", help="Initial learning rate of Adam in all passes.")
    ] = 1e-3,
    dataset: Annotated[
        str | None, typer.Option(metavar="DATA", help=f"Dataset: {FORMS}. Default: that of the model.")
    ] = None,
    target: TargetOption = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the order of the rows and of the noise.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an artifact.")] = False,
    trust: TrustOption = False,
    json: JsonOption = False,
) -> None:
    """Remove the weights or units that matter least.

    What is left can be trained further, and is evaluated on the test split. The artifact stores the weights that are
    kept, and which these are. Its calibration is fitted again.
    """
    check_model(name, trust)
    if (fraction is None) == (below is None):
        raise ValueError("Give either --fraction, the share to remove, or --below, the worth that is needed to stay.")
    for option, value, field in (
        ("--fraction", fraction, "fraction"),
        ("--below", below, "below"),
        ("--finetune-epochs", finetune_epochs, "epochs"),
        ("--rounds", rounds, "rounds"),
        ("--epochs-between", epochs_between, "epochs_between"),
        ("--learning-rate", learning_rate, "learning_rate"),
        ("--seed", seed, "seed"),
    ):
        check_option(option, value, "PruningRecipe", field)
    check_layers(name, layer or [], "prune")
    if rounds > 1 and not finetune_epochs:
        raise ValueError("Several --rounds need training after the last one: give --finetune-epochs.")
    if rounds > 1 and fraction is None:
        raise ValueError("--rounds are steps to a share: with --below there is one. Leave out --rounds.")
    check_criterion(by)
    if dataset is not None:
        check_data(dataset, target)
    elif target is not None:
        raise ValueError("--target names a column of a table of yours: give the table with --dataset.")
    check_out(out, overwrite)
    say(f"pruning {name}; " + (f"to be saved in {out}" if out else "nothing will be saved (--out FOLDER saves it)"))
    start()
    from zoo.training.pruning import prune_artifact
    from zoo.training.pruning_settings import Settings

    data: Any = dataset
    if dataset is not None and is_own(dataset):
        data = load_files_like(name, dataset, target)
    with training_progress(rounds) as callbacks:
        how = Settings(
            fraction,
            cast("Any", by),
            scope.value,
            below,
            units,
            layer,
            epochs=finetune_epochs,
            rounds=rounds,
            epochs_between=epochs_between,
            learning_rate=learning_rate,
            seed=seed,
        )
        done = prune_artifact(
            name,
            how,
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

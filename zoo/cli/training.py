"""Making and judging: `train` and `evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.models import JsonOption, TrustOption
from zoo.cli.progress import training_progress, working
from zoo.manifest import to_json


def add_to(app: typer.Typer) -> None:
    """Adds the verbs of this module."""
    app.command("train")(train)
    app.command("evaluate")(evaluate)


def train(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe of the zoo, or a YAML file.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the artifact. Default: nothing is saved.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an artifact in the folder.")] = False,
    json: JsonOption = False,
) -> None:
    """Train a model by a recipe, and measure it on the test split for the recipe's training seeds."""
    from zoo.training import train as train_by_recipe

    with training_progress() as callbacks:
        run = train_by_recipe(recipe, out, epochs=epochs, seed=seed, overwrite=overwrite, callbacks=callbacks)
    if json:
        typer.echo(
            to_json({"name": run.recipe.name, "path": str(run.path) if run.path else None, **run.metrics}), nl=False
        )
        return
    _print_table(run.metrics["test"])
    if run.path:
        typer.echo(f"saved: {run.path}")


def evaluate(
    name: Annotated[str, typer.Argument(help="Name of a pretrained model, or the folder of an artifact.")],
    dataset: Annotated[str | None, typer.Option(help="Default: the one that it was trained on.")] = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    num_samples: Annotated[int, typer.Option(min=1, help="Monte Carlo samples of the weights.")] = 50,
    seed: Annotated[int, typer.Option(help="Of the samples.")] = 0,
    trust: TrustOption = False,
    json: JsonOption = False,
) -> None:
    """Measure a model on a split of a dataset."""
    from zoo.artifacts import open_model
    from zoo.cards import read_artifact
    from zoo.evaluation import evaluate as measure

    dataset = dataset or read_artifact(name)["config"]["data"].get("dataset")
    if dataset is None:
        raise ValueError(f"The artifact {name!r} does not say what it was trained on. Pass --dataset.")
    with working(f"evaluating {name} on {dataset} ({split}), {num_samples} samples"):
        metrics = measure(open_model(name, trust), dataset, split, num_samples, seed)
    if json:
        typer.echo(
            to_json(
                {"name": name, "dataset": dataset, "split": split, "num_samples": num_samples, "seed": seed, **metrics}
            ),
            nl=False,
        )
    else:
        _print_table(metrics)


def _print_table(metrics: dict[str, float]) -> None:
    for name, value in metrics.items():
        typer.echo(f"{name:<20} {value:.4f}")

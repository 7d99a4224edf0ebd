"""The commands `list` and `show`."""

from __future__ import annotations

import fnmatch
from typing import Annotated, Any

import typer

from zoo.hub.manifest import bundled_models, to_json

JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
TrustOption = Annotated[bool, typer.Option("--trust", help="Confirm that you know where the artifact comes from.")]


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command("list")(list_models)
    app.command("show")(show)


def list_models(
    pattern: Annotated[str, typer.Argument(help="Pattern with wildcards, such as 'lenet*'.")] = "*",
    json: JsonOption = False,
) -> None:
    """List the pretrained models."""
    models = {name: entry for name, entry in bundled_models().items() if fnmatch.fnmatch(name, pattern)}
    if json:
        keys = ("architecture", "dataset", "task", "num_weights", "metrics")
        typer.echo(
            to_json([{"name": name, **{key: entry[key] for key in keys}} for name, entry in models.items()]), nl=False
        )
        return
    width = max([len(name) for name in models], default=4)
    typer.echo(f"{'name':<{width}}  {'weights':>9}  test metrics")
    for name, entry in models.items():
        typer.echo(f"{name:<{width}}  {entry['num_weights']:>9,}  {_headline(entry)}")


def show(
    name: Annotated[str, typer.Argument(help="Name of a pretrained model, or folder or address of an artifact.")],
    json: JsonOption = False,
) -> None:
    """Show the card of a model."""
    from zoo.core.shown import printable
    from zoo.hub.reading import read_artifact

    artifact = read_artifact(name)
    if json:
        typer.echo(to_json({"config": artifact["config"], "metrics": artifact["metrics"]}), nl=False)
    else:
        typer.echo(printable(artifact["card"]), nl=False)


def print_numbers(numbers: dict[str, float]) -> None:
    """Prints numbers by name, one to a line."""
    for name, value in numbers.items():
        typer.echo(f"{name:<20} {value:.4f}")


def _headline(entry: dict[str, Any]) -> str:
    shown = ("accuracy", "rmse", "nll", "ece", "coverage_90")
    return "  ".join(f"{key} {value:.4g}" for key, value in entry["metrics"].items() if key in shown)

"""The commands `list` and `show`."""

from __future__ import annotations

import fnmatch
from typing import Annotated, Any

import typer

from zoo.core.shown import in_one_line
from zoo.hub.manifest import bundled_models, to_json

_OF_INDEX = ("license", "address", "sha256")

JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
TrustOption = Annotated[bool, typer.Option("--trust", help="Confirm that you know where the artifact comes from.")]


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command("list")(list_models)
    app.command("show")(show)


def list_models(
    pattern: Annotated[str, typer.Argument(help="Pattern with wildcards, such as 'lenet*'.")] = "*",
    index: Annotated[
        str | None, typer.Option(metavar="FILE", help="Index of another zoo: a YAML file, or its https:// address.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """List the pretrained models, or those of an index with the addresses that other commands take."""
    models = bundled_models() if index is None else _models_of(index)
    models = {name: entry for name, entry in models.items() if fnmatch.fnmatch(name, pattern)}
    if json:
        keys = ("architecture", "dataset", "task", "num_weights", "metrics", *_OF_INDEX)
        listed = [{"name": name, **{key: entry[key] for key in keys if key in entry}} for name, entry in models.items()]
        typer.echo(to_json(listed), nl=False)
        return
    width = max([len(name) for name in models], default=4)
    typer.echo(f"{'name':<{width}}  {'weights':>9}  test metrics")
    for name, entry in models.items():
        weights = "-" if entry["num_weights"] is None else f"{entry['num_weights']:,}"
        typer.echo(f"{name:<{width}}  {weights:>9}  {_headline(entry)}")
        if index is not None:
            typer.echo(in_one_line(f"{'':<{width}}  {entry['license'] or 'licence not stated'}, {entry['address']}"))


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


def _models_of(index: str) -> dict[str, dict[str, Any]]:
    """Returns the models of an index by name; their addresses have their hashes."""
    # Not at the top: only an index needs its schema.
    from zoo.hub.remote.addresses import is_address
    from zoo.hub.remote.index import read_index

    models = {name: entry.model_dump() for name, entry in read_index(index).items()}
    for entry in models.values():
        if is_address(entry["address"]) and "#" not in entry["address"]:
            entry["address"] += f"#sha256={entry['sha256']}"
    return models


def _headline(entry: dict[str, Any]) -> str:
    shown = ("accuracy", "rmse", "nll", "ece", "coverage_90")
    return "  ".join(f"{key} {value:.4g}" for key, value in entry["metrics"].items() if key in shown)

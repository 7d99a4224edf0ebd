"""The commands `list` and `show`."""

from __future__ import annotations

import fnmatch
import math
import sys
from typing import Annotated, Any

import typer

from zoo.cli.early import check_model
from zoo.cli.progress import say
from zoo.core.names import unknown_name_message
from zoo.core.shown import in_one_line, printable, rounded, shown
from zoo.core.untrusted import artifact_errors
from zoo.hub.manifest import bundled_models, to_json

_OF_INDEX = ("license", "address", "sha256")
_HEADLINE = ("accuracy", "rmse", "nll", "ece", "coverage_90")
# Columns of `list`.
_OF_TEXT = 2
_HIGHEST_FIRST = ("accuracy", "coverage_90")
_SORTS = ("name", "dataset", "weights", *_HEADLINE)


def names_of_models(incomplete: str) -> list[str]:
    """Returns the names of the bundled models that begin in some way, for the completion of shells."""
    return [name for name in bundled_models() if name.startswith(incomplete)]


ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Name of a pretrained model, or folder or address of an artifact.",
        autocompletion=names_of_models,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
NoTrustOption = Annotated[
    bool, typer.Option("--trust", help="Not needed: the files are only read or measured. Taken as by other commands.")
]
TrustOption = Annotated[bool, typer.Option("--trust", help="Confirm that you know where the artifact comes from.")]


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command("list", short_help="List the pretrained models, or those of an index.")(list_models)
    app.command("show")(show)


def list_models(
    patterns: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATTERN", help="Patterns with wildcards, such as 'lenet*'. Default: all."),
    ] = None,
    index: Annotated[
        str | None, typer.Option(metavar="FILE", help="Index of another zoo: a YAML file, or its https:// address.")
    ] = None,
    sort: Annotated[str, typer.Option(metavar="KEY", help=f"Best or least first: {', '.join(_SORTS)}.")] = "name",
    json: JsonOption = False,
) -> None:
    """List the pretrained models, or those of an index with the addresses that other commands take."""
    if sort not in _SORTS:
        raise ValueError(unknown_name_message("key of --sort", sort, _SORTS))
    known = bundled_models() if index is None else _models_of(index)
    wanted = {name for pattern in patterns or ["*"] for name in fnmatch.filter(known, pattern)}
    models = dict(sorted(((name, known[name]) for name in wanted), key=lambda model: _place(model[0], model[1], sort)))
    if json:
        keys = ("architecture", "dataset", "task", "num_weights", "metrics", *_OF_INDEX)
        listed = [{"name": name, **{key: entry[key] for key in keys if key in entry}} for name, entry in models.items()]
        typer.echo(to_json(listed), nl=False)
        return
    if not models:
        asked = ", ".join(shown(pattern, 80) for pattern in patterns or ["*"])
        say(f"none of {len(known)} models matches {asked}; without a pattern, all are listed")
        return
    metrics = [key for key in _HEADLINE if any(key in entry["metrics"] for entry in models.values())]
    title, *lines = _in_columns([["name", "dataset", "weights", *metrics], *_rows(models, metrics)])
    typer.echo(title)
    for line, entry in zip(lines, models.values(), strict=True):
        typer.echo(line)
        if index is not None:
            typer.echo(in_one_line(f"    {entry['license'] or 'licence not stated'}, {entry['address']}"))


def show(name: ModelArgument, trust: NoTrustOption = False, json: JsonOption = False) -> None:
    """Show the card of a model."""
    # Not at the top: `list` needs no schemas.
    from zoo.hub.locating import read_files
    from zoo.hub.reading import read_texts

    check_model(name)
    folder, _, files = read_files(name)
    with artifact_errors():
        texts = read_texts(files, folder)
    if json:
        typer.echo(to_json({"config": texts["config"], "metrics": texts["metrics"]}), nl=False)
    elif sys.stdout.isatty():
        # Not at the top: Markdown takes a tenth of a second to import.
        from rich.console import Console
        from rich.markdown import Markdown

        Console().print(Markdown(printable(texts["card"]), hyperlinks=False))
    else:
        typer.echo(printable(texts["card"]), nl=False)


def print_numbers(numbers: dict[str, float]) -> None:
    """Prints numbers by name, one to a line."""
    for name, value in numbers.items():
        typer.echo(f"{name:<20} {rounded(value)}")


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


def _place(name: str, entry: dict[str, Any], sort: str) -> tuple[Any, ...]:
    """Returns what to sort a model by: those without the number come last, and equal ones by name."""
    if sort == "name":
        return (name,)
    if sort == "dataset":
        return (entry["dataset"] or "", name)
    number = entry["num_weights"] if sort == "weights" else entry["metrics"].get(sort)
    if number is None:
        return (math.inf, name)
    return (-number if sort in _HIGHEST_FIRST else number, name)


def _rows(models: dict[str, dict[str, Any]], metrics: list[str]) -> list[list[str]]:
    rows = []
    for name, entry in models.items():
        weights = "-" if entry["num_weights"] is None else f"{entry['num_weights']:,}"
        # In the index of others, a number may be missing by its name or its value.
        values = [entry["metrics"].get(key) for key in metrics]
        numbers = ["-" if value is None else f"{value:.4g}" for value in values]
        rows.append([name, in_one_line(entry["dataset"] or "-"), weights, *numbers])
    return rows


def _in_columns(rows: list[list[str]]) -> list[str]:
    """Returns lines of two columns of text and further ones of numbers, which end below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = "<" * _OF_TEXT + ">" * (len(widths) - _OF_TEXT)
    return [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)) for row in rows
    ]

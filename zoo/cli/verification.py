"""The command `verify`."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo.cli.early import check_model
from zoo.cli.models import JsonOption, NoTrustOption, names_of_models
from zoo.cli.progress import working
from zoo.cli.starting import start
from zoo.core.shown import printable
from zoo.hub.manifest import bundled_models, to_json

if TYPE_CHECKING:
    from zoo.evaluation.verification import Check

# Width of the column with names such as reference/model_uncalibrated/total_variation.
_QUANTITY = 44


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command("verify", short_help="Measure the numbers of the cards again.")(verify)


def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help="Pretrained models, or folders or addresses of artifacts. Default: all bundled.",
            autocompletion=names_of_models,
        ),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Check all numbers about the posteriors.")] = False,
    results: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="With --full: folder whose test.csv gets the rows, if all numbers passed."),
    ] = None,
    trust: NoTrustOption = False,
    json: JsonOption = False,
) -> None:
    """Measure the numbers of the cards again: golden outputs and the test split, or all with --full.

    The same seed reproduces a number to the rounding of float32, and so much is allowed. What a card says of its
    training, of sizes and of the spread over seeds is compared with the files and data beside it. If the data are
    missing, a number neither passes nor fails and is counted separately. Exit code 1: a check failed, or no number of
    the card could be measured again.
    """
    names = list(dict.fromkeys(names or bundled_models()))
    for name in names:
        check_model(name)
    if results is not None and not full:
        raise ValueError("The results are numbers of the whole test split: give --full together with --results.")
    start()
    from zoo.evaluation.results_table import write_results
    from zoo.evaluation.verification import GOLDEN, STATED, Status
    from zoo.evaluation.verification import verify as verify_model

    width = max([len(name) for name in names], default=4)
    if not json:
        typer.echo(
            f"{'model':<{width}}  {'quantity':<{_QUANTITY}} {'card':>10} {'measured':>10} {'std. err.':>9}  status"
        )
    checks: list[Check] = []
    for name in names:
        with working(f"verifying {name}"):
            found = verify_model(name, full)
        checks += found
        for check in found if not json else []:
            typer.echo(printable(_row(check, width)))
    counts = Counter(check.status for check in checks)
    summary = {status.name.lower(): counts[status] for status in Status}
    if json:
        typer.echo(to_json({**summary, "checks": [asdict(check) for check in checks]}), nl=False)
    else:
        typer.echo(", ".join(f"{count} {status}" for status, count in zip(Status, summary.values(), strict=True)))
    if results is not None:
        if not checks or counts[Status.PASSED] < len(checks):
            typer.echo(f"nothing was written to {results}: not all numbers passed", err=True)
            raise typer.Exit(1)
        write_results(checks, results)
    again = [c for c in checks if c.status is Status.PASSED and not c.quantity.startswith((GOLDEN, *STATED))]
    raise typer.Exit(0 if again and not counts[Status.FAILED] else 1)


def _row(check: Check, width: int) -> str:
    numbers = (check.card, check.measured, check.standard_error)
    cells = ["-" if number is None else f"{number:.4g}" for number in numbers]
    message = f": {check.message}" if check.message else ""
    return (
        f"{check.model:<{width}}  {check.quantity:<{_QUANTITY}} {cells[0]:>10} {cells[1]:>10} {cells[2]:>9}  "
        f"{check.status}{message}"
    )

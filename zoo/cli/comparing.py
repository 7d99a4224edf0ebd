"""The command `compare`."""

from __future__ import annotations

import fnmatch
import glob
from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.early import bundled_recipes, check_recipe
from zoo.cli.early_recipes import check_changes, check_methods
from zoo.cli.models import JsonOption
from zoo.cli.progress import say, training_progress
from zoo.cli.starting import start
from zoo.cli.training import EpochsOption, SeedsOption, names_of_recipes, says_how_to_go_on
from zoo.core.shown import printable
from zoo.core.yaml_text import check_grid, parse_changes
from zoo.hub.manifest import to_json


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command("compare", short_help="Train recipes by several inference methods, and compare them.")(compare)


def compare(
    recipes: Annotated[
        list[str],
        typer.Argument(
            metavar="RECIPE",
            help="Names of recipes of the zoo, patterns such as 'mlp*', or YAML files.",
            autocompletion=names_of_recipes,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR", help="Folder for all runs and leaderboard.csv; of several recipes, one folder for each."
        ),
    ],
    inference: Annotated[
        list[str] | None,
        typer.Option(metavar="METHOD", help="Inference method to compare. Can be repeated. Default: all."),
    ] = None,
    epochs: EpochsOption = None,
    seeds: SeedsOption = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUES", help="Values to try instead of the recipe's grids, as in beta=[0.1, 1]."),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe, as in comparison.tuning_epochs=5."),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Another folder whose leaderboard.csv gets the rows, such as zoo/results."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the comparison of --out.")] = False,
    json: JsonOption = False,
) -> None:
    """Train recipes by several inference methods, each tuned on the validation split, and compare them.

    Methods: map, mc_dropout, ensemble, variational and natural_gradient, for the same number of epochs. Each tries the
    same number of settings; the best by validation NLL is trained again and measured on the test split. A comparison
    that was killed or interrupted goes on with --resume.
    """
    overrides, tried = parse_changes(changes or []), check_grid(parse_changes(grid or []))
    check_methods(inference or [])
    candidates = [{key: value} for key, listed in tried.items() for value in listed]
    chosen = recipes_of(recipes)
    for recipe in chosen:
        check_recipe(recipe)
        given = {} if epochs is None else {"epochs": epochs}
        check_changes(recipe, [{**overrides, **given, **candidate} for candidate in ({}, *candidates)])
    start()
    from zoo.evaluation.leaderboard import LEADERBOARD_NAME, leaderboard_table, write_leaderboard
    from zoo.recipes.comparison import BASELINES
    from zoo.training.comparing import compare as compare_by_recipe

    rows = []
    with says_how_to_go_on(out.is_dir), training_progress() as callbacks:
        for recipe in chosen:
            if len(chosen) > 1:
                say(f"comparing {recipe}")
            of_recipe = compare_by_recipe(
                recipe,
                out / Path(recipe).name if len(chosen) > 1 else out,
                inference=inference or BASELINES,
                epochs=epochs,
                seeds=seeds,
                grid=tried or None,
                overrides=overrides,
                resume=resume,
                callbacks=callbacks,
                tell=say,
            )
            rows += of_recipe
            if results is not None:
                write_leaderboard(of_recipe, results / LEADERBOARD_NAME)
    if json:
        typer.echo(to_json(rows), nl=False)
        return
    typer.echo(printable(leaderboard_table(rows)))


def recipes_of(names: list[str]) -> list[str]:
    """Returns recipes by names, files, and patterns of the names of those in the zoo but for twins (`_map`), each once.

    Raises:
        ValueError: If a pattern matches none, or two files have one name, which their folders would share.
    """
    found: dict[str, None] = {}
    for name in names:
        matches = [name]
        if glob.has_magic(name) and not Path(name).is_file():
            # A twin that is bundled has its row already, as the `map` of the model that it belongs to.
            matches = [match for match in fnmatch.filter(bundled_recipes(), name) if not match.endswith("_map")]
        if not matches:
            raise ValueError(f"No recipe of the zoo matches {name!r}. They are: {', '.join(bundled_recipes())}.")
        found |= dict.fromkeys(matches)
    folders = [Path(name).name for name in found]
    if twice := sorted({folder for folder in folders if folders.count(folder) > 1}):
        raise ValueError(f"Several recipes are called {twice[0]!r}, as is the folder of each. Compare them one by one.")
    return list(found)

"""A recipe beside its baselines: the same network, data and epochs, each method tuned on the validation split alone.

    <out>/leaderboard.csv          one row for each method
    <out>/map/candidate-0/         artifact of the first candidate of the grid; without numbers of the test split
    <out>/map/final/               artifact of the chosen settings, with its card
    <out>/map/final.seconds.json   seconds of training, as for the candidates

A comparison that was stopped goes on where it was: what is finished is read, the run that was going on is resumed from
its checkpoint.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from zoo.core.shown import rounded
from zoo.core.validation import validate
from zoo.datasets import Dataset, load_dataset
from zoo.evaluation.card_numbers import QUICK_SAMPLES, evaluate
from zoo.evaluation.leaderboard import LEADERBOARD_NAME, row_of, write_leaderboard
from zoo.hub.loading import load_artifact
from zoo.hub.reading import read_artifact
from zoo.recipes import FineTuneRecipe, Recipe, change_recipe, load_recipe, setting_differences
from zoo.recipes.baselines import baseline
from zoo.recipes.comparison import BASELINES, Baseline, ComparisonRecipe, Grid, Tuned, check_baselines
from zoo.training.by_recipe import build, train
from zoo.training.engine import NonFiniteError
from zoo.training.inference import member_recipes
from zoo.training.planning import fitted_to, planned
from zoo.training.stopwatch import Stopwatch

# Of a run, but not of its settings.
_NO_SETTINGS = {"overrides", "notes", "comparison"}


def compare(
    recipe: str | Path | dict[str, Any] | Recipe,
    out: str | os.PathLike[str],
    *,
    inference: Sequence[str] = BASELINES,
    epochs: int | None = None,
    seeds: int | None = None,
    grid: Grid | None = None,
    overrides: Mapping[str, Any] | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 30.0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    tell: Callable[[str], None] = lambda message: None,
) -> list[dict[str, Any]]:
    """Trains a recipe by several inference methods, for the same epochs, and measures all on the same test split.

    For each method, the candidates of a grid are trained with the first seed. The one with the lowest validation NLL
    (10 Monte Carlo samples, no calibration) is trained again for all epochs and seeds, and is then measured as
    `zoo.train` measures. The test split is read for that model only. A grid of one candidate needs no such runs.
    Ensembles have the settings that were chosen for `map`.

    Args:
        recipe: Name, path, mapping or `Recipe`, with a dataset. Its `comparison` has the grids, the number of epochs of
            the candidates, and the members of the ensemble.
        out: Folder of all runs; see the top of this file.
        inference: Methods to compare.
        epochs: Number of epochs, instead of the recipe's.
        seeds: Number of training seeds for the spread, instead of the recipe's.
        grid: Values to try by dotted key, for all these methods, instead of those of the recipe.
        overrides: Other changes to the recipe, before it is turned into its baselines.
        resume: Whether to go on with the comparison of `out`.
        checkpoint_seconds: Seconds between checkpoints.
        callbacks: Keras callbacks of all trainings.
        tell: Function that receives messages for the user.

    Returns:
        The rows of `<out>/leaderboard.csv`, in the order of the methods.

    Raises:
        ValueError: For a recipe, method or grid that does not fit, before anything is trained. If the folder is not
            empty without `resume`, or has runs with other settings.
        DataMissingError: If the dataset is not on this machine.
        TrainingInterrupted: On SIGINT or SIGTERM.
        NonFiniteError: If a number of the chosen model is NaN or infinite. Candidates with such numbers are not chosen.
    """
    base, ways = planned(recipe, overrides, epochs=epochs, seeds=seeds), check_baselines(inference)
    if isinstance(base, FineTuneRecipe):
        raise ValueError(f"The recipe {base.name!r} is a fine-tuning. Only trainings can be compared.")
    if base.dataset is None:
        raise ValueError(f"The recipe {base.name!r} names no dataset. Name one for the rows to name.")
    folder, data = Path(out), load_dataset(base.dataset)
    base = fitted_to(base, data, tell)
    if not resume and folder.is_dir() and any(folder.iterdir()):
        raise ValueError(
            f"{str(folder)!r} is not empty. Go on with its comparison with --resume (resume=True), or choose another "
            "folder."
        )
    plans = {way: _Plan.of(base, way, grid, data) for way in ways}
    tell(_budget(plans, data))
    runs = _Runs(folder, checkpoint_seconds, callbacks, tell)
    rows = []
    for way, plan in plans.items():
        rows.append(runs.row(way, plan, data))
        write_leaderboard(rows, folder / LEADERBOARD_NAME)
    return rows


@dataclass(frozen=True)
class _Plan:
    """What is run for one method.

    Attributes:
        candidates: Recipes to choose from by their settings, as JSON. Those of an ensemble are of `map`.
        finals: The recipes of the whole training by the same settings.
    """

    candidates: dict[str, Recipe]
    finals: dict[str, Recipe]

    @classmethod
    def of(cls, base: Recipe, way: Baseline, grid: Grid | None, data: Dataset) -> _Plan:
        how = base.comparison or ComparisonRecipe()
        tuned_as = _tuned_as(way)
        if base.deterministic_start is not None:
            # Trained here, so that settings may differ, and epochs and seconds are those of all of it.
            start = base.deterministic_start.model_copy(update={"model": None})
            base = base.model_copy(update={"deterministic_start": start})
        network, of_candidates = baseline(base, way), baseline(base, tuned_as)
        tried = how if grid is None else validate(ComparisonRecipe, {"grids": {tuned_as: grid}}, "The grid")
        values = tried.grid(tuned_as)
        short: dict[str, Any] = {"evaluation.spread_seeds": [], "calibration": None, "conformal": None}
        short["epochs"] = how.tuning_epochs or of_candidates.epochs
        candidates, finals = {}, {}
        for combination in itertools.product(*values.values()):
            settings = dict(zip(values, combination, strict=True))
            finals[json.dumps(settings)] = change_recipe(network, settings)
            candidates[json.dumps(settings)] = change_recipe(of_candidates, {**short, **settings})
        for recipe in (*finals.values(), *candidates.values()):
            build(member_recipes(recipe)[0], data)
        return cls(candidates, finals)


def _budget(plans: Mapping[Baseline, _Plan], data: Dataset) -> str:
    """The epochs of all runs, those of candidates that two methods share counted once."""
    numbers = {}
    for way, plan in plans.items():
        if len(plan.candidates) > 1:
            epochs = sum(_all_epochs(candidate) for candidate in plan.candidates.values())
            numbers[f"candidates of {_tuned_as(way)}"] = epochs
        final = next(iter(plan.finals.values()))
        seeds = len({final.seed, *final.evaluation.spread_seeds})
        numbers[way] = _all_epochs(final) * (final.members or 1) * seeds
    listed = ", ".join(f"{name} {epochs}" for name, epochs in numbers.items())
    return f"budget: {sum(numbers.values())} epochs of {len(data.train)} examples ({listed})"


class _Runs:
    """The runs of a folder, each of which is trained, resumed, or read if it is finished."""

    def __init__(
        self,
        folder: Path,
        checkpoint_seconds: float,
        callbacks: Sequence[keras.callbacks.Callback],
        tell: Callable[[str], None],
    ) -> None:
        self._folder, self._checkpoint_seconds = folder, checkpoint_seconds
        self._callbacks, self._tell = callbacks, tell

    def row(self, way: Baseline, plan: _Plan, data: Dataset) -> dict[str, Any]:
        """Chooses the settings of a method, trains it with them, and returns its row."""
        settings, nll = self._chosen(_tuned_as(way), plan.candidates, data)
        recipe = plan.finals[settings]
        self._tell(f"{way}: training with {settings}")
        path = self._folder / way / "final"
        of_all_seeds = self._train(recipe, path, measure=True)
        artifact = read_artifact(path)
        own = recipe.optimizer.natural_gradient
        number_of_seeds = len(artifact["metrics"]["training_seeds"])
        return row_of(
            artifact["metrics"],
            model=recipe.name,
            inference=way,
            dataset=recipe.dataset,
            license=data.license,
            num_weights=artifact["config"]["num_weights"],
            members=recipe.members,
            epochs=_all_epochs(recipe),
            settings=settings,
            candidates=len(plan.candidates),
            tuning_epochs=_all_epochs(plan.candidates[settings]) if len(plan.candidates) > 1 else None,
            validation_nll=nll,
            temperature=None if own is None else own.temperature,
            **{name: seconds / number_of_seeds for name, seconds in of_all_seeds.items()},
        )

    def _chosen(self, way: Tuned, candidates: Mapping[str, Recipe], data: Dataset) -> tuple[str, float | None]:
        """The settings of the best candidate, with its validation NLL; None if there is no choice."""
        if len(candidates) == 1:
            return next(iter(candidates)), None
        nlls = {}
        for index, (settings, recipe) in enumerate(candidates.items()):
            path = self._folder / way / f"candidate-{index}"
            try:
                self._train(recipe, path, measure=False)
                model = load_artifact(path, trust=True)
                nlls[settings] = evaluate(model, data, "validation", QUICK_SAMPLES, recipe.evaluation.seed)["nll"]
            except NonFiniteError as error:
                nlls[settings] = math.inf
                self._tell(str(error))
            found = f"validation NLL {rounded(nlls[settings])}"
            self._tell(f"{way}: candidate {index + 1} of {len(candidates)}, {settings}: {found}")
        best = min(nlls, key=lambda settings: nlls[settings] if math.isfinite(nlls[settings]) else math.inf)
        return best, nlls[best]

    def _train(self, recipe: Recipe, path: Path, measure: bool) -> dict[str, float]:
        """Trains a recipe unless that is done; returns the seconds by their column, none if they are not known."""
        seconds = path.with_name(f"{path.name}.seconds.json")
        if path.is_dir():
            _check_same_settings(recipe, path)
            return json.loads(seconds.read_text("utf-8")) if seconds.is_file() else {}
        path.parent.mkdir(parents=True, exist_ok=True)
        train(
            recipe,
            path,
            measure=measure,
            resume=any(path.with_name(f"{path.name}.training").glob("seed-*")),
            checkpoint_seconds=self._checkpoint_seconds,
            callbacks=[*self._callbacks, Stopwatch(seconds)],
            tell=self._tell,
        )
        return dict(json.loads(seconds.read_text("utf-8")))


def _tuned_as(way: Baseline) -> Tuned:
    """The method whose candidates are those of another one: the members of an ensemble are points."""
    return "map" if way == "ensemble" else way


def _all_epochs(recipe: Recipe) -> int:
    return recipe.epochs + (0 if recipe.deterministic_start is None else recipe.deterministic_start.epochs)


def _check_same_settings(recipe: Recipe, path: Path) -> None:
    differences = setting_differences(load_recipe(path / "recipe.yaml"), recipe, _NO_SETTINGS)
    if differences:
        raise ValueError(
            f"The model in {str(path)!r} has different settings: {'; '.join(differences)}. Compare with the settings "
            "that the comparison was started with, or choose another folder."
        )

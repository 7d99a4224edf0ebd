"""A recipe beside its baselines: what is trained, what chooses, and that a comparison that was stopped goes on."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

import zoo
from zoo.core.yaml_text import check_grid
from zoo.datasets import load_dataset
from zoo.evaluation.leaderboard import COLUMNS
from zoo.recipes import load_recipe
from zoo.recipes.baselines import baseline
from zoo.recipes.comparison import BASELINES, DEFAULT_GRIDS
from zoo.recipes.inference import SETTINGS_OF_WAYS
from zoo.training.comparing import _Plan, compare
from zoo.training.engine import NonFiniteError

from ..recipe_parts import RECIPE

pytestmark = pytest.mark.usefixtures("steps_run_eagerly")
LEARNED = {"name": "normal", "scale": 0.5, "empirical_bayes": True}
OWN = {
    **RECIPE,
    "model": {"hidden": [4], "kernel_prior": LEARNED},
    "optimizer": {"name": "adam", "learning_rate": 0.03, "clipnorm": 1.0},
    "deterministic_start": {"epochs": 3},
    "comparison": {"members": 2, "member_epochs": 0.5, "tuning_epochs": 1},
    "evaluation": {"num_samples": 3, "spread_seeds": [1]},
    "notes": "About its own method.",
}


# === The recipes of the baselines ===


@pytest.mark.parametrize("way", BASELINES)
def test_baselines_differ_from_the_recipe_only_where_their_method_does(way):
    """An epoch of the deterministic start is an epoch of a method that has none."""
    recipe = load_recipe(OWN)
    found = baseline(recipe, way)
    points = {"hidden": [4], "kernel_prior": {"name": "normal", "scale": 0.5}}
    expected = {
        "map": ("map", points, "adam", 5, None),
        "mc_dropout": ("mc_dropout", {**points, "dropout": 0.1}, "adam", 5, None),
        "ensemble": ("ensemble", points, "adam", 2, 2),
        "variational": ("variational", OWN["model"], "adam", 2, None),
        "natural_gradient": ("variational", OWN["model"], "natural_gradient", 2, None),
    }
    assert (found.inference, found.model, found.optimizer.name, found.epochs, found.members) == expected[way]
    assert found.optimizer.clipnorm == (None if way == "natural_gradient" else 1.0)
    assert (found.deterministic_start is None) == (found.inference != "variational")
    same = {"name", "dataset", "architecture", "batch_size", "augmentation", "standardize_inputs", "beta", "seed"}
    assert found.model_dump(include=same) == recipe.model_dump(include=same)
    if way == "natural_gradient":
        assert found.optimizer.natural_gradient.initial_precision == 0.1
    assert not found.notes
    assert found.warmup == (0.2 if way == "variational" else 0.0)


def test_adam_takes_the_place_of_a_natural_gradient():
    without = {key: value for key, value in OWN.items() if key not in ("optimizer", "notes")}
    recipe = load_recipe({**without, "inference": "natural_gradient"})
    assert baseline(recipe, "natural_gradient") == recipe
    assert (
        baseline(recipe, "map").optimizer == baseline(recipe, "variational").optimizer == load_recipe(RECIPE).optimizer
    )


@pytest.mark.parametrize("way", SETTINGS_OF_WAYS)
def test_settings_of_a_method_that_is_no_baseline_are_left_out(way):
    recipe = load_recipe({**RECIPE, "inference": way})
    for name in BASELINES:
        assert getattr(baseline(recipe, name), way) is None
    assert baseline(recipe, "variational") == load_recipe(RECIPE)


def test_every_method_has_as_many_candidates():
    assert {np.prod([len(values) for values in grid.values()]) for grid in DEFAULT_GRIDS.values()} == {4}


# === A comparison ===


def chosen_by(monkeypatch, nlls):
    """Lets candidates have these validation NLLs, by their position, and records which split was read when."""
    read = []

    def evaluate(model, data, split, num_samples, seed):
        read.append(split)
        return {"nll": nlls[len(read) - 1]}

    monkeypatch.setattr("zoo.training.comparing.evaluate", evaluate)
    return read


def test_the_validation_split_alone_chooses_and_the_row_is_of_the_chosen_settings(tmp_path, monkeypatch):
    """Nothing is trained here. Two seeds took 8 seconds together."""
    trained = []

    def train(recipe, path, measure, **options):
        trained.append((path.parent.name, path.name, recipe.epochs, recipe.optimizer.learning_rate, measure))
        path.with_name(f"{path.name}.seconds.json").write_text('{"seconds": 8.0, "cpu_seconds": 6.0}')

    metrics = {"num_samples": 3, "training_seeds": [0, 1], "test": {"nll": 0.5}}
    artifact = {"metrics": metrics, "config": {"num_weights": 7}}
    monkeypatch.setattr("zoo.training.comparing.train", train)
    monkeypatch.setattr("zoo.training.comparing.load_artifact", lambda path, trust: None)
    monkeypatch.setattr("zoo.training.comparing.read_artifact", lambda path: artifact)
    read = chosen_by(monkeypatch, [0.9, 0.8, 0.7])
    grid = {"optimizer.learning_rate": (0.1, 0.2, 0.3)}
    (row,) = compare(OWN, tmp_path / "out", inference=["variational"], grid=grid)
    assert read == ["validation"] * 3
    candidates = [("variational", f"candidate-{k}", 1, rate, False) for k, rate in enumerate((0.1, 0.2, 0.3))]
    assert trained == [*candidates, ("variational", "final", 2, 0.3, True)]
    assert (row["settings"], row["validation_nll"]) == ('{"optimizer.learning_rate": 0.3}', 0.7)
    # Two epochs, and three of the deterministic start.
    assert (row["epochs"], row["tuning_epochs"], row["num_weights"]) == (5, 4, 7)
    assert (row["seconds"], row["cpu_seconds"]) == (4.0, 3.0)


@pytest.mark.slow
def test_methods_are_tuned_on_the_validation_split_and_resumed_wherever_they_were_killed(tiny, tmp_path, monkeypatch):
    """Each method has 3 steps for each candidate; then 6 steps for each of two seeds, or of four members."""
    recipe = {**OWN, "deterministic_start": None, "comparison": {**OWN["comparison"], "member_epochs": 1.0}}
    ways, grid = ["map", "ensemble", "natural_gradient"], {"optimizer.learning_rate": (0.02, 0.05)}
    recipe["optimizer"] = {"name": "adam"}
    nlls = [0.9, 0.8, 0.7, 0.6, 0.3, 0.4]
    options = {"inference": ways, "grid": grid}
    read = chosen_by(monkeypatch, nlls)
    rows = compare(recipe, tmp_path / "whole", **options)
    # The candidates of map are read again for the ensemble.
    assert read == ["validation"] * 6
    assert [row["inference"] for row in rows] == ways
    assert [json.loads(row["settings"])["optimizer.learning_rate"] for row in rows] == [0.05, 0.05, 0.02]
    assert [row["validation_nll"] for row in rows] == [0.8, 0.6, 0.3]
    assert [(row["members"], row["epochs"], row["seeds"]) for row in rows] == [(None, 2, 2), (2, 2, 2), (None, 2, 2)]
    assert {(row["tuning_epochs"], row["candidates"], row["license"]) for row in rows} == {(1, 2, "CC BY 4.0")}
    assert [row["kl"] is None for row in rows] == [False, True, False]
    assert rows[1]["num_weights"] == 2 * rows[0]["num_weights"]
    assert rows[2]["temperature"] == 1.0
    card = zoo.hub.reading.read_artifact(tmp_path / "whole" / "map" / "final")["metrics"]
    assert rows[0]["nll"] == card["spread"]["nll"]["mean"]
    for steps in (5, 30):
        read = chosen_by(monkeypatch, nlls)
        killed = {
            "resume": True,
            "checkpoint_seconds": 0,
            "callbacks": [tiny.At("on_train_batch_end", steps, tiny.die)],
        }
        with pytest.raises(tiny.Killed):
            compare(recipe, tmp_path / "out", **options, **killed)
    chosen_by(monkeypatch, nlls)
    resumed = compare(recipe, tmp_path / "out", **options, resume=True)
    without_seconds = [[{**row, "seconds": 0, "cpu_seconds": 0} for row in found] for found in (rows, resumed)]
    assert without_seconds[0] == without_seconds[1]
    assert all(row["seconds"] > 0 and row["cpu_seconds"] > 0 for row in (*rows, *resumed))
    with (tmp_path / "out" / "leaderboard.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["inference"] for row in table] == sorted(ways)
    assert tuple(table[0]) == COLUMNS
    with pytest.raises(ValueError, match=r"final' has different settings: batch_size was 40 and is 30"):
        compare({**recipe, "batch_size": 30}, tmp_path / "out", inference=["map"], grid={"beta": [1.0]}, resume=True)


@pytest.mark.slow
def test_a_candidate_that_diverges_is_not_chosen(tmp_path, monkeypatch):
    def train(recipe, *arguments, **options):
        if recipe.optimizer.learning_rate == 10.0:
            raise NonFiniteError("Stopped in epoch 1.")
        return zoo.train(recipe, *arguments, **options)

    monkeypatch.setattr("zoo.training.comparing.train", train)
    told = []
    options = {"inference": ["map"], "grid": {"optimizer.learning_rate": (10.0, 0.01)}, "seeds": 1, "epochs": 1}
    rows = compare({**OWN, "deterministic_start": None}, tmp_path / "out", **options, tell=told.append)
    assert json.loads(rows[0]["settings"]) == {"optimizer.learning_rate": 0.01}
    assert told[0] == "budget: 3 epochs of 96 examples (candidates of map 2, map 1)"
    assert told[1] == "Stopped in epoch 1."
    assert told[2] == 'map: candidate 1 of 2, {"optimizer.learning_rate": 10.0}: validation NLL inf'


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inference": ["laplace"]}, "inference method of a comparison: 'laplace'"),
        ({"grid": {"optimizer.learning_rat": [1.0]}}, "learning_rat"),
        ({"inference": ["map"], "grid": {"model.dropout": [0.1]}}, "has dropout: 0.1. Use mc_dropout"),
        ({"overrides": {"dataset": None}}, "names no dataset"),
        ({"overrides": {"comparison.grids": {"ensemble": {}}}}, "comparison.grids.ensemble"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        compare(OWN, tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_empty_is_only_used_to_go_on(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"is not empty\. Go on with its comparison with --resume"):
        compare(OWN, tmp_path)


def test_a_grid_is_of_lists():
    assert check_grid({"beta": [1.0]}) == {"beta": (1.0,)}
    with pytest.raises(ValueError, match=r"beta=1\.0; a list of values was expected"):
        check_grid({"beta": 1.0})


def test_priors_that_learn_their_scale_by_default_are_fixed_for_points():
    recipe = load_recipe({**RECIPE, "architecture": "hierarchical_mlp", "model": {"num_groups": 18}})
    assert baseline(recipe, "map").model == {"group_prior": {"name": "normal"}, "num_groups": 18}
    assert baseline(recipe, "variational").model == {"num_groups": 18}


@pytest.mark.slow
def test_a_start_that_is_a_pretrained_model_is_trained_and_counted(tmp_path):
    """One epoch of the start and one of the posterior, for both seeds."""
    start = {"epochs": 1, "model": "lenet5_flipout.digits"}
    told = []
    recipe = {**OWN, "epochs": 1, "deterministic_start": start, "comparison": None}
    compare(recipe, tmp_path / "out", inference=["variational"], grid={}, tell=told.append)
    assert told[0].startswith("budget: 4 epochs of ")


def test_a_grid_may_have_numbers_of_numpy_and_must_have_values(tmp_path):
    with pytest.raises(ValueError, match=r"grids\.map\.beta.*at least 1 item"):
        compare(OWN, tmp_path / "out", inference=["map"], grid={"beta": ()})
    grid = {"beta": (np.float32(0.5), np.float32(1.0))}
    plan = _Plan.of(load_recipe({**OWN, "deterministic_start": None}), "map", grid, load_dataset(OWN["dataset"]))
    assert list(plan.candidates) == ['{"beta": 0.5}', '{"beta": 1.0}']

"""Recipes with a `deterministic_start`: the means come from a point estimate, and a run is resumed in either part."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zoo
from tfp_bnn.models.weight_record import weight_distributions
from zoo.recipes import load_recipe, recipe_text
from zoo.recipes.baselines import starting_recipe
from zoo.training import starting
from zoo.training.by_recipe import build
from zoo.training.starting import start_at_a_point

pytestmark = pytest.mark.usefixtures("steps_run_eagerly")
START = {"deterministic_start": {"epochs": 2, "optimizer": {"learning_rate": 0.03}}}


def test_means_start_where_the_point_estimate_ended_and_scales_where_they_would_without(tiny):
    recipe, data = load_recipe({**tiny.recipe, **START, "beta": 0.5}), zoo.load_dataset("iris")
    model, trained = build(recipe, data), {}
    before = weight_distributions(model)

    def go_on(recipe, point, part, epochs):
        assert (recipe.inference, part, epochs, len(point.variational_layers)) == ("map", "start", 2, 2)
        assert float(point.optimizer.learning_rate) == pytest.approx(0.03)
        assert point.beta_schedule.get_config() == {"beta": 0.5}
        for variable in point.trainable_variables:
            variable.assign_add(np.full(variable.shape, 0.5))
        trained.update(weight_distributions(point))

    start_at_a_point(model, recipe, lambda recipe: build(recipe, data), go_on)
    after = weight_distributions(model)
    moved = {"dense1/kernel/loc", "dense1/bias", "logits/kernel/loc", "logits/bias"}
    assert set(trained) == moved
    for name, array in after.items():
        # A scale is stored by its inverse softplus.
        np.testing.assert_allclose(array, trained[name] if name in moved else before[name], rtol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [pytest.param(2, marks=pytest.mark.thorough), 6, 8])
def test_a_run_that_was_killed_in_either_part_or_between_them_is_resumed_to_the_same_bits(tiny, tmp_path, steps):
    """Three steps in each of two epochs of the start, and three of the posterior."""
    how = {**tiny.recipe, **START, "epochs": 1, "inference": "natural_gradient"}
    whole = zoo.train(how, tmp_path / "whole", measure=False)
    told = []
    killer = tiny.At("on_train_batch_end", steps, tiny.die)
    with pytest.raises(tiny.Killed):
        zoo.train(how, tmp_path / "out", measure=False, checkpoint_seconds=0, callbacks=[killer])
    zoo.train(how, tmp_path / "out", measure=False, resume=True, tell=told.append)
    for name in ("weights.safetensors", "log.csv", "golden.safetensors"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert {len(values) for values in whole.history.values()} == {1}
    # The step that was killed is done again: its callback came before its checkpoint.
    at = {2: ["epoch 0, step 1"], 6: ["epoch 1, step 2"], 8: ["epoch 2, step 0", "epoch 0, step 1"]}[steps]
    assert [message for message in told if "after" in message] == [f"resuming after {where}" for where in at]


@pytest.fixture
def pretrained(tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any]], None]:
    """Trains the start of a recipe, which is then the pretrained model `started`."""

    def train(recipe: dict[str, Any]) -> None:
        zoo.train(starting_recipe(load_recipe(recipe)), tmp_path / "started", measure=False)
        model = zoo.load_artifact(tmp_path / "started", trust=True)
        monkeypatch.setattr(starting, "load_model", {"started": model}.__getitem__)

    return train


def _from_pretrained(recipe: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**recipe, "deterministic_start": {**recipe["deterministic_start"], "model": "started", **changes}}


@pytest.mark.slow
def test_a_start_that_is_a_pretrained_model_gives_the_same_bits_as_one_that_is_trained(tiny, tmp_path, pretrained):
    recipe = {**tiny.recipe, **START, "epochs": 1, "inference": "natural_gradient"}
    pretrained(recipe)
    zoo.train(recipe, tmp_path / "trained", measure=False)
    zoo.train(_from_pretrained(recipe), tmp_path / "loaded", measure=False)
    trained, loaded = ((tmp_path / name / "weights.safetensors").read_bytes() for name in ("trained", "loaded"))
    assert trained == loaded
    assert not (tmp_path / "loaded.training").exists()


def test_a_pretrained_start_of_other_settings_seeds_or_data_is_refused_before_anything_is_written(
    tiny, tmp_path, pretrained
):
    recipe = {**tiny.recipe, **START, "epochs": 1, "inference": "natural_gradient"}
    pretrained(recipe)
    with pytest.raises(ValueError, match=r"is not what 'started' was trained by: epochs was 2 and is 3\. Remove"):
        zoo.train(_from_pretrained(recipe, epochs=3), tmp_path / "out", measure=False)
    # Seeds that are not trained, and what is fitted after the training, do not matter.
    harmless = {"evaluation": {"spread_seeds": [1]}, "calibration": "temperature"}
    scale = {**recipe, **harmless, "model": {**recipe["model"], "initial_scale": 0.05}}
    zoo.train(_from_pretrained(scale), measure=False)
    with pytest.raises(ValueError, match="seed was 0 and is 1"):
        zoo.train(_from_pretrained(recipe), tmp_path / "out", seeds=2)
    data = zoo.load_dataset("iris")
    with pytest.raises(ValueError, match=r"'started', .* was trained on the dataset 'iris'\. Leave out `data`"):
        zoo.train(_from_pretrained(recipe), tmp_path / "out", data=(data.train.x, data.train.y), measure=False)
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inference": "map"}, "deterministic_start is for inference: variational only, but inference is map"),
        ({"deterministic_start": {"epochs": 0}}, "deterministic_start.epochs"),
        ({"deterministic_start": {"optimizer": {"name": "natural_gradient"}}}, "has no posterior for natural_gradient"),
    ],
)
def test_starts_that_make_no_sense_are_refused(tiny, changes, message):
    with pytest.raises(ValueError, match=message):
        load_recipe({**tiny.recipe, **START, **changes})


def test_recipes_without_a_start_are_written_as_before(tiny):
    assert "deterministic_start" not in recipe_text(load_recipe(tiny.recipe))

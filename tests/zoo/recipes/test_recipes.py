"""Recipes: all of those that come with the zoo are valid, and what is not valid is refused with the nearest key."""

from __future__ import annotations

import re

import numpy as np
import pytest
import yaml
from pydantic import TypeAdapter

import tfp_bnn
import zoo
from zoo.hub.schemas import Seed
from zoo.recipes import (
    EvaluationRecipe,
    FineTuneRecipe,
    PruningRecipe,
    Recipe,
    change_recipe,
    parse_changes,
    recipe_text,
)


def test_every_recipe_is_valid_and_named_by_its_file():
    assert len(zoo.list_recipes()) >= 5
    for name in zoo.list_recipes():
        recipe = zoo.load_recipe(name)
        assert recipe.name == name
        assert name.startswith(f"{recipe.architecture}.")


def test_text_round_trip(tmp_path):
    recipe = zoo.load_recipe("lenet5_flipout.digits")
    path = tmp_path / "copy.yaml"
    path.write_text(recipe_text(recipe))
    assert zoo.load_recipe(path) == recipe


def _recipe(**changes: object) -> dict[str, object]:
    return {"name": "mlp_flipout.x", "architecture": "mlp_flipout", "dataset": "iris", **changes}


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        ("lenet5_flipout.digit", "Did you mean 'lenet5_flipout.digits'"),
        ("no_such_file.yaml", "There is no recipe file"),
        (_recipe(epoch=3), "Did you mean 'epochs'"),
        (_recipe(epochs=0), "'epochs' got 0"),
        (_recipe(epochs=True), "'epochs' got True"),
        (_recipe(epochs="many"), "'epochs' got 'many'"),
        (_recipe(dataset="irs"), "Did you mean 'iris'"),
        (_recipe(architecture="mlp_flip"), "Did you mean 'mlp_flipout'"),
        (_recipe(name="../x"), "not a name of the zoo"),
        (_recipe(optimizer={"learning_rat": 1.0}), "optimizer.learning_rat"),
        (_recipe(optimizer={"learning_rate": float("nan")}), "learning_rate"),
        ({"name": "mlp_flipout.x"}, "'architecture' is missing"),
    ],
)
def test_bad_recipes(recipe, says):
    with pytest.raises(ValueError, match=says):
        zoo.load_recipe(recipe)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "not valid YAML"),
        ("epochs: 1\nepochs: 2", "not valid YAML: the key 'epochs' appears twice (line 2, column 1)"),
        ("model: {hidden: [8], hidden: [9]}", "the key 'hidden' appears twice (line 1, column 22)"),
        ("epochs: 1:30", "1:30 is read in different ways; write the number plainly, or quote it (line 1, column 9)"),
        ("epochs: 010", "010 is read in different ways"),
        ("a: " + "[" * 100, "there are more than 20 levels (line 1, column 23)"),
        ("a: " + "[" * 100_000, "(line 1, column "),
        ("a: &x [1]\nb: [" + "*x," * 60_000 + "]", "anchors and aliases are not allowed"),
        ("- 1", "a mapping of keys was expected"),
        ("!!python/object/apply:os.system ['x']", "YAML"),
    ],
)
def test_bad_files(tmp_path, text, says):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(says)) as caught:
        zoo.load_recipe(path)
    assert len(str(caught.value).splitlines()) == 1


# === Changes ===


def test_changes_are_made_and_recorded_and_the_recipe_stays():
    recipe = zoo.load_recipe("mlp_flipout.iris")
    before = recipe.model_dump()
    changes = {
        "epochs": 3,
        "optimizer.learning_rate": 1e-3,
        "augmentation.shift": 1,
        "model.hidden": [4, 4],
        "model.activation": "tanh",
        "evaluation.spread_seeds": [],
    }
    changed = change_recipe(recipe, changes)
    assert recipe.model_dump() == before
    assert (changed.epochs, changed.optimizer.learning_rate, changed.augmentation.shift) == (3, 1e-3, 1)
    assert changed.model == {**recipe.model, "hidden": [4, 4], "activation": "tanh"}
    assert changed.evaluation.spread_seeds == ()
    assert changed.evaluation.num_samples == recipe.evaluation.num_samples
    assert changed.overrides == changes


def test_changes_upon_changes_add_up():
    once = change_recipe(zoo.load_recipe("mlp_flipout.iris"), {"epochs": 3, "seed": 4})
    twice = change_recipe(once, {"epochs": 5})
    assert (twice.epochs, twice.seed, twice.overrides) == (5, 4, {"epochs": 5, "seed": 4})
    assert change_recipe(twice, {}) == twice


def test_a_changed_recipe_survives_its_text(tmp_path):
    changed = change_recipe(zoo.load_recipe("lenet5_flipout.mnist"), {"augmentation.rotation": 5.0, "notes": "größer"})
    path = tmp_path / "changed.yaml"
    path.write_text(recipe_text(changed), "utf-8")
    assert zoo.load_recipe(path) == changed


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"epoch": 3}, "Did you mean 'epochs'"),
        ({"epochs": 0}, "'epochs' got 0"),
        ({"epochs": "many"}, "'epochs' got 'many'"),
        ({"epochs": 2.5}, "'epochs' got 2.5"),
        ({"optimizer.learning_rat": 1.0}, "optimizer.learning_rat"),
        ({"optimizer.learning_rate": float("nan")}, "learning_rate"),
        ({"optimizer.learning_rate": -1.0}, "learning_rate"),
        ({"optimizer": 3}, "'optimizer' got 3"),
        ({"epochs.more": 3}, "no key 'epochs.more': 'epochs' is 250, not a mapping"),
        ({"augmentation.shear": 3}, "augmentation.shear"),
        ({"augmentation.rotation": 181.0}, "rotation"),
        ({"augmentation.crop": 0.0}, "crop"),
        ({"dataset": "irs"}, "Did you mean 'iris'"),
        ({"evaluation.spread_seeds": [-1]}, "spread_seeds"),
        ({"calibration": "isotonic"}, "'calibration' got 'isotonic'"),
        ({".": 1}, "Unknown key ''"),
    ],
)
def test_bad_changes(changes, says):
    with pytest.raises(ValueError, match=says):
        change_recipe(zoo.load_recipe("mlp_flipout.iris"), changes)


def test_changes_of_the_command_line():
    assert parse_changes(
        [
            "epochs=3",
            "optimizer.learning_rate=1e-3",
            "optimizer.decay=null",
            "model.hidden=[8, 8]",
            "augmentation={shift: 2, flip: true}",
            "notes=a = b",
            "calibration=temperature",
            "beta=.5",
            "optimizer.clipnorm=1.0",
            "model.kernel_prior={name: laplace, scale: 1e-1}",
            "model.rates=[1e-2, relu]",
        ]
    ) == {
        "epochs": 3,
        "optimizer.learning_rate": 1e-3,
        "optimizer.decay": None,
        "model.hidden": [8, 8],
        "augmentation": {"shift": 2, "flip": True},
        "notes": "a = b",
        "calibration": "temperature",
        "beta": 0.5,
        "optimizer.clipnorm": 1.0,
        "model.kernel_prior": {"name": "laplace", "scale": 0.1},
        "model.rates": [0.01, "relu"],
    }
    assert parse_changes([]) == {}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("epochs", "KEY=VALUE was expected"),
        ("=3", "KEY=VALUE was expected"),
        ("", "KEY=VALUE was expected"),
        ("model.hidden=[8", "not valid YAML"),
        ("notes=!!python/object/apply:os.system ['x']", "not valid YAML"),
    ],
)
def test_bad_changes_of_the_command_line(change, says):
    with pytest.raises(ValueError, match=says):
        parse_changes([change])


def test_every_training_seed_fits_into_an_artifact():
    allowed = TypeAdapter(Seed).json_schema()
    for recipe in (Recipe, EvaluationRecipe, FineTuneRecipe, PruningRecipe):
        of_recipe = recipe.model_json_schema()["properties"]["seed"]
        for bound in ("minimum", "exclusiveMaximum"):
            assert of_recipe[bound] == allowed[bound], recipe


# === Values given in Python ===


def test_numbers_of_numpy_become_those_of_python():
    changes = {
        "epochs": np.int64(3),
        "optimizer.learning_rate": np.float32(0.5),
        "model.hidden": np.array([4, 4]),
        "model.kernel_prior": {"name": "normal", "scale": np.float64(0.1)},
    }
    changed = change_recipe(zoo.load_recipe("mlp_flipout.iris"), changes)
    assert (changed.epochs, changed.optimizer.learning_rate, changed.model["hidden"]) == (3, 0.5, [4, 4])
    assert type(changed.model["kernel_prior"]["scale"]) is float
    assert yaml.safe_load(recipe_text(changed)) == changed.model_dump(mode="json")


def test_objects_of_priors_and_posteriors_become_their_configs():
    changes = {
        "model.kernel_prior": tfp_bnn.priors.Normal(scale=0.5),
        "model.kernel_posterior": tfp_bnn.posteriors.Radial(),
    }
    changed = change_recipe(zoo.load_recipe("mlp_flipout.iris"), changes)
    assert (changed.model["kernel_prior"]["name"], changed.model["kernel_prior"]["scale"]) == ("normal", 0.5)
    assert changed.model["kernel_posterior"]["name"] == "radial"
    assert yaml.safe_load(recipe_text(changed)) == changed.model_dump(mode="json")


@pytest.mark.parametrize("key", ["model.kernel_prior", "seed"])
def test_objects_that_could_not_be_written_are_refused_before_a_training(key):
    with pytest.raises(ValueError, match=rf"{key}' got <object .* its name or config"):
        change_recipe(zoo.load_recipe("mlp_flipout.iris"), {key: object()})

"""Recipes: all of those that come with the zoo are valid, and what is not valid is refused with the nearest key."""

from __future__ import annotations

import pytest

import zoo
from zoo.recipes import recipe_text


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
        ("- 1", "a mapping of keys was expected"),
        ("!!python/object/apply:os.system ['x']", "YAML"),
    ],
)
def test_bad_files(tmp_path, text, says):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=says):
        zoo.load_recipe(path)

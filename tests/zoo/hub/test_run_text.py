"""What a card says of how to run its recipe."""

from __future__ import annotations

import pytest

from zoo.hub.run_text import how_to_run
from zoo.recipes import load_recipe, recipe_text

IRIS = "mlp_flipout.iris"
CONFIG = {"name": "renamed", "data": {"dataset": "iris"}}


@pytest.mark.parametrize(
    ("changes", "source"),
    [
        ({}, IRIS),
        ({"notes": "Mine."}, IRIS),
        # By its name the recipe would be another one, or none.
        ({"epochs": 1}, "recipe.yaml"),
        ({"name": "mlp_flipout.mine"}, "recipe.yaml"),
    ],
)
def test_a_recipe_is_run_by_its_name_if_that_leads_to_it(changes, source):
    recipe = load_recipe(IRIS).model_copy(update=changes)
    assert how_to_run(recipe_text(recipe), CONFIG) == f"`tfp-bnn train {source}` runs it"


def test_a_recipe_with_a_key_that_is_no_longer_known_is_run_from_its_file():
    assert "train recipe.yaml" in how_to_run(f"{recipe_text(load_recipe(IRIS))}of_old: 1\n", CONFIG)

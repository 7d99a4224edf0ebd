"""By what a network of a recipe divides the pixels of other data than the recipe's."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import zoo
from zoo.training.planning import fitted_to, planned


def digits(highest, dtype=np.float32):
    """Digits with other pixels, under another name."""
    data = zoo.load_dataset("digits")
    parts = {name: data.split(name) for name in ("train", "validation", "test")}
    scaled = {
        name: dataclasses.replace(part, x=(part.x * (highest / 16)).astype(dtype)) for name, part in parts.items()
    }
    return dataclasses.replace(data, name="own", **scaled)


@pytest.mark.parametrize(
    ("recipe", "changes", "pixels", "expected"),
    [
        ("mlp_flipout.mnist", {}, (16,), 16),
        ("mlp_flipout.digits", {}, (1,), 1),
        ("mlp_flipout.digits", {}, (255, np.uint8), 255),
        # Of the digits in 8 bits, and of dark photographs.
        ("mlp_flipout.digits", {}, (16, np.uint8), 16),
        ("mlp_flipout.mnist", {}, (50, np.uint8), 255),
        ("mlp_flipout.mnist", {}, (100,), 255),
        ("mlp_flipout.mnist", {"model.pixel_max": 250.0}, (16,), 250),
        ("mlp_flipout.mnist", {"model": {"pixel_max": 250.0}}, (16,), 250),
        # Its inputs are standardized.
        ("resnet20_flipout.cifar10", {}, (255, np.uint8), None),
        ("mlp_flipout.iris", {}, (16,), None),
    ],
)
def test_pixels_are_divided_by_their_maximum(recipe, changes, pixels, expected):
    told = []
    before = planned(recipe, {"dataset": None, **changes})
    after = fitted_to(before, digits(*pixels), told.append)
    assert after.model.get("pixel_max") == expected
    assert len(told) == (after is not before)


def test_a_default_is_fitted_and_what_a_recipe_says_of_its_own_data_is_not():
    recipe = {"name": "lenet5_flipout.own", "architecture": "lenet5_flipout"}
    assert fitted_to(zoo.load_recipe(recipe), digits(1), print).model["pixel_max"] == 1
    own = zoo.load_recipe({**recipe, "dataset": "digits"})
    assert fitted_to(own, dataclasses.replace(digits(1), name="digits"), print) is own


def test_a_training_on_other_data_tells_what_pixels_are_divided_by(tmp_path):
    told = []
    changes = {"dataset": "digits", "evaluation.out_of_distribution": "wine"}
    with pytest.raises(ValueError, match="'wine' has inputs of shape"):
        zoo.train("mlp_flipout.mnist", tmp_path / "out", overrides=changes, tell=told.append)
    assert told == ["the inputs go up to 16: they are divided by 16, not 255 (model.pixel_max)"]

"""What cards say of the training of a posterior, and of its distance from the optimum of the ELBO."""

from __future__ import annotations

import pytest

from zoo.hub.optimum_text import optimum_lines, training_lines
from zoo.recipes import load_recipe, recipe_text

from ..recipe_parts import RECIPE


@pytest.mark.parametrize(
    ("temperature", "says"),
    [
        (0.95, "as at the optimum of the ELBO"),
        (0.2, "narrower than at the optimum of the ELBO: cooled, or stopped short of it"),
        (-0.1, "narrower than at the optimum of the ELBO: cooled, or stopped short of it"),
        (1.2, "wider than at the optimum of the ELBO: stopped short of it"),
    ],
)
def test_the_temperature_of_the_scales_is_said_in_words(temperature, says):
    numbers = {"elbo": -1.5, "nll": 0.25, "temperature_of_scales": temperature}
    elbo, line = optimum_lines({"optimum": numbers})
    assert elbo == "- ELBO at beta 1: -1.5 nats per training example; expected NLL: 0.25"
    assert line == f"- temperature of the scales: {temperature:.3g}, {says}"
    assert optimum_lines({}) == []


def test_a_natural_gradient_and_a_deterministic_start_are_named():
    own = {"inference": "natural_gradient", "optimizer": {"natural_gradient": {"temperature": 0.2}}}
    start = {"epochs": 3}
    recipe = load_recipe({**RECIPE, **own, "deterministic_start": start})
    assert training_lines(recipe_text(recipe)) == [
        "- trained along the natural gradient, curvature rate 0.002; a cold posterior, of temperature 0.2",
        "- the means were trained first, as a point estimate, for 3 epochs",
    ]
    recipe = load_recipe({**RECIPE, **own, "deterministic_start": {**start, "model": "mlp.iris_map"}})
    assert training_lines(recipe_text(recipe))[-1].endswith(" for 3 epochs: those of mlp.iris_map")
    assert training_lines(recipe_text(load_recipe(RECIPE))) == training_lines("") == []

"""Calibration and conformal prediction by recipe: which rows each is fitted to, and what cannot be fitted."""

from __future__ import annotations

import numpy as np
import pytest

import tfp_bnn
import zoo
from tfp_bnn.predictive import ConformalIntervals, ConformalSets
from zoo.evaluation.verification import Status, verify
from zoo.recipes import recipe_text
from zoo.training.by_recipe import _fingerprint
from zoo.training.calibrating import halves_of_validation

from ..recipe_parts import RECIPE as BASE

pytestmark = pytest.mark.usefixtures("steps_run_eagerly")

RECIPE = {**BASE, "conformal": {"level": 0.8}, "evaluation": {"num_samples": 6, "seed": 3, "spread_seeds": []}}


@pytest.mark.slow
def test_each_is_fitted_to_its_half_of_the_validation_split(tmp_path):
    recipe = zoo.load_recipe({**RECIPE, "calibration": "temperature"})
    run = zoo.train(recipe, tmp_path / "model")
    first, second = halves_of_validation(recipe, zoo.load_dataset("iris"))
    predictive = run.model.posterior_predictive(second.x, 6, 3)
    assert run.model.conformal == ConformalSets.fitted(predictive, second.y, 0.8, False, num_samples=6, seed=3)
    test = zoo.load_dataset("iris").test
    assert run.metrics["conformal"] == run.model.conformal.score(run.model.posterior_predictive(test.x, 6, 3), test.y)
    checks = {check.quantity: check.status for check in verify(run.path)}
    assert {"conformal/coverage", "conformal/mean_size", "recipe/level"} < set(checks)
    assert set(checks.values()) == {Status.PASSED}
    run.model.conformal, temperature = None, run.model.calibration.temperature
    assert tfp_bnn.calibrate(run.model, first.x, first.y, 6, 3).temperature == pytest.approx(temperature, rel=1e-6)


def test_the_halves_share_no_row_and_one_alone_gets_all_rows():
    data = zoo.load_dataset("iris")
    both = zoo.load_recipe({**RECIPE, "calibration": "temperature"})
    halves = halves_of_validation(both, data)
    assert [len(half) for half in halves] == [12, 12]
    for name in ("x", "y"):
        together, whole = np.concatenate([getattr(half, name) for half in halves]), getattr(data.validation, name)
        np.testing.assert_array_equal(np.sort(together, axis=0), np.sort(whole, axis=0))
    # Rows of a file are often sorted by class.
    assert set(halves[0].y) == set(halves[1].y) == {0, 1, 2}
    for changes in ({}, {"calibration": "temperature", "conformal": None}):
        assert halves_of_validation(zoo.load_recipe({**RECIPE, **changes}), data) == (data.validation,) * 2


def test_intervals_by_recipe():
    recipe = {**RECIPE, "dataset": "diabetes", "standardize_targets": True, "batch_size": 300, "epochs": 1}
    model, validation = zoo.train(recipe, measure=False).model, zoo.load_dataset("diabetes").validation
    predictive = model.posterior_predictive(validation.x, 6, 3)
    assert model.conformal == ConformalIntervals.fitted(predictive, validation.y, 0.8, False, num_samples=6, seed=3)


def test_recipes_without_one_are_written_and_resumed_as_before():
    plain, recipe = zoo.load_recipe(BASE), zoo.load_recipe(RECIPE)
    data = zoo.load_dataset("iris")
    assert "conformal" not in recipe_text(plain)
    assert "conformal" not in _fingerprint(plain, data, 1)["recipe"]
    assert "conformal:\n  level: 0.8\n  by_class: false\n" in recipe_text(recipe)
    assert _fingerprint(recipe, data, 1)["recipe"]["conformal"] == {"level": 0.8, "by_class": False}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"conformal": {"level": 1}}, "'conformal.level' got 1"),
        ({"conformal": {"level": 0.9, "class": True}}, "the key 'conformal.class' is unknown"),
        ({"conformal": {"level": 0.97}}, "to the validation split. A level of 0.97 needs at least 33 examples, .* 24"),
        (
            {"conformal": {"level": 0.95}, "calibration": "temperature"},
            "to half of the validation split. A level of 0.95 needs at least 19 examples, but there are 12",
        ),
        (
            {"conformal": {"by_class": True}},
            "at least 9 examples of each class, but class 0 has 8",
        ),
        ({"conformal": {"by_class": True}, "dataset": "diabetes"}, "by_class: true, but its targets are numbers"),
    ],
)
def test_what_could_not_be_fitted_is_refused_before_training(changes, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        zoo.train({**RECIPE, "epochs": 100_000, **changes}, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []

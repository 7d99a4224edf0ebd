"""Predictions whose draws do not fit into memory: what is measured all the same, and what is refused early."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import zoo
from zoo.evaluation import blocks
from zoo.evaluation.blocks import Block, rows_in_memory
from zoo.evaluation.card_numbers import evaluate, labelled_blocks
from zoo.evaluation.report.measured import measure as measure_for_report
from zoo.evaluation.suite import evaluate_suite
from zoo.evaluation.verification import _of_block
from zoo.training import calibrating

from ..recipe_parts import RECIPE


@pytest.fixture(params=["iris", "diabetes"])
def measured(request):
    """A model with its data, and the scores of their test split."""
    data = zoo.load_dataset(request.param)
    likelihood = {} if data.num_classes else {"likelihood": "normal"}
    size = {"input_shape": data.input_shape, "num_outputs": data.num_classes or 1}
    model = zoo.create_model("mlp_flipout", hidden=(4,), seed=0, **size, **likelihood)
    return model, data, evaluate(model, data, num_samples=6, seed=1)


@pytest.fixture
def little_memory(monkeypatch):
    monkeypatch.setattr(blocks, "MOST_BYTES", 4 * 6 * 3 * 8)


def test_scores_are_the_same_whatever_memory_the_draws_take(measured, little_memory):
    model, data, expected = measured
    assert evaluate(model, data, num_samples=6, seed=1) == pytest.approx(expected, rel=1e-5)
    block = labelled_blocks(model, data, 6)["test"]
    numbers = _of_block(model, block, 1)
    assert {name: number.value for name, number in numbers.items()} == pytest.approx(expected, rel=1e-5)
    assert not block.predict(model, 1).has_draws


def test_plug_in_predictions_that_do_not_fit_are_scored_without_draws_and_uncalibrated(measured, monkeypatch):
    model, data, _ = measured
    name = "temperature" if data.num_classes else "scale"
    model.calibration = {"name": name, name: 2.0}
    block = Block(data.test.x, data.test.y, 1, calibrated=False, plug_in=True)
    predictive = block.predict(model, 1)
    expected = block.score(model, 1, predictive)
    monkeypatch.setattr(blocks, "_ROWS_OF_A_PART", 7)
    assert block.score(model, 1, SimpleNamespace(has_draws=False)) == pytest.approx(expected, rel=1e-5)


def test_a_conformal_prediction_is_scored_alike_whatever_memory_the_draws_take(measured, monkeypatch):
    model, data, _ = measured
    x, y = np.tile(data.test.x, (20, 1)), np.concatenate([data.test.y] * 20)
    block = Block(x, y, 6)
    kind = {"name": "sets", "thresholds": 0.6} if data.num_classes else {"name": "intervals", "margins": 0.05}
    model.conformal = {**kind, "level": 0.9}
    expected = block.conformal_score(model, 1, block.predict(model, 1))
    monkeypatch.setattr(blocks, "MOST_BYTES", 4 * 6 * 400)
    assert block.conformal_score(model, 1, block.predict(model, 1)) == pytest.approx(expected, rel=1e-5)


def test_what_needs_all_draws_is_refused_before_it_is_measured(measured, little_memory):
    model, data, _ = measured
    number = 8 if data.num_classes else 24
    assert rows_in_memory(model, data.test.x, 6, 1) == (number, 6)
    how = {"name": "m", "num_samples": 6, "seed": 1, "calibrated": True, "out_of_distribution": None}
    says = rf"A report needs all draws .* 6 for each of {len(data.test)} rows .* at most {number} rows\. The scores"
    with pytest.raises(ValueError, match=says):
        measure_for_report(model, data, "test", **how)


def test_the_suite_is_refused_before_it_is_run(little_memory):
    data = zoo.load_dataset("digits")
    model = zoo.create_model("mlp_flipout", hidden=(4,), input_shape=data.input_shape, num_outputs=10)
    said = []
    with pytest.raises(ValueError, match=r"The suite needs all draws of its predictions"):
        evaluate_suite(model, data, num_samples=6, out_of_distribution=[], tell=said.append)
    assert not said


def test_a_calibration_is_fitted_to_as_many_rows_as_have_draws_in_memory(measured, little_memory, monkeypatch):
    model, data, _ = measured
    rows = []
    monkeypatch.setattr(calibrating, "calibrate", lambda model, x, y, **how: rows.append((x, y)))
    calibration = "temperature" if data.num_classes else "scale"
    recipe = zoo.load_recipe({**RECIPE, "calibration": calibration, "evaluation": {"num_samples": 6}})
    for _ in range(2):
        calibrating.calibrate_by_recipe(model, recipe, data)
    (x, y), again = rows
    assert len(x) == len(y) == (8 if data.num_classes else 24)
    np.testing.assert_array_equal(x, again[0])
    own = {tuple(row): target for row, target in zip(data.validation.x, data.validation.y.tolist(), strict=True)}
    assert [own[tuple(row)] for row in x] == y.tolist()


def test_sets_of_classes_are_fitted_to_all_rows_and_intervals_to_those_with_draws_in_memory(
    measured, little_memory, monkeypatch
):
    """`by_class` counts all rows before the training; a part of them might not have a rare class at all."""
    model, data, _ = measured
    fitted = []
    monkeypatch.setattr(calibrating, "conformalize", lambda model, x, y, *how, **draws: fitted.append((x, y)))
    recipe = zoo.load_recipe({**RECIPE, "conformal": {"level": 0.5}, "evaluation": {"num_samples": 6}})
    calibrating.conformalize_by_recipe(model, recipe, data)
    ((x, y),) = fitted
    assert len(x) == len(y) == (len(data.validation) if data.num_classes else 24)

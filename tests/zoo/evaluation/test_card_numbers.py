"""The numbers of a card: what is measured, on what, and with which calibration."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

import zoo
from tfp_bnn.metrics import out_of_distribution_auroc
from tfp_bnn.models.weight_record import WeightRecord
from zoo.datasets import DATASETS
from zoo.evaluation.card_numbers import (
    evaluate,
    kl_draws,
    labelled_blocks,
    measure,
    out_of_distribution_block,
    out_of_distribution_numbers,
    score,
    with_spread,
)
from zoo.hub.cards import posterior_statistics
from zoo.hub.manifest import to_json
from zoo.training.by_recipe import build

from ..recipe_parts import RECIPE as BASE

RECIPE = {**BASE, "evaluation": {"num_samples": 6, "seed": 3}}
REGRESSION = {**RECIPE, "dataset": "diabetes", "standardize_targets": True}


def fitted(recipe, data):
    model = build(zoo.load_recipe(recipe), data)
    model.fit(data.train.x, data.train.y, epochs=recipe["epochs"], verbose=0)
    return model


@pytest.fixture(scope="module")
def trained():
    """A calibrated classifier."""
    data = zoo.load_dataset("iris")
    model = fitted(RECIPE, data)
    model.calibration = {"name": "temperature", "temperature": 1.5}
    return model, data


def test_measure_gives_every_number_of_the_posterior(trained):
    model, data = trained
    numbers = measure(model, data, zoo.load_recipe(RECIPE).evaluation)
    assert numbers["test"] == evaluate(model, data, num_samples=6, seed=3)
    assert numbers["test_uncalibrated"] == evaluate(model, data, num_samples=6, seed=3, calibrated=False)
    assert numbers["test"]["nll"] != numbers["test_uncalibrated"]["nll"]
    assert numbers["validation"] == evaluate(model, data, "validation", num_samples=6, seed=3)
    quick = {"num_examples": 30, "num_samples": 10, "seed": 3, "test": evaluate(model, data, num_samples=10, seed=3)}
    assert numbers["quick"] == quick
    assert {key: numbers[key] for key in ("num_samples", "seed", "split", "num_examples", "beta")} == {
        "num_samples": 6,
        "seed": 3,
        "split": "test",
        "num_examples": 30,
        "beta": model.beta,
    }
    assert numbers["kl"]["by_layer"] == pytest.approx({name: float(kl) for name, kl in model.kl_by_layer().items()})
    assert numbers["kl"]["total"] == pytest.approx(sum(numbers["kl"]["by_layer"].values()))
    assert numbers["posterior"] == posterior_statistics(WeightRecord.of(model))
    assert numbers["test_plug_in"] == score(model.plug_in_predictive(data.test.x), data.test.y)
    outside = numbers["out_of_distribution"]
    assert (outside["data"], outside["num_examples"]) == ("uniform", 30)
    to_json(numbers)


def test_uncertainty_out_of_distribution_is_measured_in_each_version(trained):
    model, data = trained
    block = out_of_distribution_block(data, "uniform", 6)
    numbers = out_of_distribution_numbers(model, data, block, 3)
    predicted = [model.posterior_predictive(x, num_samples=6, seed=3, calibrated=False) for x in (data.test.x, block.x)]
    inside, outside = predicted
    expected = {
        "auroc_entropy": out_of_distribution_auroc(inside.entropy(), outside.entropy()),
        "auroc_mutual_information": out_of_distribution_auroc(inside.epistemic(), outside.epistemic()),
        **score(outside),
    }
    assert numbers["uncalibrated"] == expected
    assert numbers["entropy"] > expected["entropy"]
    assert set(numbers) == {*expected, "uncalibrated", "plug_in"}
    # One draw does not disagree with itself.
    assert set(numbers["plug_in"]) == {"entropy", "mutual_information", "auroc_entropy"}
    model_alone = zoo.create_model("mlp_flipout", input_shape=(4,), num_outputs=3)
    assert "uncalibrated" not in out_of_distribution_numbers(model_alone, data, block, 3)


def test_nothing_uncalibrated_without_a_calibration(trained):
    _, data = trained
    model = zoo.create_model("mlp_flipout", input_shape=(4,), num_outputs=3)
    assert list(labelled_blocks(model, data, 5)) == ["test", "test_plug_in", "validation", "quick"]


@pytest.mark.slow
def test_regression_has_epistemic_std_out_of_distribution():
    data = zoo.load_dataset("diabetes")
    model = fitted(REGRESSION, data)
    numbers = measure(model, data, zoo.load_recipe(REGRESSION).evaluation)
    outside = numbers["out_of_distribution"]
    assert set(outside) == {"data", "num_examples", "epistemic_std", "auroc_epistemic_std", "plug_in"}
    noise = out_of_distribution_block(data, "uniform", 6).x
    variance = model.posterior_predictive(noise, num_samples=6, seed=3).epistemic()
    assert outside["epistemic_std"] == pytest.approx(np.sqrt(variance.mean()), rel=1e-6)
    assert outside["epistemic_std"] > numbers["test"]["epistemic_std"]


def test_uniform_noise_has_the_range_of_each_column_and_is_always_the_same():
    data = zoo.load_dataset("iris")
    noise = out_of_distribution_block(data, "uniform", 5).x
    assert noise.shape == (30, 4)
    assert noise.dtype == np.float32
    low, high = data.train.x.min(axis=0), data.train.x.max(axis=0)
    assert (low <= noise).all()
    assert (noise <= high).all()
    assert (noise.max(axis=0) - noise.min(axis=0) > 0.8 * (high - low)).all()
    np.testing.assert_array_equal(noise, out_of_distribution_block(data, "uniform", 5).x)


def test_uniform_noise_lies_in_the_groups_of_the_data():
    data = zoo.load_dataset("rotated_moons")
    noise = out_of_distribution_block(data, "uniform", 5).x
    assert set(noise[:, -1]) == set(range(18))
    assert (np.ptp(noise[:, :-1], axis=0) > 0.8 * np.ptp(data.train.x[:, :-1], axis=0)).all()


def test_uniform_noise_has_the_range_of_all_pixels():
    data = zoo.load_dataset("digits")
    noise = out_of_distribution_block(data, "uniform", 5).x
    assert noise.shape == (360, 8, 8, 1)
    # Some pixels, such as the corners, are 0 in every training image.
    assert (noise.max(axis=0) > 15).all()
    assert (noise.min(axis=0) < 1).all()


def test_a_named_dataset_gives_its_first_test_rows(trained, monkeypatch):
    _, data = trained
    monkeypatch.setitem(DATASETS._things, "shifted", lambda: dataclasses.replace(data, name="shifted", test=data.train))
    block = out_of_distribution_block(data, "shifted", 5)
    np.testing.assert_array_equal(block.x, data.train.x[:30])
    assert block.y is None
    with pytest.raises(ValueError, match=r"'wine' has inputs of shape \(13,\), but 'iris' has"):
        out_of_distribution_block(data, "wine", 5)


def test_spread_is_over_all_training_seeds():
    metrics = {"test": {"nll": 1.0, "accuracy": 0.5}, "beta": 1.0}
    others = {4: {"nll": 2.0, "accuracy": 0.5}, 2: {"nll": 6.0, "accuracy": 0.8}}
    numbers = with_spread(metrics, 7, others)
    assert numbers["training_seeds"] == [7, 4, 2]
    assert numbers["spread"]["nll"] == pytest.approx({"mean": 3.0, "std": np.std([1.0, 2.0, 6.0], ddof=1)})
    assert {key: numbers[key] for key in metrics} == metrics
    assert with_spread(metrics, 7, {}) == {**metrics, "training_seeds": [7], "spread": {}}


def test_one_logit_is_scored_as_two_classes():
    labels = np.array([0, 1, 1, 0, 1])
    model = zoo.create_model("mlp_flipout", input_shape=(2,), num_outputs=1, likelihood="bernoulli")
    predictive = model.posterior_predictive(np.ones((5, 2)), num_samples=4)
    measured, one = score(predictive, labels), predictive.mean()[:, 0]
    assert measured["accuracy"] == np.mean((one > 0.5) == labels)
    assert measured["brier"] == pytest.approx(2 * np.mean((one - labels) ** 2), rel=1e-5)
    assert set(score(predictive)) == {"entropy", "mutual_information"}


@pytest.mark.slow
def test_kl_is_drawn_anew_only_where_it_has_no_closed_form():
    closed, drawn = (
        zoo.create_model("mlp_flipout", input_shape=(2,), num_outputs=2, hidden=(4,), kernel_prior=prior)
        for prior in ("normal", "scale_mixture")
    )
    assert all(np.ptp(draws) == 0 for draws in kl_draws(closed).values())
    assert all(np.ptp(draws) > 0 for draws in kl_draws(drawn).values())


@pytest.mark.slow
def test_data_of_the_user_are_evaluated_as_arrays_and_as_streams(trained):
    model, data = trained
    test = data.test
    expected = evaluate(model, data, num_samples=4)
    batches = tf.data.Dataset.from_tensor_slices((test.x, test.y)).batch(8)
    for own in ((test.x, test.y), (test.x.tolist(), test.y.tolist()), batches, (batch for batch in batches)):
        assert evaluate(model, own, num_samples=4) == pytest.approx(expected, rel=1e-5)

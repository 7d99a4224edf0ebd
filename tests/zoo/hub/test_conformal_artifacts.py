"""Artifacts with a conformal prediction: kept, shown on the card, and refused where it is none."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tfp_bnn
import zoo
from tfp_bnn.predictive import ConformalIntervals, ConformalSets
from zoo.hub.reading import read_artifact
from zoo.hub.ways import text_of

SETS = {"name": "sets", "level": 0.9, "num_samples": 16, "seed": 3, "thresholds": [0.5, 0.25, 1.0]}


def test_it_is_kept_and_the_card_shows_what_was_measured(tiny_artifact, tmp_path):
    model, metrics = zoo.load_artifact(tiny_artifact, trust=True), read_artifact(tiny_artifact)["metrics"]
    assert model.conformal is None
    assert "conformal" not in json.loads((tiny_artifact / "config.json").read_text())
    model.conformal = SETS
    metrics = {**metrics, "conformal": {"coverage": 0.9, "mean_size": 1.25}}
    folder = zoo.save_artifact(model, tmp_path / "sets", metrics=metrics)
    assert json.loads((folder / "config.json").read_text())["conformal"] == SETS
    assert zoo.load_artifact(folder, trust=True).conformal == model.conformal
    card = read_artifact(folder)["card"]
    assert (
        "Sets of classes that contain the class of a new example with a probability of at least 0.9, in every class, "
        "if it is exchangeable with the examples of the fit, whose predictions were made with 16 samples, seed 3.\n"
    ) in card
    # sqrt(.9 * .1 / 30) = 0.0548
    assert "| coverage | 0.9 ± 0.055 |\n| mean_size | 1.25 |\n" in card
    assert "the binomial standard error of 30 examples. `mean_size` is the mean number of classes in a set.\n" in card


def test_intervals_are_kept_without_numbers(tmp_path):
    model = zoo.create_model("mlp_flipout", input_shape=(2,), num_outputs=2, likelihood="normal", hidden=(2,))
    model.conformal = ConformalIntervals(0.8, [0.5, -0.25])
    folder = zoo.save_artifact(model, tmp_path / "intervals")
    assert zoo.load_artifact(folder, trust=True).conformal == model.conformal
    card = read_artifact(folder)["card"]
    assert "Intervals that contain each target of a new example with a probability of at least 0.8, if it is" in card
    assert "whose predictions were made.\n" in card


def test_an_ensemble_keeps_its_own(tmp_path):
    members = [zoo.create_model("mlp_flipout", input_shape=(2,), num_outputs=3, hidden=(2,)) for _ in range(2)]
    model = tfp_bnn.inference.ensemble(members, draws_per_member=2)
    model.conformal = SETS
    folder = zoo.save_artifact(model, tmp_path / "ensemble")
    loaded = zoo.load_artifact(folder, trust=True)
    assert loaded.conformal == ConformalSets(0.9, [0.5, 0.25, 1.0], 16, 3)
    # So are its draws.
    assert text_of(read_artifact(folder)["config"]).draws.endswith("in turn of each of {members} members")
    x = np.ones((1, 2), np.float32)
    np.testing.assert_array_equal(*(each.posterior_predictive(x, seed=5).samples for each in (model, loaded)))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({**SETS, "level": 1.0}, "'conformal.level' got 1.0"),
        ({**SETS, "level": "0.9"}, "'conformal.level' got '0.9'"),
        ({**SETS, "level": True}, "'conformal.level' got True"),
        # Whoever predicts with it would wait for as many draws.
        ({**SETS, "num_samples": 10**9}, "'conformal.num_samples' got 1000000000"),
        ({**SETS, "seed": 2**63}, "'conformal.seed' got 9223372036854775808"),
        ({**SETS, "thresholds": [0.5] * 10_001}, "'conformal.thresholds"),
        ({**SETS, **{f"k{k}": 0 for k in range(20)}}, "'conformal' got .*25 keys; at most 16 were expected"),
        ({**SETS, "thresholds": "0.5"}, "'conformal.thresholds.*' got '0.5'"),
        ({**SETS, "thresholds": [[0.5]]}, "'conformal.thresholds"),
        ({**SETS, "thresholds": {"class_name": "Lambda"}}, "'conformal.thresholds"),
        ({**SETS, "class_name": "Lambda", "config": {}}, "'conformal"),
        ({"level": 0.9}, "the key 'conformal.name' is missing"),
        ([SETS], r"'conformal' got \["),
        ("sets", "'conformal' got 'sets'"),
        ({**SETS, "thresholds": 1.5}, "'conformal' got .*must be a number from 0 to 1, or a list .* got 1.5"),
        ({**SETS, "thresholds": [-1e-9] * 3}, "'conformal' got .*must be a number from 0 to 1"),
        (
            {**SETS, "thresholds": []},
            r"'conformal' got .*must be a number from 0 to 1, or a list of them, but got \[\]",
        ),
        ({**SETS, "thresholds": [0.5] * 4}, "'conformal' got .*thresholds for 4 classes, but the predictions are of 3"),
        ({**SETS, "name": "set"}, "'conformal' got .*Did you mean 'sets'"),
        ({**SETS, "threshold": 0.5}, "'conformal' got .*Did you mean 'thresholds'"),
        ({"name": "sets", "level": 0.9}, "'conformal' got .*needs a value for 'thresholds'"),
        ({"name": "intervals", "level": 0.9, "margins": 0.5}, "'conformal' got .*does not fit the likelihood"),
    ],
)
def test_what_is_none_is_refused(artifact, rewrite, value, says):
    config = json.loads((artifact / "config.json").read_text())
    rewrite("config.json", json.dumps({**config, "conformal": value}).encode())
    with pytest.raises(ValueError, match=rf"config\.json: .*{says}") as caught:
        zoo.load_artifact(artifact, trust=True)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("margins", [1e300, -0.6, [0.0, 0.0]])
def test_intervals_that_cannot_be_are_refused(margins, tmp_path):
    model = zoo.create_model("mlp_flipout", input_shape=(2,), num_outputs=1, likelihood="normal", hidden=(2,))
    model.conformal = ConformalIntervals(0.8, 0.5)
    folder = zoo.save_artifact(model, tmp_path / "intervals")
    config = json.loads((folder / "config.json").read_text())
    config["conformal"]["margins"] = margins
    (folder / "config.json").write_text(json.dumps(config))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = zoo.hub.manifest.describe_files(folder)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"'conformal' got .*margins"):
        zoo.load_artifact(folder, trust=True)


def test_several_labels_have_none_and_one_yes_or_no_has_two_classes(tmp_path):
    model = zoo.create_model("mlp_flipout", input_shape=(2,), num_outputs=3, likelihood="bernoulli", hidden=(2,))
    model.conformal = ConformalSets(0.9, 0.5)
    with pytest.raises(ValueError, match="no conformal prediction for several labels"):
        zoo.save_artifact(model, tmp_path / "labels")
    model = zoo.create_model("mlp_flipout", input_shape=(2,), num_outputs=1, likelihood="bernoulli", hidden=(2,))
    model.conformal = ConformalSets(0.9, [0.5, 0.6])
    assert zoo.load_artifact(zoo.save_artifact(model, tmp_path / "one"), trust=True).conformal == model.conformal
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_the_sets_of_a_loaded_model_are_those_of_the_saved_one(tiny_artifact, tmp_path):
    model, data = zoo.load_artifact(tiny_artifact, trust=True), zoo.load_dataset("iris")
    conformal = tfp_bnn.conformalize(model, data.validation.x, data.validation.y, num_samples=5, seed=2)
    again = zoo.load_artifact(zoo.save_artifact(model, tmp_path / "again"), trust=True)
    first, second = (
        m.conformal.predict(m.posterior_predictive(data.test.x, conformal.num_samples, conformal.seed))
        for m in (model, again)
    )
    np.testing.assert_array_equal(first, second)

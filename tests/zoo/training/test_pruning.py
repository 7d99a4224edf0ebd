"""Pruning of an artifact, and what it says of its data."""

from __future__ import annotations

from dataclasses import replace

import pytest

import tfp_bnn
import zoo
from tfp_bnn.models.weight_record import weight_distributions
from zoo.datasets import DATASETS, Split
from zoo.evaluation.verification import Status, verify
from zoo.hub.pruning_text import pruning_section
from zoo.training import pruning
from zoo.training.pruning import prune_artifact
from zoo.training.pruning_settings import Settings

IRIS = zoo.load_dataset("iris")


@pytest.fixture
def other(monkeypatch):
    """Another dataset than that of the source, with its columns and classes."""
    data = replace(IRIS, name="other", train=IRIS.test, test=IRIS.train, license="CC0")
    monkeypatch.setitem(DATASETS._things, "other", lambda: data)
    return data


@pytest.mark.slow
def test_the_card_is_that_of_the_data_that_were_given(tiny_artifact, other, eager_steps, tmp_path):
    how = {"epochs": 1, "seed": 3, "trust": True}
    with eager_steps():
        named = prune_artifact(tiny_artifact, 0.3, data="other", out=tmp_path / "named", **how)
        in_memory = prune_artifact(tiny_artifact, 0.3, data=other, **how)
    assert {check.status for check in verify(tmp_path / "named")} == {Status.PASSED}
    card = (tmp_path / "named" / "README.md").read_text("utf-8")
    assert f"trained on `other` (classification). N = {len(other.train)} training examples" in card
    assert "CC0" in card
    assert in_memory.about["dataset"] is None
    assert in_memory.model.class_names == IRIS.class_names
    assert "seed of the pruning 3" in card
    # The same seed gives the same weights.
    first, second = (weight_distributions(done.model) for done in (named, in_memory))
    assert all((first[name] == second[name]).all() for name in first)


def test_data_that_a_model_was_only_measured_with_are_not_those_of_its_training(tiny_artifact, other):
    done = prune_artifact(tiny_artifact, 0.3, data="other", trust=True)
    before = zoo.load_artifact(tiny_artifact, trust=True).card["config"]["data"]
    assert {**before, "dataset": None} == {name: done.about[name] for name in before}
    assert done.metrics["num_examples"] == len(other.test)
    assert done.metrics["out_of_distribution"]["data"] == "uniform"
    # Its own data have their name, however they are given.
    assert prune_artifact(tiny_artifact, 0.3, data=IRIS, trust=True).about["dataset"] == "iris"


def test_the_command_names_the_data():
    counts = {"weights_before": 10, "weights_kept": 7, "layer_units": {}}
    how = {"source": "mlp_flipout.iris", "trust": False, **Settings(0.3).described(), **counts}
    assert "--dataset" not in pruning_section(how)
    assert " --dataset other --out" in pruning_section({**how, "data": "other", "dataset": "other"})
    unnamed = pruning_section({**how, "data": "mine", "dataset": None})
    assert "Measured on `mine`" in unnamed
    assert "tfp-bnn prune" not in unnamed


def test_what_was_fitted_to_the_source_is_fitted_again_whatever_its_recipe_says(tmp_path):
    model = zoo.load_model("mlp_flipout.iris")
    tfp_bnn.calibrate(model, IRIS.validation.x, IRIS.validation.y, num_samples=5)
    tfp_bnn.conformalize(model, IRIS.validation.x, IRIS.validation.y, level=0.8, num_samples=5)
    zoo.save_artifact(model, tmp_path / "source")
    done = prune_artifact(tmp_path / "source", 0.3, data=IRIS, trust=True, out=tmp_path / "pruned")
    assert done.model.calibration is not None
    assert done.model.conformal.level == 0.8
    # It has no recipe, and none is made up.
    assert done.recipe is None
    assert "without_recipe" not in (tmp_path / "pruned" / "README.md").read_text("utf-8")


def test_too_few_rows_for_what_is_fitted_are_refused_before_the_training(tmp_path, monkeypatch):
    model = zoo.load_model("mlp_flipout.iris")
    tfp_bnn.conformalize(model, IRIS.train.x, IRIS.train.y, level=0.95, num_samples=5)
    zoo.save_artifact(model, tmp_path / "source")
    monkeypatch.setattr(pruning, "prune_in_rounds", None)
    few = replace(IRIS, validation=Split(IRIS.validation.x[:10], IRIS.validation.y[:10]))
    with pytest.raises(ValueError, match=r"A level of 0\.95 needs at least"):
        prune_artifact(tmp_path / "source", 0.3, data=few, trust=True, epochs=1)

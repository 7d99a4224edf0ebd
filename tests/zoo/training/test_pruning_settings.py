"""Settings of a pruning."""

from __future__ import annotations

import json

import numpy as np
import pytest

import zoo
from zoo.training import pruning
from zoo.training.pruning_settings import Settings, settings_of


def test_each_round_removes_the_same_share_of_what_is_left():
    steps = Settings(0.875, epochs=2, rounds=3).steps
    assert [step.fraction for step in steps] == pytest.approx([0.5, 0.75, 0.875])
    assert Settings(below=1.0).steps == [Settings(below=1.0)]


def test_they_are_given_as_an_object_or_by_their_fields_and_have_one_name_for_a_criterion():
    settings = Settings(0.5, by="l1", layers="dense1")
    assert settings == settings_of(0.5, {"by": "magnitude", "layers": ["dense1"]})
    assert settings == settings_of(None, {"fraction": 0.5, "by": "magnitude", "layers": ["dense1"]})
    assert settings_of(settings, {}) is settings
    with pytest.raises(TypeError, match="no 'epoch'"):
        settings_of(0.5, {"epoch": 1})
    with pytest.raises(TypeError, match="but got both: units"):
        settings_of(settings, {"units": True})


def test_numbers_of_numpy_are_written_as_those_of_python():
    described = Settings(np.float32(0.5), epochs=np.int64(1), learning_rate=np.float32(0.25)).described()
    assert json.loads(json.dumps(described)) == Settings(0.5, epochs=1, learning_rate=0.25).described()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": -1}, "`epochs` got -1: Input should be greater than or equal to 0"),
        ({"rounds": 2}, "give the number of `epochs`"),
        ({"fraction": None, "below": 1.0, "rounds": 2, "epochs": 1}, "with `below` there is one"),
        ({"learning_rate": 0.0}, "`learning_rate` got 0.0: Input should be greater than 0"),
        ({"by": "size"}, "Unknown criterion of pruning 'size'"),
        ({"by": ["kl"]}, "Unknown criterion of pruning"),
        ({"below": 1.0}, "Give either `fraction`"),
        ({"fraction": np.array([0.5])}, "`fraction` got .*: Input should be a valid number"),
    ],
)
def test_what_is_out_of_range_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Settings(**{"fraction": 0.5, **arguments})


def test_a_posterior_of_a_file_that_cannot_be_pruned_is_a_wrong_value(monkeypatch):
    values = {"estimator": "reparameterization", "kernel_posterior": "radial"}
    model = zoo.create_model("mlp_flipout", input_shape=(4,), num_outputs=3, **values)
    monkeypatch.setattr(pruning, "open_model", lambda name, trust: model)
    with pytest.raises(ValueError, match=r"^'mine' cannot be pruned: The posterior of dense1/kernel is Radial"):
        pruning.prune_artifact("mine", 0.5)

"""Bundled models notice inputs that are unlike those of training."""

from __future__ import annotations

import json
import warnings

import pytest

import zoo
from tfp_bnn import UnlikelyInputsWarning
from zoo.hub.reading import read_artifact

DIGITS = read_artifact("lenet5_flipout.mnist")["golden"]["inputs"]


@pytest.fixture(scope="module")
def lenet():
    return zoo.load_model("lenet5_flipout.mnist")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda x: x / 255, "Were they rescaled already"),
        (lambda x: 255 - x, "Are light and dark exchanged"),
        (lambda x: x * 257, "far outside the range"),
    ],
    ids=["divided by 255", "dark on white", "16 bits"],
)
def test_digits_of_another_kind_warn_and_their_own_kind_does_not(lenet, change, says):
    for predict in (lambda x: lenet.posterior_predictive(x, num_samples=2), lenet.plug_in_predictive):
        with pytest.warns(UnlikelyInputsWarning, match=f"'lenet5_flipout' are not like .*{says}"):
            predict(change(DIGITS))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            predict(DIGITS)


@pytest.mark.parametrize("name", sorted(zoo.list_models(pretrained=True)))
def test_every_bundled_model_knows_its_inputs_and_shows_them(name):
    artifact = read_artifact(name)
    config = artifact["config"]
    inputs = config["data"]["inputs"]
    assert len(inputs["low"]) == config["config"]["input_shape"][-1]
    assert inputs["names"] == config["data"]["feature_names"]
    assert f"{inputs['mean'][0]:.4g} ± {inputs['std'][0]:.2g}" in artifact["card"]


def test_the_files_of_a_model_with_bad_expected_inputs_are_refused(artifact, rewrite):
    config = json.loads((artifact / "config.json").read_text())
    for inputs in ({"low": [0.0]}, {key: [1.0] * 3 for key in ("low", "high", "mean", "std")}):
        config["data"]["inputs"] = inputs
        rewrite("config.json", json.dumps(config).encode())
        with pytest.raises(ValueError, match=r"config\.json: Expected inputs"):
            zoo.load_artifact(artifact, trust=True)


def test_what_is_known_of_the_inputs_is_kept_when_a_loaded_model_is_saved(tmp_path):
    model = zoo.load_model("mlp_flipout.iris")
    zoo.save_artifact(model, tmp_path / "copy")
    assert zoo.load_artifact(tmp_path / "copy", trust=True).inputs_expected == model.inputs_expected

"""`model.architecture` belongs to the model, however it is copied, so every copy can become an artifact again."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import tfp_bnn
import zoo
from tfp_bnn.models.weight_record import weight_distributions


def by_keras_file(model, tmp_path):
    model.save(tmp_path / "model.keras")
    return keras.models.load_model(tmp_path / "model.keras")


COPIES = {
    "keras": by_keras_file,
    "pickle": lambda model, tmp_path: pickle.loads(pickle.dumps(model)),  # noqa: S301
    "deepcopy": lambda model, tmp_path: copy.deepcopy(model),
    "clone": lambda model, tmp_path: keras.models.clone_model(model),
    "config": lambda model, tmp_path: type(model).from_config(model.get_config()),
}


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_is_built_from_the_same_and_saved_as_an_artifact_again(tiny_artifact, tmp_path, how):
    model = zoo.load_artifact(tiny_artifact, trust=True)
    copied = COPIES[how](model, tmp_path)
    assert copied.architecture == model.architecture
    assert type(copied.architecture.config) is type(model.architecture.config)
    again = zoo.load_artifact(zoo.save_artifact(copied, tmp_path / "again"), trust=True)
    for name, values in weight_distributions(again).items():
        np.testing.assert_allclose(values, weight_distributions(copied)[name], rtol=1e-5, err_msg=name)


def test_copies_with_other_priors_or_posteriors_are_not_what_the_architecture_builds(tiny_artifact):
    model = zoo.load_artifact(tiny_artifact, trust=True)
    for changed in (
        tfp_bnn.compression.prune(model, 0.5),
        tfp_bnn.transfer.informed_prior(model),
        tfp_bnn.inference.with_fixed_parameters(model),
    ):
        assert changed.architecture is None
        with pytest.raises(ValueError, match="Only models made by"):
            zoo.save_artifact(changed, Path("nowhere"))


@pytest.mark.slow
def test_a_file_is_loaded_without_the_zoo_which_can_come_later(tiny_artifact, tmp_path):
    path = tmp_path / "model.keras"
    zoo.load_artifact(tiny_artifact, trust=True).save(path)
    code = f"""
import sys, keras, tfp_bnn
model = keras.models.load_model({str(path)!r})
assert not any(name.partition(".")[0] == "zoo" for name in sys.modules)
again = type(model).from_config(model.get_config())
assert again.architecture["class_name"] == model.architecture["class_name"] == "BuiltFrom"
import zoo.architectures
print(model.architecture.name, again.architecture == model.architecture)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "mlp_flipout True\n"


def test_a_file_of_an_architecture_that_nobody_knows_is_loaded_and_refused_only_as_an_artifact(tiny_artifact, tmp_path):
    model = zoo.load_artifact(tiny_artifact, trust=True)
    config = model.get_config()
    config["architecture"]["config"]["name"] = "mlp_flipuot"
    loaded = type(model).from_config(config)
    usual = np.array([model.inputs_expected.mean] * 2)
    assert loaded.posterior_predictive(usual, num_samples=2).mean().shape == (2, 3)
    with pytest.raises(ValueError, match="Did you mean 'mlp_flipout'"):
        zoo.save_artifact(loaded, tmp_path / "artifact")


def test_a_model_of_your_own_has_none():
    model = tfp_bnn.VariationalSequential([keras.Input((2,)), tfp_bnn.layers.DenseFlipout(3)])
    assert model.architecture is None
    assert "architecture" not in model.get_config()

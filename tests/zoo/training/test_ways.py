"""Recipes of SWAG, Laplace and the samplers: settings, refusals before training, resuming, and what a file may say."""

from __future__ import annotations

import json
import re
import shutil
import signal

import keras
import numpy as np
import pytest
import safetensors.numpy

import zoo
from tfp_bnn.inference import WAYS
from zoo.hub.manifest import describe_files
from zoo.hub.members import MOST_BYTES, require_small
from zoo.hub.ways import WAY_TEXTS
from zoo.recipes import change_recipe, load_recipe, recipe_text
from zoo.recipes.schema import Way
from zoo.training import TrainingInterrupted

from ..recipe_parts import RECIPE

BASE = load_recipe({**RECIPE, "model": {"hidden": [4], "kernel_prior": {"name": "normal", "scale": 0.5}}})
SWAG = {"inference": "swag", "swag.epochs": 4, "swag.rank": 2, "swag.learning_rate": 0.05}
HMC = {"inference": "hmc", "hmc.num_samples": 4, "hmc.burn_in": 20, "hmc.num_chains": 2, "hmc.num_leapfrog_steps": 2}


def recipe_of(**changes):
    return change_recipe(BASE, changes).model_copy(update={"overrides": {}})


def test_recipes_cards_and_the_library_have_the_same_ways():
    assert sorted(Way.__args__) == sorted(WAYS) == sorted(WAY_TEXTS)


def test_settings_have_defaults_and_are_written_only_for_their_way():
    recipe = recipe_of(inference="laplace", **{"laplace.prior_precision": "marginal_likelihood"})
    assert recipe.laplace.structure == "full"
    assert load_recipe(json.loads(json.dumps(recipe.model_dump(mode="json")))) == recipe
    assert "laplace:" in recipe_text(recipe)
    assert not {"swag", "laplace", "hmc", "nuts", "sgld"} & set(BASE.model_dump())
    assert load_recipe({**BASE.model_dump(), "inference": "hmc"}).hmc.num_chains == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"laplace": {"structure": "full"}}, "laplace is for inference: laplace only. Remove it"),
        ({"inference": "laplace", "swag": {}}, "swag is for inference: swag only"),
        ({"inference": "laplace", "laplace.structure": "kron"}, "'laplace.structure' got 'kron'"),
        ({"inference": "laplace", "laplace.prior_precision": 0.0}, "laplace.prior_precision"),
        ({"inference": "hmc", "hmc.max_tree_depth": 3}, "'hmc.max_tree_depth' is unknown"),
        ({"inference": "swag", "swag.epochs": 3, "swag.every": 2}, "are fewer than 2 iterates. Raise epochs to 4"),
        ({"inference": "laplace", "beta": 0.5}, "inference: laplace is for beta: 1, but beta is 0.5"),
        ({"inference": "nuts", "augmentation": {"shift": 1}}, "is for the posterior of the data as they are"),
        ({"inference": "vbll", "num_draws": 3}, "has a bound without draws"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        recipe_of(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"inference": "laplace", "laplace.layers": "all", "model.hidden": [700]},
            "A full covariance of 4,900 weights would have 24,010,000 entries; at most 4,096",
        ),
        (
            {"inference": "laplace", "laplace.layers": "all", "model.hidden": [400]},
            "The posterior of this network of 2,800 weights takes 59.8 MiB; an artifact holds at most",
        ),
        ({"inference": "laplace", "laplace.layers": ["else"]}, "`layers` must be 'last', 'all' or names of layers"),
        ({"inference": "laplace", "model.kernel_prior": "laplace"}, "is not normal, so it has no precision"),
        ({**SWAG, "swag.rank": 1000, "model.hidden": [1000]}, "network of 8,003 weights takes 30.6 MiB"),
        ({**HMC, "hmc.num_samples": 200_000}, "network of 35 weights takes 77.8 MiB"),
        ({**HMC, "hmc.plain_prior": "flat"}, "are improper"),
        ({**HMC, "model.kernel_prior": {"name": "normal", "empirical_bayes": True}}, "learns its scale"),
        ({**HMC, "model.dropout": 0.1}, "inference: hmc needs one set of weights, but `model` has dropout"),
        ({"inference": "maximum_likelihood"}, "inference: maximum_likelihood has no prior, but `model` has"),
        ({"inference": "vbll", "model.dropout": 0.1}, "needs one set of weights, but `model` has dropout"),
        ({"inference": "vbll", "model.kernel_posterior": "delta"}, "needs a posterior with a spread"),
    ],
)
def test_what_does_not_fit_is_refused_before_training_with_the_count_of_weights(changes, message, tmp_path):
    with pytest.raises(ValueError, match=re.escape(message)):
        zoo.train(recipe_of(**changes), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_posterior_of_the_largest_size_is_small_enough():
    require_small(MOST_BYTES, 1)
    with pytest.raises(ValueError, match=r"of 1,000 weights takes 19\.9 MiB; an artifact holds at most 19\.94 MiB"):
        require_small(MOST_BYTES + 1, 1000)


@pytest.mark.slow
def test_swag_that_was_killed_among_its_iterates_is_resumed_to_the_same_bits(tmp_path):
    """Two epochs of training and four of SGD, of three steps each; stopped in the third of SGD."""

    class Kill(keras.callbacks.Callback):
        steps = 0

        def on_train_batch_end(self, batch, logs=None):
            Kill.steps += 1
            if Kill.steps == 14:
                signal.raise_signal(signal.SIGTERM)

    recipe = recipe_of(**SWAG)
    whole = zoo.train(recipe, tmp_path / "whole", measure=False)
    assert whole.model.num_iterates == 4
    assert {len(values) for values in whole.history.values()} == {6}
    with pytest.raises(TrainingInterrupted):
        zoo.train(recipe, tmp_path / "out", measure=False, callbacks=[Kill()], checkpoint_seconds=0)
    zoo.train(recipe, tmp_path / "out", measure=False, resume=True)
    for name in ("weights.safetensors", "posterior.safetensors", "log.csv", "golden.safetensors"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.slow
def test_the_posterior_of_a_regression_in_target_units_is_stored(tmp_path):
    changes = {"dataset": "diabetes", "model": {"hidden": []}, "standardize_targets": True}
    for way in ({"inference": "laplace"}, HMC):
        recipe = recipe_of(**changes, **way)
        run = zoo.train(recipe, tmp_path / recipe.inference, measure=False)
        x = zoo.load_dataset("diabetes").test.x[:5]
        loaded = zoo.load_artifact(run.path, trust=True)
        first, second = (m.posterior_predictive(x, num_samples=5).samples for m in (run.model, loaded))
        # A function that was traced for other shapes may round differently.
        np.testing.assert_allclose(first, second, rtol=1e-6)


def test_a_posterior_beside_its_network_cannot_be_fine_tuned(chains_artifact):
    with pytest.raises(ValueError, match=r"Only models of the zoo can be fine-tuned .* Got Chains"):
        zoo.fine_tune(str(chains_artifact), "iris", trust=True)


# === Files ===


@pytest.fixture(scope="module")
def chains_artifact(tmp_path_factory):
    return zoo.train(recipe_of(**HMC), tmp_path_factory.mktemp("chains") / "out", measure=False).path


def tampered(path, folder, change):
    """A copy of an artifact with another posterior, for which its manifest vouches."""
    copy = shutil.copytree(path, folder / "tampered")
    name = "posterior.safetensors"
    changed = change(safetensors.numpy.load((copy / name).read_bytes()))
    (copy / name).unlink()
    if changed is not None:
        (copy / name).write_bytes(safetensors.numpy.save(changed))
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "files": describe_files(copy)}))
    return copy


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: None, "posterior.safetensors: `states` are of []"),
        (lambda arrays: {**arrays, "states/dense1/bias": arrays["states/dense1/bias"][:1]}, "expected (2, 4)"),
        (lambda arrays: {**arrays, "states/dense1/bias": arrays["states/dense1/bias"] * np.nan}, "NaN or infinite"),
        (lambda arrays: {**arrays, "more": np.zeros(1)}, "must be called states/<weight> or statistics/<name>"),
    ],
)
def test_a_posterior_that_does_not_fit_its_network_is_refused(chains_artifact, tmp_path, change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        zoo.load_artifact(tampered(chains_artifact, tmp_path, change), trust=True)


def test_a_network_with_a_posterior_that_no_way_asked_for_is_refused(chains_artifact, tmp_path):
    copy = tampered(chains_artifact, tmp_path, lambda arrays: arrays)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "inference": "map"}))
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "files": describe_files(copy)}))
    with pytest.raises(ValueError, match=r"posterior\.safetensors: The arrays do not fit the posterior: missing \[\]"):
        zoo.load_artifact(copy, trust=True)

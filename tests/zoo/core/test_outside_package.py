"""A third-party package, `tests/outside_package`, in Python; `cli/test_plugins.py` tests the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest

import tfp_bnn
import zoo
from tfp_bnn.core.plugins import PluginError
from tfp_bnn.likelihoods import LIKELIHOODS
from tfp_bnn.priors import PRIORS
from zoo.architectures import ARCHITECTURES
from zoo.datasets import DATASETS
from zoo.recipes import RECIPES

PACKAGE = Path(__file__).parents[2] / "outside_package"
THEIR_PRIOR = {"name": "outside_normal", "width": 0.7}
ARGUMENTS = {"input_shape": (2,), "num_outputs": 3, "kernel_prior": THEIR_PRIOR}


@pytest.fixture
def outside(plugins, monkeypatch):
    """The package on the path and named as a plug-in."""
    monkeypatch.syspath_prepend(PACKAGE)
    plugins.name("outside_zoo")
    return plugins


def test_it_brings_an_architecture_a_dataset_a_recipe_a_prior_and_a_likelihood(outside):
    assert zoo.list_models("outside*") == ["outside_mlp"]
    assert "outside_rings" in zoo.list_datasets()
    assert "outside_mlp.rings" in zoo.list_recipes()
    assert zoo.load_recipe("outside_mlp.rings").architecture == "outside_mlp"
    assert zoo.load_dataset("outside_rings").num_classes == 3
    registered = {
        ARCHITECTURES: "outside_mlp",
        DATASETS: "outside_rings",
        RECIPES: "outside_mlp.rings",
        PRIORS: "outside_normal",
        LIKELIHOODS: "outside_laplace",
    }
    for registry, name in registered.items():
        assert registry.package_of(name) == "outside_zoo"
    assert ARCHITECTURES.package_of("mlp_flipout") == DATASETS.package_of("iris") == "zoo"
    assert RECIPES.package_of("mlp_flipout.iris") == "zoo"


def test_its_architecture_is_found_by_the_first_that_asks(outside):
    assert zoo.create_model("outside_mlp", **ARGUMENTS).output_shape == (None, 3)


def test_its_normal_and_ours_are_told_apart_in_a_saved_model(outside, tmp_path):
    layers = [
        keras.Input((2,)),
        tfp_bnn.layers.DenseFlipout(3, kernel_prior={"name": "normal", "scale": 0.3}),
        tfp_bnn.layers.DenseFlipout(3, kernel_prior=THEIR_PRIOR),
    ]
    model = tfp_bnn.VariationalSequential(layers, seed=0)
    model.save(tmp_path / "both.keras")
    ours, theirs = (
        layer.variational_weights["kernel"].prior_spec
        for layer in keras.models.load_model(tmp_path / "both.keras").variational_layers
    )
    assert ours == tfp_bnn.priors.Normal(0.3)
    assert type(theirs).__name__ == "Normal"
    assert type(theirs).__module__ == "outside_zoo.priors"
    assert theirs.width == 0.7
    assert keras.saving.get_registered_name(type(ours)) == "tfp_bnn.priors>Normal"
    assert keras.saving.get_registered_name(type(theirs)) == "outside_zoo.priors>Normal"
    x = np.ones((4, 2), "float32")
    expected = model.posterior_predictive(x, num_samples=3, seed=1).mean()
    loaded = keras.models.load_model(tmp_path / "both.keras")
    np.testing.assert_array_equal(loaded.posterior_predictive(x, num_samples=3, seed=1).mean(), expected)


@pytest.mark.slow
def test_its_likelihood_trains_a_model_that_goes_through_an_artifact(outside, tmp_path):
    likelihood = {"name": "outside_laplace", "scale": 0.5}
    model = zoo.create_model("outside_mlp", **{**ARGUMENTS, "num_outputs": 1}, likelihood=likelihood, seed=0)
    random = np.random.default_rng(0)
    x, y = random.normal(size=(32, 2)).astype("float32"), random.normal(size=(32, 1)).astype("float32")
    model.compile("adam")
    assert np.isfinite(model.fit(x, y, verbose=0).history["nll"]).all()
    predictive = model.posterior_predictive(x, num_samples=5, seed=0)
    loaded = zoo.load_artifact(zoo.save_artifact(model, tmp_path / "x", golden_inputs=x[:4]), trust=True)
    assert loaded.likelihood == model.likelihood
    again = loaded.posterior_predictive(x, num_samples=5, seed=0)
    # The scales go through a softplus and back.
    np.testing.assert_allclose(again.mean(), predictive.mean(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(again.log_prob(y), predictive.log_prob(y), rtol=1e-4, atol=1e-5)


def test_an_artifact_without_its_plugin_is_refused_with_the_way_to_name_it(outside, monkeypatch, tmp_path):
    folder = zoo.save_artifact(zoo.create_model("outside_mlp", **ARGUMENTS), tmp_path / "x")
    assert json.loads((folder / "config.json").read_text())["package"] == "outside_zoo"
    assert zoo.load_artifact(folder, trust=True).architecture.name == "outside_mlp"
    outside.name()
    outside.look_again()
    ARCHITECTURES.unregister("outside_mlp")
    message = "config.json: Unknown architecture 'outside_mlp'."
    with pytest.raises(ValueError, match=re.escape(message)) as refusal:
        zoo.load_artifact(folder, trust=True)
    assert "comes from the package 'outside_zoo', install that package" in str(refusal.value)
    assert "tfp-bnn --plugin outside_zoo, or the environment variable TFP_BNN_PLUGINS=outside_zoo." in str(
        refusal.value
    )


def test_our_artifacts_do_not_name_a_package(tmp_path):
    folder = zoo.save_artifact(zoo.create_model("mlp_flipout", input_shape=(2,), num_outputs=2), tmp_path / "x")
    assert "package" not in json.loads((folder / "config.json").read_text())


def test_an_argument_that_its_prior_needs_is_named(outside):
    with pytest.raises(ValueError, match="The prior 'outside_normal' needs a value for 'width'"):
        zoo.create_model("outside_mlp", **{**ARGUMENTS, "kernel_prior": "outside_normal"})


def test_its_prior_passes_what_every_prior_must(outside, check_spec):
    assert "outside_normal" in PRIORS
    check_spec(PRIORS, "outside_normal", width=0.5)


@pytest.mark.parametrize(
    "look_up",
    [
        zoo.list_models,
        zoo.list_datasets,
        zoo.list_recipes,
        lambda: zoo.create_model("mlp_flipout", input_shape=(2,), num_outputs=2),
        lambda: zoo.load_dataset("iris"),
        lambda: zoo.load_recipe("mlp_flipout.iris"),
        lambda: zoo.load_model("mlp_flipout.iris"),
        lambda: zoo.verify("mlp_flipout.iris"),
    ],
)
def test_a_plugin_that_fails_is_named_by_whatever_looks_a_name_up(look_up, plugins):
    plugins.write(broken="import zoo\nzoo.register_dataset('theirs')(lambda: None)\nraise KeyError('why')")
    plugins.name("broken")
    with pytest.raises(PluginError, match=r"The plug-in 'broken', named by .*: KeyError: 'why'\. Nothing of it was"):
        look_up()
    assert "theirs" not in list(DATASETS)


MADE = {
    "architecture": "import zoo\nfrom zoo.architectures import ArchitectureConfig\n"
    "@zoo.register_architecture('taken', ArchitectureConfig)\ndef {name}(config, inputs): 'A network.'",
    "dataset": "import zoo\n@zoo.register_dataset('taken')\ndef {name}(): 'Data.'",
    "recipe": "import zoo\nfrom pathlib import Path\nzoo.register_recipes(Path(__file__).parent / '{name}_recipes')",
}


@pytest.mark.parametrize("kind", MADE)
def test_two_plugins_with_one_name_are_both_named(kind, plugins):
    for name in ("first", "second"):
        folder = plugins.folder / f"{name}_recipes"
        folder.mkdir()
        for recipe in ("taken.x", f"a_{name}.x"):
            (folder / f"{recipe}.yaml").write_text("")
        plugins.write(**{name: MADE[kind].format(name=name)})
    plugins.name("first", "second")
    message = rf"'second', named by .*: The {kind} 'taken(\.x)?' is already registered as first\..* so second\."
    with pytest.raises(PluginError, match=message):
        zoo.list_models()
    assert ("a_first.x" in list(RECIPES)) == (kind == "recipe")
    assert "a_second.x" not in list(RECIPES)


def test_what_is_no_architecture_is_refused():
    with pytest.raises(
        TypeError, match=r"config of the architecture 'mine' must be a subclass of zoo\.archit.*<class 'dict'>"
    ):
        zoo.register_architecture("mine", dict)
    for name in ("My-Net", "a.b", "", None):
        with pytest.raises(ValueError, match="is not a valid architecture name"):
            zoo.register_architecture(name, zoo.architectures.ArchitectureConfig)


def test_an_architecture_needs_no_docstring(plugins):
    def body(config, inputs):
        return keras.layers.Dense(config.num_outputs)(inputs)

    assert zoo.register_architecture("mine", zoo.architectures.ArchitectureConfig)(body).description == ""
    assert ARCHITECTURES.package_of("mine") == "tests"


def test_layers_without_a_name_have_the_same_one_in_each_network(plugins, tmp_path):
    @zoo.register_architecture("mine", zoo.architectures.ArchitectureConfig)
    def body(config, inputs):
        hidden = tfp_bnn.layers.DenseFlipout(3, **config.kernel_arguments)(inputs)
        return tfp_bnn.layers.DenseFlipout(config.num_outputs, **config.kernel_arguments)(hidden)

    first, second = (zoo.create_model("mine", input_shape=(2,), num_outputs=3, seed=0) for _ in range(2))
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]
    # Layers that are added to a network have names of their own.
    assert tfp_bnn.layers.DenseFlipout(3).name not in {layer.name for layer in second.layers}

    zoo.save_artifact(second, tmp_path / "mine")
    x = np.ones((1, 2), np.float32)
    means = [
        model.posterior_predictive(x, 3, seed=0).mean()
        for model in (second, zoo.load_artifact(tmp_path / "mine", trust=True))
    ]
    np.testing.assert_array_equal(*means)


def test_a_dataset_of_another_name_is_refused(plugins):
    zoo.register_dataset("mine")(lambda: zoo.load_dataset("iris"))
    with pytest.raises(
        ValueError, match=r"registered as the dataset 'mine', returned 'iris'; a .* name='mine' was exp"
    ):
        zoo.load_dataset("mine")


def test_recipes_are_registered_all_or_none(plugins, tmp_path):
    for name in ("one.x", "two.x", "NO NAME"):
        (tmp_path / f"{name}.yaml").write_text("")
    with pytest.raises(ValueError, match="'NO NAME' is not a name of the zoo"):
        zoo.register_recipes(tmp_path)
    assert "one.x" not in list(RECIPES)
    (tmp_path / "NO NAME.yaml").unlink()
    assert zoo.register_recipes(tmp_path) == ["one.x", "two.x"]
    # The same files again, as when a module is reloaded.
    assert zoo.register_recipes(tmp_path) == ["one.x", "two.x"]


def test_a_place_without_recipes_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is no folder with recipes"):
        zoo.register_recipes(tmp_path / "none")
    with pytest.raises(ValueError, match="is no folder with recipes"):
        zoo.register_recipes("tfp_bnn.priors")
    with pytest.raises(ValueError, match=r"'zoo\.core\.names' is a module, not a package"):
        zoo.register_recipes("zoo.core.names")

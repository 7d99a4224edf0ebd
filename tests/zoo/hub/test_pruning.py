"""A pruned model of the zoo is an artifact like any other."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

import tfp_bnn
import zoo
from tfp_bnn.compression import sparsity
from zoo.architectures.base import BuiltFrom
from zoo.architectures.layer_units import check_layer_units

X = np.array([[5.1, 3.5, 1.4, 0.2], [6.0, 2.7, 4.5, 1.5], [6.9, 3.1, 5.4, 2.1]])


@pytest.fixture(scope="module")
def pruned():
    return zoo.prune(zoo.load_model("mlp_flipout.iris"), 0.75)


def test_it_is_saved_and_loaded_with_its_zeros(pruned, tmp_path):
    folder = zoo.save_artifact(pruned, tmp_path / "pruned")
    loaded = zoo.load_artifact(folder, trust=True)
    assert sparsity(loaded) == sparsity(pruned)
    np.testing.assert_allclose(
        *(m.posterior_predictive(X, num_samples=4, seed=0).samples for m in (loaded, pruned)), rtol=1e-4, atol=1e-6
    )
    config = json.loads((folder / "config.json").read_text("utf-8"))
    assert config["config"]["kernel_posterior"]["pruned"] is True
    assert "'pruned': True" in (folder / "README.md").read_text("utf-8")


def test_statistics_of_the_posterior_are_those_of_the_kept_weights(pruned):
    from tfp_bnn.models.weight_record import WeightRecord
    from zoo.hub.cards import posterior_statistics

    weights = [w for layer in pruned.variational_layers for w in layer.variational_weights.values()]
    scales = np.concatenate([w.posterior_parameters()["scale"][w.kept] for w in weights])
    assert posterior_statistics(WeightRecord.of(pruned))["median_scale"] == pytest.approx(np.median(scales))


@pytest.mark.slow
def test_it_is_fine_tuned_with_its_zeros(pruned):
    data = zoo.load_dataset("iris")
    part = (data.train.x[:30], data.train.y[:30])
    tuned = zoo.fine_tune(pruned, part, inflate=1.0, head="keep", steps=5).model
    assert sparsity(tuned) == sparsity(pruned)


def test_what_is_not_of_the_zoo_is_refused():
    model = tfp_bnn.VariationalSequential([tfp_bnn.layers.DenseFlipout(1)])
    with pytest.raises(ValueError, match=r"tfp_bnn.compression.prune for other models"):
        zoo.prune(model, 0.5)


def test_nothing_is_saved_that_the_architecture_could_not_load(tmp_path):
    model = zoo.create_model("mlp_flipout", input_shape=(4,), num_outputs=3)
    config = model.architecture.config.model_copy(update={"kernel_posterior": "laplacian"})
    model.architecture = BuiltFrom("mlp_flipout", config)
    with pytest.raises(ValueError, match=r"^The architecture 'mlp_flipout': 'kernel_posterior' got 'laplacian'"):
        zoo.save_artifact(model, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_smaller_network_of_the_same_architecture_is_saved_and_loaded(tmp_path):
    small = zoo.shrink(zoo.prune(zoo.load_model("mlp_flipout.iris"), 0.5, units=True))
    config = small.architecture.config
    assert config.layer_units == {"dense1": small.get_layer("dense1").units}
    assert "pruned" not in config.kernel_posterior
    loaded = zoo.load_artifact(zoo.save_artifact(small, tmp_path / "small"), trust=True)
    assert loaded.architecture == small.architecture
    np.testing.assert_allclose(*(m.plug_in_predictive(X).mean() for m in (loaded, small)), rtol=1e-5)
    with pytest.raises(ValueError, match=r"tfp_bnn.compression.shrink for other models"):
        zoo.shrink(tfp_bnn.VariationalSequential([tfp_bnn.layers.DenseFlipout(1)]))


@pytest.mark.slow
def test_only_kept_weights_are_stored(pruned, tmp_path):
    sizes = [
        (zoo.save_artifact(model, tmp_path / name) / "weights.safetensors").stat().st_size
        for name, model in (("pruned", pruned), ("whole", zoo.prune(zoo.load_model("mlp_flipout.iris"), 0.0)))
    ]
    kernels = [layer.variational_weights["kernel"] for layer in pruned.variational_layers]
    removed = sum(int((~weight.kept).sum()) for weight in kernels)
    # Without pruning, loc, scale and mask take 4 bytes each. Names and shapes of the bits are a few hundred bytes.
    assert sizes[0] < sizes[1] - 8 * removed


@pytest.mark.parametrize(
    ("layer_units", "message"),
    [
        ({"dense7": 5}, r"names 'dense7', whose number of units it cannot set. Expected some of: dense1"),
        ({"logits": 2}, "names 'logits'"),
        ({"dense1": 0}, "greater than or equal to 1"),
    ],
)
def test_units_of_layers_that_there_are_not_are_refused(layer_units, message):
    with pytest.raises(ValueError, match=message):
        zoo.create_model("mlp_flipout", input_shape=(4,), num_outputs=3, hidden=(8,), layer_units=layer_units)


def test_a_layer_that_an_architecture_makes_itself_keeps_its_units():
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(4, name="stem"), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match="'stem' 3 units, but its number of units cannot be set: it has 4"):
        check_layer_units("mine", {"stem": 3}, network)


@pytest.mark.slow
def test_a_residual_network_shrinks_and_is_built_again_from_its_config():
    model = zoo.create_model("resnet20_flipout", input_shape=(8, 8, 3), num_outputs=3, widths=(4, 6, 8), seed=0)
    pruned = zoo.prune(model, 0.5, "l1", scope="layer", units=True)
    small = zoo.shrink(pruned)
    again = zoo.create_model("resnet20_flipout", **small.architecture.config.model_dump())
    assert [weight.shape for weight in again.weights] == [weight.shape for weight in small.weights]
    x = np.random.default_rng(0).uniform(0, 255, size=(2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(*(m.plug_in_predictive(x).mean() for m in (pruned, small)), rtol=1e-4)

"""Every bundled model is present, intact, loadable, and good enough."""

from __future__ import annotations

import numpy as np
import pytest

import zoo
from tfp_bnn.models.weight_record import WeightRecord
from zoo.evaluation.verification import Status
from zoo.hub import artifacts
from zoo.hub.cards import model_card
from zoo.hub.manifest import bundled_models, describe_files, saved_models_folder
from zoo.hub.reading import parse_tensors, read_artifact

NAMES = sorted(bundled_models())
NEEDED = {
    "cnn1d_flipout.mnist1d",
    "hierarchical_mlp.rotated_moons",
    "lenet5_flipout.digits",
    "lenet5_flipout.fashion_mnist",
    "lenet5_flipout.mnist",
    "mlp_flipout.diabetes",
    "mlp_flipout.digits",
    "mlp_flipout.iris",
    "mlp_flipout.mnist",
    "mlp_flipout.moons",
    "resnet20_flipout.cifar10",
    "resnet20_flipout.cifar10_map",
    "seedcnn_flipout.mnist",
    "vgg_small_flipout.fashion_mnist",
}
# Of the test split, as the card was measured.
BARS = {
    "lenet5_flipout.digits": {"accuracy": 0.975, "nll": 0.056},
    "lenet5_flipout.mnist": {"accuracy": 0.992, "nll": 0.028, "ece": 0.006},
    "lenet5_flipout.fashion_mnist": {"accuracy": 0.906, "nll": 0.259, "ece": 0.011},
    "seedcnn_flipout.mnist": {"accuracy": 0.994, "nll": 0.019, "ece": 0.004},
    "mlp_flipout.mnist": {"accuracy": 0.984},
    "resnet20_flipout.cifar10": {"accuracy": 0.904, "nll": 0.30, "ece": 0.02},
    "vgg_small_flipout.fashion_mnist": {"accuracy": 0.932, "nll": 0.20, "ece": 0.012},
}


def test_the_promised_models_are_bundled():
    assert set(NAMES) >= NEEDED
    assert sorted(path.name for path in saved_models_folder().iterdir() if path.is_dir()) == NAMES


def test_bundled_files_are_small():
    sizes = [file["bytes"] for name in NAMES for file in describe_files(saved_models_folder() / name).values()]
    assert max(sizes) < 20 * 2**20
    assert sum(sizes) < 60 * 2**20


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow, pytest.mark.thorough]["mnist" in name or "cifar10" in name])
        for name in NAMES
    ],
)
def test_the_card_is_reproduced(name):
    checks = zoo.verify(name)
    assert [check for check in checks if check.status is Status.FAILED] == []
    missing = [check.message for check in checks if check.status is Status.NOT_MEASURED]
    if missing:
        pytest.skip(missing[0])
    assert len(checks) > 4


@pytest.mark.parametrize("name", NAMES)
class TestEveryModel:
    def test_loads_and_reproduces_its_golden_output(self, name):
        model, golden = zoo.load_model(name), read_artifact(name)["golden"]
        predictive = model.posterior_predictive(
            golden["inputs"], num_samples=artifacts.GOLDEN_SAMPLES, seed=artifacts.GOLDEN_SEED
        )
        np.testing.assert_allclose(predictive.mean(), golden["mean"], rtol=1e-4, atol=1e-4)

    def test_is_as_good_as_it_must_be(self, name):
        test = read_artifact(name)["metrics"]["test"]
        for key, bar in BARS.get(name, {}).items():
            assert test[key] >= bar if key == "accuracy" else test[key] <= bar

    def test_card_is_made_from_the_other_files(self, name):
        folder, artifact = saved_models_folder() / name, read_artifact(name)
        arrays = parse_tensors((folder / "weights.safetensors").read_bytes(), name)
        recipe = (folder / "recipe.yaml").read_text("utf-8")
        assert artifact["card"] == model_card(
            artifact["config"], artifact["metrics"], recipe, WeightRecord.from_arrays(arrays)
        )

    def test_was_made_by_the_recipe_in_the_repository(self, name):
        # What older recipes leave out has its default. How a model is compared has no effect on its training.
        own, current = zoo.load_recipe(saved_models_folder() / name / "recipe.yaml"), zoo.load_recipe(name)
        assert own.model_copy(update={"comparison": None}) == current.model_copy(update={"comparison": None})

    def test_metadata_is_complete(self, name):
        artifact, entry = read_artifact(name), bundled_models()[name]
        metrics = artifact["metrics"]
        assert artifact["config"]["name"] == name
        assert entry["num_weights"] == artifact["config"]["num_weights"] > 0
        points = artifact["config"].get("inference") == "map"
        assert metrics["num_samples"] == 1 if points else metrics["num_samples"] >= 50
        assert artifact["config"]["license"] == "Apache-2.0"
        assert {"source", "license", "citation"} <= set(artifact["config"]["data"])
        assert artifact["config"]["data"]["citation"]
        # The spread is asked of small models.
        if entry["num_weights"] < 100_000:
            assert len(metrics["training_seeds"]) >= 3
            assert set(metrics["spread"]) == set(metrics["test"])
        assert metrics["kl"]["total"] == pytest.approx(sum(metrics["kl"]["by_layer"].values()))

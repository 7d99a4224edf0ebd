"""Every bundled model: there, whole, loadable, and as good as it must be."""

from __future__ import annotations

import numpy as np
import pytest

import zoo
from zoo import artifacts
from zoo.cards import read_artifact
from zoo.manifest import bundled_models, describe_files, saved_models_folder
from zoo.recipes import recipe_text

NAMES = sorted(bundled_models())
NEEDED = {
    "lenet5_flipout.digits",
    "mlp_flipout.diabetes",
    "mlp_flipout.digits",
    "mlp_flipout.iris",
    "mlp_flipout.moons",
}
# Of the test split, as the card was measured.
BARS = {"lenet5_flipout.digits": {"accuracy": 0.975, "nll": 0.10}}


def test_the_promised_models_are_bundled():
    assert set(NAMES) >= NEEDED
    assert sorted(path.name for path in saved_models_folder().iterdir() if path.is_dir()) == NAMES


def test_bundled_files_are_small():
    sizes = [file["bytes"] for name in NAMES for file in describe_files(saved_models_folder() / name).values()]
    assert max(sizes) < 20 * 2**20
    assert sum(sizes) < 60 * 2**20


@pytest.mark.parametrize("name", NAMES)
class TestEveryModel:
    def test_loads_and_reproduces_its_golden_output(self, name):
        model, golden = zoo.load_model(name), read_artifact(name)["golden"]
        predictive = model.posterior_predictive(
            golden["inputs"], num_samples=artifacts.GOLDEN_SAMPLES, seed=artifacts.GOLDEN_SEED
        )
        np.testing.assert_allclose(predictive.mean(), golden["mean"], rtol=1e-4, atol=1e-4)

    def test_card_is_reproduced(self, name):
        metrics = read_artifact(name)["metrics"]
        again = zoo.evaluate(name, num_samples=metrics["num_samples"], seed=metrics["seed"])
        assert again == pytest.approx(metrics["test"], rel=1e-3, abs=1e-4)
        for key, bar in BARS.get(name, {}).items():
            assert again[key] >= bar if key == "accuracy" else again[key] <= bar

    def test_was_made_by_the_recipe_in_the_repository(self, name):
        stored = (saved_models_folder() / name / "recipe.yaml").read_text()
        assert stored == recipe_text(zoo.load_recipe(name))

    def test_metadata_is_complete(self, name):
        artifact, entry = read_artifact(name), bundled_models()[name]
        metrics = artifact["metrics"]
        assert artifact["config"]["name"] == name
        assert entry["num_weights"] == artifact["config"]["num_weights"] > 0
        assert metrics["num_samples"] >= 50
        assert len(metrics["training_seeds"]) >= 3
        assert set(metrics["spread"]) == set(metrics["test"])
        assert metrics["kl"]["total"] == pytest.approx(sum(metrics["kl"]["by_layer"].values()))

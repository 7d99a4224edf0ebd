"""Artifacts: what is written is what is read, and damaged files are rejected before they are parsed."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import pytest

import tfp_bnn
import zoo
from tfp_bnn.models.weight_record import weight_distributions
from zoo.hub import artifacts
from zoo.hub.loading import open_model
from zoo.hub.reading import read_artifact

from .artifact_parts import stored_tensors

X = np.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]], np.float32)

# === Round trip ===


def test_artifact_holds_all_files(tiny_artifact):
    assert {path.name for path in tiny_artifact.iterdir()} == {
        "README.md",
        "config.json",
        "golden.safetensors",
        "log.csv",
        "manifest.json",
        "metrics.json",
        "recipe.yaml",
        "weights.safetensors",
    }


def test_loaded_model_has_the_same_distributions_and_predictions(tiny_artifact, tmp_path):
    model = zoo.load_artifact(tiny_artifact, trust=True)
    stored = stored_tensors(tiny_artifact)
    for name, value in weight_distributions(model).items():
        np.testing.assert_allclose(value, stored[name], rtol=2e-6, atol=1e-12, err_msg=name)
    again = zoo.load_artifact(zoo.save_artifact(model, tmp_path / "again"), trust=True)
    first, second = (m.posterior_predictive(X, num_samples=5).mean() for m in (model, again))
    np.testing.assert_allclose(first, second, atol=1e-6)
    assert again.num_examples == model.num_examples == 96


def test_a_path_is_a_folder_even_if_it_is_called_like_a_bundled_model(artifact, monkeypatch):
    artifact.rename(artifact.with_name("mlp_flipout.iris"))
    monkeypatch.chdir(artifact.parent)
    found = {
        name: open_model(name, trust=True).card["config"]["name"]
        for name in (Path("mlp_flipout.iris"), "mlp_flipout.iris")
    }
    assert found == {Path("mlp_flipout.iris"): "mlp_flipout.tiny", "mlp_flipout.iris": "mlp_flipout.iris"}


def test_calibration_is_kept(tiny_artifact, tmp_path):
    model = zoo.load_artifact(tiny_artifact, trust=True)
    assert model.calibration is None
    assert json.loads((tiny_artifact / "config.json").read_text())["calibration"] is None
    model.calibration = tfp_bnn.calibration.Temperature(1.75)
    folder = zoo.save_artifact(model, tmp_path / "calibrated", golden_inputs=X)
    stored = json.loads((folder / "config.json").read_text())["calibration"]
    assert stored == {"name": "temperature", "temperature": 1.75}
    again = zoo.load_artifact(folder, trust=True)
    assert again.calibration == model.calibration
    for calibrated in (True, False):
        first, second = (m.posterior_predictive(X, 5, calibrated=calibrated).mean() for m in (model, again))
        np.testing.assert_allclose(first, second, atol=1e-6)
    # The golden output is the calibrated one.
    golden = read_artifact(folder)["golden"]
    mean = again.posterior_predictive(golden["inputs"], artifacts.GOLDEN_SAMPLES, artifacts.GOLDEN_SEED).mean()
    np.testing.assert_allclose(mean, golden["mean"], atol=1e-5)


def test_artifacts_from_before_calibration_load(artifact, rewrite):
    config = json.loads((artifact / "config.json").read_text())
    del config["calibration"]
    rewrite("config.json", json.dumps(config).encode())
    assert zoo.load_artifact(artifact, trust=True).calibration is None


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"name": "temperature", "temperature": 0.0}, "must be a number from 0.01 to 100"),
        ({"name": "temperature", "temperature": 1e9}, "must be a number from 0.01 to 100"),
        ({"name": "temperature", "temperature": "2"}, "must be a number from 0.01 to 100"),
        ({"name": "temperature", "temperature": True}, "must be a number from 0.01 to 100"),
        ({"name": "temperature"}, "expected null, or a mapping"),
        ({"name": "temperature", "temperatur": 2.0}, "Did you mean 'temperature'"),
        ({"name": "temprature", "temperature": 2.0}, "Did you mean 'temperature'"),
        ({"name": ["temperature"], "temperature": 2.0}, "Unknown calibration"),
        ({"name": "scale", "scale": 2.0}, "does not fit the likelihood"),
        ({"temperature": 2.0}, "Cannot make a calibration"),
        ({"class_name": "Lambda", "name": "temperature", "config": {}}, "expected null, or a mapping"),
        ({}, "Cannot make a calibration"),
        ("temperature", "Input should be a mapping of keys"),
        (2.0, "Input should be a mapping of keys"),
        (False, "Input should be a mapping of keys"),
        ([1], "Input should be a mapping of keys"),
    ],
)
def test_calibration_that_is_none_is_refused(artifact, rewrite, value, says):
    config = json.loads((artifact / "config.json").read_text())
    rewrite("config.json", json.dumps({**config, "calibration": value}).encode())
    with pytest.raises(ValueError, match=rf"config\.json: 'calibration' got .*{says}"):
        zoo.load_artifact(artifact, trust=True)


def test_golden_output_is_reproduced(tiny_artifact):
    model, golden = zoo.load_artifact(tiny_artifact, trust=True), read_artifact(tiny_artifact)["golden"]
    predictive = model.posterior_predictive(
        golden["inputs"], num_samples=artifacts.GOLDEN_SAMPLES, seed=artifacts.GOLDEN_SEED
    )
    np.testing.assert_allclose(predictive.mean(), golden["mean"], atol=1e-5)


def test_tensors_are_named_in_natural_units(tiny_artifact):
    tensors = stored_tensors(tiny_artifact)
    assert set(tensors) == {
        f"{layer}/{name}"
        for layer in ("dense1", "logits")
        for name in ("kernel/loc", "kernel/scale", "kernel/prior_scale", "bias")
    }
    assert {value.dtype for value in tensors.values()} == {np.dtype("float32")}
    assert (tensors["dense1/kernel/scale"] > 0).all()


def test_card_shows_what_was_measured(tiny_artifact):
    artifact = read_artifact(tiny_artifact)
    metrics = artifact["metrics"]
    assert metrics["num_samples"] == 10
    assert metrics["training_seeds"] == [0, 1]
    assert f"| accuracy | {metrics['test']['accuracy']:.4g} |" in artifact["card"]
    assert "median posterior scale" in artifact["card"]
    assert "`tfp-bnn train recipe.yaml` runs it" in artifact["card"]


def test_measured_again_gives_the_card(tiny_artifact):
    model, metrics = zoo.load_artifact(tiny_artifact, trust=True), read_artifact(tiny_artifact)["metrics"]
    again = zoo.evaluate(model, "iris", num_samples=metrics["num_samples"], seed=metrics["seed"])
    assert again == pytest.approx(metrics["test"], abs=1e-5)


def test_threads_load_the_same_model(tiny_artifact):
    before = set(tiny_artifact.parent.iterdir())
    with ThreadPoolExecutor(8) as pool:
        models = list(pool.map(lambda _: zoo.load_artifact(tiny_artifact, trust=True), range(8)))
    first = weight_distributions(models[0])
    for model in models[1:]:
        for name, value in weight_distributions(model).items():
            np.testing.assert_array_equal(value, first[name])
    assert set(tiny_artifact.parent.iterdir()) == before


def test_mixed_precision_keeps_the_posterior_in_float32(tiny_artifact):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = zoo.load_artifact(tiny_artifact, trust=True)
    finally:
        keras.config.set_dtype_policy("float32")
    assert {value.dtype for value in weight_distributions(model).values()} == {np.dtype("float32")}


# === Saving ===


def test_save_refuses_a_model_that_is_not_of_the_zoo(tmp_path):
    model = tfp_bnn.VariationalSequential([keras.Input((4,)), tfp_bnn.layers.DenseFlipout(3)])
    with pytest.raises(ValueError, match=r"Only models made by zoo.create_model"):
        zoo.save_artifact(model, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_save_refuses_an_existing_folder(artifact):
    model = zoo.load_artifact(artifact, trust=True)
    before = (artifact / "manifest.json").read_bytes()
    with pytest.raises(ValueError, match="exists"):
        zoo.save_artifact(model, artifact)
    assert (artifact / "manifest.json").read_bytes() == before
    zoo.save_artifact(model, artifact, overwrite=True)
    assert zoo.load_artifact(artifact, trust=True).num_examples == 96
    assert [path.name for path in artifact.parent.iterdir()] == ["artifact"]


def test_save_never_replaces_a_folder_that_is_no_artifact(artifact, tmp_path):
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "chapter1.txt").write_text("words")
    with pytest.raises(ValueError, match="not an artifact"):
        zoo.save_artifact(zoo.load_artifact(artifact, trust=True), precious, overwrite=True)
    assert (precious / "chapter1.txt").read_text() == "words"


def test_failed_save_leaves_nothing_behind(artifact, tmp_path, monkeypatch):
    model = zoo.load_artifact(artifact, trust=True)

    def fail(*args: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(artifacts, "describe_files", fail)
    with pytest.raises(OSError, match="disk full"):
        zoo.save_artifact(model, tmp_path / "new" / "x")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_model_whose_weights_are_not_finite_is_not_written(tmp_path):
    model = zoo.create_model("mlp_flipout", input_shape=(4,), num_outputs=3, hidden=(2,))
    bias = model.network.get_layer("logits").bias
    bias.assign(np.full(bias.shape, np.nan))
    with pytest.raises(ValueError, match="NaN or infinite are the weights of the layer 'logits'"):
        zoo.save_artifact(model, tmp_path / "spoiled")
    assert list(tmp_path.iterdir()) == []


def test_what_could_not_be_loaded_again_is_not_written(tiny_artifact, tmp_path, monkeypatch):
    model = zoo.load_artifact(tiny_artifact, trust=True)
    monkeypatch.setattr("zoo.hub.artifacts.MAX_FILE_BYTES", 500)
    with pytest.raises(
        ValueError, match=r"weights.safetensors would have .*fewer layers Bayesian.*model.save\('x.keras"
    ):
        zoo.save_artifact(model, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_thousands_of_columns_with_long_names_can_be_loaded_again(tmp_path):
    """No artifact may be written that its own reader refuses."""
    columns = 8192
    network = zoo.create_model(
        "mlp_flipout",
        input_shape=(columns,),
        num_outputs=1,
        hidden=(1,),
        likelihood="normal",
        input_mean=(1 / 3,) * columns,
        input_variance=(2 / 3,) * columns,
    )
    names = [f"{index:0200d}" for index in range(columns)]
    zoo.save_artifact(network, tmp_path / "wide", data={"feature_names": names})
    assert (tmp_path / "wide" / "config.json").stat().st_size > 2**20
    loaded = zoo.load_artifact(tmp_path / "wide", trust=True)
    assert loaded.card["config"]["data"]["feature_names"] == names


def test_more_arrays_than_can_be_loaded_again_are_refused_before_a_training():
    network = zoo.create_model("mlp_flipout", input_shape=(4,), num_outputs=3, hidden=(2,))
    artifacts.check_size(network, 100)
    with pytest.raises(ValueError, match=r"weights.safetensors of the artifact has a header of .* use fewer members"):
        artifacts.check_size(network, 5000)

"""An MLflow model answers what `posterior_predictive` does, and needs nothing of this library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_bnn
from tfp_bnn.export import log_mlflow_model, save_mlflow_model
from tfp_bnn.export.mlflow_loader import ServedPredictive
from tfp_bnn.layers import DenseFlipout

ROOT = Path(__file__).parents[3]
X = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
NEEDS = "needs mlflow: pip install 'tfp_bnn[mlflow]'"

IN_ANOTHER_PROCESS = """
import sys
sys.modules["tfp_bnn"] = sys.modules["tensorflow_probability"] = sys.modules["keras"] = None
import mlflow, numpy as np
x = np.load("x.npy")
model = mlflow.pyfunc.load_model("model")
np.savez("answer.npz", **model.predict(x, params={"seed": 3}))
try:
    model.predict(x[:, :3])
except mlflow.exceptions.MlflowException as error:
    assert "shape" in str(error)
else:
    raise AssertionError("A wrong shape was taken.")
"""


@pytest.fixture
def without_telemetry(monkeypatch):
    pytest.importorskip("mlflow", reason=NEEDS)
    for name in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        monkeypatch.setenv(name, "true")


def network():
    x = keras.Input((4,), name="features")
    return tfp_bnn.VariationalModel(x, DenseFlipout(3)(x), seed=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_it_answers_in_a_process_without_this_library(tmp_path, without_telemetry):
    model = network()
    save_mlflow_model(model, tmp_path / "model", num_samples=4)
    np.save(tmp_path / "x.npy", X)
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    answer, predictive = np.load(tmp_path / "answer.npz"), model.posterior_predictive(X, 4, seed=3)
    for name in ("mean", "entropy", "aleatoric", "epistemic"):
        np.testing.assert_allclose(answer[name], getattr(predictive, name)(), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_registry_gives_back_what_was_registered(tmp_path, without_telemetry, monkeypatch):
    import mlflow

    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    model = network()
    with mlflow.start_run():
        log_mlflow_model(model, "network", registered_model_name="shop.network", num_samples=4, seed=2)
    loaded = mlflow.pyfunc.load_model("models:/shop.network/1")
    np.testing.assert_allclose(loaded.predict(X)["mean"], model.posterior_predictive(X, 4, seed=2).mean(), atol=1e-5)


@pytest.mark.thorough
def test_a_server_under_load_answers_rightly_and_refuses_malformed_requests(tmp_path):
    pytest.importorskip("mlflow", reason=NEEDS)
    script, found = ROOT / "benchmarks" / "serving_load.py", tmp_path / "found.json"
    command = [sys.executable, script, "--model", "mlp_flipout.iris", "--samples", "10", "--minutes", "0.3"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    run = subprocess.run(
        [*command, "--json", found], env=environment, capture_output=True, text=True, check=False, timeout=500
    )
    assert run.returncode == 0, run.stdout + run.stderr[-3000:]
    result = json.loads(found.read_text())
    assert sum(result["statuses_of_malformed"].values()) == 200
    assert result["requests"] > 20
    # In megabytes: keeping every request would take more than its JSON, keeping a graph of each far more.
    assert result["memory_after_malformed"] < result["memory_at_start"] + 60


@pytest.mark.slow
def test_inputs_that_do_not_fit_are_refused(tmp_path):
    model = network()
    model.export(tmp_path, num_samples=2, seed=7, verbose=False)
    served = ServedPredictive(str(tmp_path))
    for seed, params in ((7, None), (7, {"seed": None}), (3, {"seed": 3})):
        expected = model.posterior_predictive(X, 2, seed=seed).mean()
        np.testing.assert_allclose(served.predict(X.astype(np.float64), params)["mean"], expected, atol=1e-5)
    with pytest.raises(ValueError, match=r"'features' has the shape \(5, 3\); expected \(None, 4\)"):
        served.predict(X[:, :3])
    with pytest.raises(ValueError, match="'features' has values that are NaN or infinite"):
        served.predict(np.full_like(X, np.nan))
    with pytest.raises(ValueError, match="Expected the inputs features, but got x"):
        served.predict({"x": X})


@pytest.mark.parametrize("default", [7, None])
def test_the_seed_of_the_export_is_that_of_calls_that_name_none(default, tmp_path):
    def predict(x, seed):
        return {"mean": x + tf.cast(seed, tf.float32)}

    of_export = tf.constant(7, tf.int64)

    def with_default(x, seed=of_export):
        return predict(x, seed)

    specs = [tf.TensorSpec([None], tf.float32, name="x"), tf.TensorSpec([], tf.int64, name="seed")]
    module = tf.Module()
    module.predict = tf.function(with_default if default else predict, specs, autograph=False)
    tf.saved_model.save(module, str(tmp_path), signatures={"predict": module.predict})
    served = ServedPredictive(str(tmp_path))
    assert served.seed == (default or 0)
    assert served.predict([0.0])["mean"] == served.seed
    assert served.predict([0.0], {"seed": 3})["mean"] == 3


def served_without_a_file(**inputs):
    """A loader whose functions answer with their inputs."""
    served = object.__new__(ServedPredictive)
    served.seed = 0
    served.inputs = {name: tf.TensorSpec((None,), dtype) for name, dtype in inputs.items()}
    served._functions = [lambda seed, **given: given]
    return served


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        (tf.uint8, [0.7, 3.0]),
        (tf.uint8, [300]),
        (tf.uint8, [-1]),
        (tf.int32, [np.nan, 3.0]),
        (tf.int32, np.array([1, None], object)),
        (tf.int32, ["1.5"]),
        (tf.uint8, ["300"]),
        (tf.int64, [2.0**63]),
        (tf.int64, np.array([2**63], np.uint64)),
        (tf.bool, [2]),
        (tf.float32, [1e300]),
        (tf.float32, [1j]),
        (tf.float32, np.array(["2020-01-01"], "M8[D]")),
    ],
    ids=repr,
)
def test_values_that_a_type_does_not_have_are_refused(dtype, values):
    with pytest.raises(ValueError, match=rf"'x' has values that are .* Expected {dtype.name}, but got "):
        served_without_a_file(x=dtype).predict(values)


def test_values_that_a_type_has_stay_what_they_are():
    served = served_without_a_file(a=tf.int64, b=tf.bool, c=tf.float16, d=tf.int64)
    largest = np.iinfo(np.int64).max
    given = {"a": [largest, 2**53 + 1], "b": np.array([0, True], object), "c": ["1.5", "2"], "d": [str(largest)]}
    found = served.predict(given)
    assert {name: (array.dtype.name, array.tolist()) for name, array in found.items()} == {
        "a": ("int64", given["a"]),
        "b": ("bool", [False, True]),
        "c": ("float16", [1.5, 2.0]),
        "d": ("int64", [largest]),
    }
    with pytest.raises(ValueError, match=r"The model has the inputs a, b, c, d\. Expected a dict .* but got one list"):
        served.predict([1, 0])


def test_the_line_that_installs_mlflow_is_given_where_it_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'tfp_bnn\[mlflow\]'"):
        save_mlflow_model(network(), tmp_path)


def test_a_folder_with_files_is_not_touched(without_telemetry, tmp_path):
    (tmp_path / "precious").write_text("precious")
    with pytest.raises(ValueError, match="is not an empty folder"):
        save_mlflow_model(network(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]

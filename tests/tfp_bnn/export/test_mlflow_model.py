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
    network().export(tmp_path, num_samples=2, verbose=False)
    served = ServedPredictive(str(tmp_path))
    assert served.predict(X.astype(np.float64))["mean"].shape == (5, 3)
    with pytest.raises(ValueError, match=r"'features' has the shape \(5, 3\); expected \(None, 4\)"):
        served.predict(X[:, :3])
    with pytest.raises(ValueError, match="'features' has values that are NaN or infinite"):
        served.predict(np.full_like(X, np.nan))
    with pytest.raises(ValueError, match="Expected the inputs features, but got x"):
        served.predict({"x": X})


def test_the_line_that_installs_mlflow_is_given_where_it_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'tfp_bnn\[mlflow\]'"):
        save_mlflow_model(network(), tmp_path)


def test_a_folder_with_files_is_not_touched(without_telemetry, tmp_path):
    (tmp_path / "precious").write_text("precious")
    with pytest.raises(ValueError, match="is not an empty folder"):
        save_mlflow_model(network(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]

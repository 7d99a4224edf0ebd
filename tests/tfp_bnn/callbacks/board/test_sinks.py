"""Experiment trackers get what a board writes to TensorBoard, and never stop a training."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest

import tfp_bnn
from tfp_bnn.callbacks import BayesianTensorBoard, MlflowSink, WandbSink
from tfp_bnn.callbacks.board.sinks import Sinks
from tfp_bnn.core.randomness import default_seeds_from

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(20, 2)).astype(np.float32), np.arange(20) % 2


class Kept:
    """A sink that keeps what it is told."""

    def __init__(self):
        self.told = []

    def __getattr__(self, what):
        return lambda *arguments: self.told.append((what, *arguments))


class Broken(Kept):
    def scalar(self, tag, value, step):
        raise ConnectionError("no network")


def fit(folder, *sinks):
    with default_seeds_from(0):
        layer = tfp_bnn.layers.DenseFlipout(2, name="only")
        model = tfp_bnn.VariationalSequential([keras.Input((2,)), layer], seed=0)
    model.compile("adam", run_eagerly=True)
    board = BayesianTensorBoard(folder, validation_data=(X, Y), num_samples=2, sinks=sinks)
    return model.fit(X, Y, epochs=2, shuffle=False, verbose=0, callbacks=[board])


@pytest.mark.slow
def test_a_sink_gets_numbers_figures_texts_and_hyperparameters(tmp_path):
    sink = Kept()
    history = fit(tmp_path, sink)
    numbers = {(tag, step): value for what, tag, value, step in (t for t in sink.told if t[0] == "scalar")}
    for epoch, elbo in enumerate(history.history["elbo"]):
        assert numbers["train/elbo/elbo", epoch + 1] == pytest.approx(elbo, rel=1e-6)
    images = [told for told in sink.told if told[0] == "image"]
    assert images
    assert all(told[2].startswith(b"\x89PNG") for told in images)
    assert ("text", "about/model") in [told[:2] for told in sink.told]
    assert any(told[0] == "hyperparameters" for told in sink.told)
    assert [told for told in sink.told if told == ("close",)] == sink.told[-1:]


@pytest.mark.slow
def test_a_sink_that_fails_warns_once_and_changes_nothing(tmp_path):
    broken, other = Broken(), Kept()
    with pytest.warns(
        UserWarning, match=r"Broken failed, and gets nothing more of .*: ConnectionError: no network"
    ) as found:
        history = fit(tmp_path / "a", broken, other)
    assert sum("Broken failed" in str(warning.message) for warning in found) == 1
    assert broken.told[-1] == ("close",)
    assert len([told for told in other.told if told[:2] == ("scalar", "train/elbo/elbo")]) == 2
    assert history.history == fit(tmp_path / "b").history


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_mlflow_has_the_numbers_and_the_figures(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow: pip install 'tfp_bnn[mlflow]'")
    for name in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        monkeypatch.setenv(name, "true")
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path}/runs.db"
    sink = MlflowSink("boards", tracking_uri=uri)
    history = fit(tmp_path / "log", sink)
    client = mlflow.MlflowClient(uri)
    metrics = client.get_metric_history(sink.run_id, "train/elbo/elbo")
    np.testing.assert_allclose([metric.value for metric in metrics], history.history["elbo"], rtol=1e-6)
    run = client.get_run(sink.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params
    assert {path.path for path in client.list_artifacts(sink.run_id)} >= {"about", "images"}


def test_a_sink_that_cannot_be_closed_is_told_so_once():
    closed = []

    class Stuck(Kept):
        def close(self):
            closed.append(self)
            raise ConnectionError("no network")

    sinks = Sinks([Stuck()], "log")
    with pytest.warns(UserWarning, match="Stuck failed, and gets nothing more of 'log'"):
        sinks.tell("close")
    sinks.tell("close")
    assert len(closed) == 1


class Client:
    """Of MLflow, whose parameters never change."""

    def __init__(self, _):
        self.params, self.tags = {}, {}

    def __getattr__(self, _):
        return lambda *_, **__: SimpleNamespace(experiment_id="0", info=SimpleNamespace(run_id="run"))

    def log_param(self, run_id, name, value):
        assert self.params.setdefault(name, value) == value, "Changing param values is not allowed."

    def set_tag(self, run_id, name, value):
        self.tags[name] = value


def test_names_that_mlflow_refuses_have_dashes(monkeypatch):
    """Layers of one name are told apart by #; the first such number ended the log of a whole run."""
    logged = []
    monkeypatch.setattr(Client, "log_metric", lambda self, run, name, value, step: logged.append(name), raising=False)
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(MlflowClient=Client))
    for tag in ("train/kl/layers/dense#2", "train/metrics/top 5 (%)", "recall@5"):
        MlflowSink().scalar(tag, 1.0, 1)
    assert logged == ["train/kl/layers/dense-2", "train/metrics/top 5 ---", "recall-5"]


def test_what_a_second_fit_changes_is_a_tag_of_mlflow(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(MlflowClient=Client))
    sink = MlflowSink()
    for rate, tags in ((0.1, {}), (0.1, {}), (0.2, {"rate": 0.2}), (0.1, {"rate": 0.1})):
        sink.hyperparameters({"rate": rate, "epochs": 2})
        assert sink._client.params == {"rate": 0.1, "epochs": 2}
        assert sink._client.tags == tags


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_weights_and_biases_works_offline(tmp_path):
    pytest.importorskip("wandb", reason="needs wandb: pip install 'tfp_bnn[wandb]'")
    fit(tmp_path / "log", WandbSink(project="boards", mode="offline", dir=str(tmp_path)))
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    content = b"".join(path.read_bytes() for path in run.glob("*.wandb"))
    assert b"train/elbo/elbo" in content
    assert list(run.rglob("*.png"))


@pytest.mark.parametrize(
    ("sink", "extra", "package"), [(MlflowSink, "mlflow", "mlflow"), (WandbSink, "wandb", "wandb")]
)
def test_the_line_that_installs_a_missing_package_is_given(sink, extra, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"pip install 'tfp_bnn\[{extra}\]'"):
        sink()

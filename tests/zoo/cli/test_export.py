"""`export` writes a model of the zoo to a file of another program, and answers bad input in words."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import zoo
from zoo.cli import exporting

IRIS = np.array([[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]], np.float32)
NAME = "mlp_flipout.iris"


@pytest.mark.slow
def test_a_saved_model_is_written_to_the_folder(tmp_path, tfp_bnn):
    code, printed, _ = tfp_bnn("export", NAME, "--output", tmp_path / "served", "--samples", 3, "--seed", 4)
    assert code == 0
    assert "The answers are those of 3 draws." in printed
    served = tf.saved_model.load(tmp_path / "served")
    np.testing.assert_allclose(
        served.serve(IRIS), zoo.load_model(NAME).posterior_predictive(IRIS, 3, seed=4).mean(), atol=1e-5
    )


@pytest.mark.slow
def test_other_formats_are_one_file(tmp_path, tfp_bnn):
    arguments = ("export", NAME, "--output", tmp_path / "new", "--format", "litert", "--num-samples", 3)
    code, printed, errors = tfp_bnn(*arguments)
    assert code == 0
    assert "model.tflite" in printed
    assert "error" not in errors
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model.tflite"]


@pytest.mark.slow
def test_eight_bits_need_inputs_like_those_to_come(tmp_path, tfp_bnn):
    np.save(tmp_path / "x.npy", IRIS)
    arguments = ("export", NAME, "--output", tmp_path, "--format", "litert", "--int8", tmp_path / "x.npy")
    code, _, errors = tfp_bnn(*arguments)
    assert code == 2
    assert "`int8_from` is for the plug-in mean in LiteRT" in errors
    assert tfp_bnn(*arguments, "--plug-in")[0] == 0
    assert (tmp_path / "model.tflite").exists()


def test_a_folder_that_cannot_be_written_to_and_an_unknown_format_are_refused_in_words(tmp_path, tfp_bnn, monkeypatch):
    (tmp_path / "file").write_text("precious")
    code, _, errors = tfp_bnn("export", NAME, "--output", tmp_path / "file", "--format", "litert", "--samples", 1)
    assert code == 2
    assert "could not be written to" in errors
    code, _, errors = tfp_bnn("export", NAME, "--output", tmp_path / "new", "--format", "caffe")
    assert code == 2
    assert "'caffe' is not one of 'saved_model', 'onnx', 'litert'" in errors
    assert (tmp_path / "file").read_text() == "precious"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(exporting, "start", lambda: pytest.fail("TensorFlow is imported."))
    for output, format, message in ((".", "saved_model", "is the current folder"), ("file/new", "onnx", "file")):
        code, _, errors = tfp_bnn("export", NAME, "--output", output, "--format", format)
        assert code in (1, 2)
        assert message in errors


def test_the_line_that_installs_a_missing_package_is_given(tmp_path, tfp_bnn, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, errors = tfp_bnn("export", NAME, "--output", tmp_path, "--format", "onnx")
    assert code == 1
    assert "pip install 'tfp_bnn[onnx]'" in errors


ELSEWHERE = """
import importlib.util, sys
assert not any(map(importlib.util.find_spec, ("tfp_bnn", "zoo", "tensorflow_probability")))
import numpy as np, tensorflow as tf
model = tf.saved_model.load("served")
(name,) = model.signatures["serving_default"].structured_input_signature[1]
answer = model.signatures["serving_default"](**{name: tf.constant(np.load("x.npy"))})
np.savez("answer.npz", **answer)
"""


@pytest.mark.thorough
@pytest.mark.network
@pytest.mark.filterwarnings("ignore::tfp_bnn.UnlikelyInputsWarning")
def test_a_fresh_environment_with_tensorflow_alone_gives_the_predictive(tmp_path, tfp_bnn):
    x = np.random.default_rng(0).integers(0, 256, (8, 28, 28, 1)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    assert tfp_bnn("export", "lenet5_flipout.mnist", "--output", tmp_path / "served", "--samples", 20)[0] == 0
    environment = tmp_path / "environment"
    for command in (
        [sys.executable, "-m", "uv", "venv", "--python", sys.executable, environment],
        [sys.executable, "-m", "uv", "pip", "install", "--python", environment, f"tensorflow=={tf.__version__}"],
        [environment / "bin" / "python", "-c", ELSEWHERE],
    ):
        clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        run = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr[-3000:]
    answer = np.load(tmp_path / "answer.npz")
    predictive = zoo.load_model("lenet5_flipout.mnist").posterior_predictive(x, 20)
    for name in ("mean", "entropy", "aleatoric", "epistemic"):
        np.testing.assert_allclose(answer[name], getattr(predictive, name)(), rtol=1e-5, atol=1e-5)

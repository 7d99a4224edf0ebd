"""`export` writes a model of the zoo to a file of another program, and answers bad input in words."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import zoo

IRIS = np.array([[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]], np.float32)
NAME = "mlp_flipout.iris"


@pytest.mark.slow
def test_a_saved_model_is_written_to_the_folder(tmp_path, tfp_bnn):
    code, printed, _ = tfp_bnn("export", NAME, "--output", tmp_path / "served", "--samples", 3, "--seed", 4)
    assert code == 0
    assert "The answers are those of 3 draws." in printed
    answer = tf.saved_model.load(tmp_path / "served").serve(IRIS)
    np.testing.assert_allclose(answer, zoo.load_model(NAME).posterior_predictive(IRIS, 3, seed=4).mean(), atol=1e-5)


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


def test_a_folder_that_cannot_be_written_to_and_an_unknown_format_are_refused_in_words(tmp_path, tfp_bnn):
    (tmp_path / "file").write_text("precious")
    code, _, errors = tfp_bnn("export", NAME, "--output", tmp_path / "file", "--format", "litert", "--samples", 1)
    assert code == 2
    assert "could not be written to" in errors
    code, _, errors = tfp_bnn("export", NAME, "--output", tmp_path / "new", "--format", "caffe")
    assert code == 2
    assert "'caffe' is not one of 'saved_model', 'onnx', 'litert'" in errors
    assert (tmp_path / "file").read_text() == "precious"


def test_the_line_that_installs_a_missing_package_is_given(tmp_path, tfp_bnn, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, errors = tfp_bnn("export", NAME, "--output", tmp_path, "--format", "onnx")
    assert code == 1
    assert "pip install 'tfp_bnn[onnx]'" in errors

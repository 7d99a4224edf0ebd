"""ONNX and LiteRT files answer what `posterior_predictive` does for the same draws."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_bnn
from tfp_bnn.export.portable import ServedNetwork
from tfp_bnn.layers import Convolution2DFlipout, DenseFlipout

ROWS, DRAWS = 5, 4
X = np.random.default_rng(0).normal(size=(ROWS, 4)).astype(np.float32)
ALL = {"mean", "entropy", "aleatoric", "epistemic", "lower", "upper"}
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}


def network(likelihood="categorical", outputs=3, **kwargs):
    x = keras.Input((4,), name="features")
    return tfp_bnn.VariationalModel(x, DenseFlipout(outputs)(x), likelihood=likelihood, seed=0, **kwargs)


def assert_answers(answer, predictive, names=frozenset(ALL)):
    assert set(answer) == set(names)
    wanted = {name: getattr(predictive, name)() for name in ("mean", "entropy", "aleatoric", "epistemic")}
    wanted |= dict(zip(("lower", "upper"), predictive.interval(), strict=True))
    for name, values in answer.items():
        np.testing.assert_allclose(values, wanted[name], **TOLERANCE, err_msg=name)


# LiteRT has no error function.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("likelihood", "outputs", "calibration", "lost"),
    [
        ("categorical", 3, {"name": "temperature", "temperature": 3.0}, {"onnx": set(), "litert": set()}),
        ("normal", 2, {"name": "scale", "scale": 2.0}, {"onnx": set(), "litert": {"lower", "upper"}}),
    ],
)
def test_the_answers_are_those_of_the_predictive_whatever_the_batch(portable, likelihood, outputs, calibration, lost):
    model = network(likelihood, outputs, calibration=calibration)
    run = portable(model, num_samples=DRAWS, seed=7)
    answer = run({"features": X})
    assert_answers(answer, model.posterior_predictive(X, DRAWS, seed=7), ALL - lost[portable.format])
    np.testing.assert_allclose(run({"features": X[:1]})["mean"], answer["mean"][:1], **TOLERANCE)


@pytest.mark.slow
def test_what_is_left_out_is_said(exporting_to, capsys):
    litert = exporting_to("litert")
    network("laplace", 1).export(litert.path, format="litert", num_samples=DRAWS)
    printed = capsys.readouterr().out
    assert "MB. The answers are those of 4 draws, which are in the file. Left out: entropy." in printed
    network("normal", 1).export(litert.path, format="litert", num_samples=DRAWS)
    assert "Left out: lower, upper. litert has no operations for lower, upper." in capsys.readouterr().out


@pytest.mark.slow
def test_images_heads_and_several_inputs(portable):
    x = {"left": keras.Input((6, 6, 1), name="left"), "right": keras.Input((6, 6, 1), name="right")}
    y = keras.layers.Rescaling(1 / 3)(keras.layers.Subtract()(list(x.values())))
    y = keras.layers.BatchNormalization()(y)
    y = keras.layers.Flatten()(Convolution2DFlipout(2, 3, strides=2, padding="same", activation="relu")(y))
    heads = {"class": DenseFlipout(3)(y), "value": DenseFlipout(1)(y)}
    model = tfp_bnn.VariationalModel(x, heads, likelihood={"class": "categorical", "value": "poisson"}, seed=0)
    rng = np.random.default_rng(1)
    inputs = {name: rng.normal(size=(ROWS, 6, 6, 1)).astype(np.float32) for name in x}
    run = portable(model, num_samples=DRAWS)
    answer = run(inputs)
    damaged = {**inputs, "right": inputs["right"].copy()}
    # Some runtimes have activations that drop NaN.
    damaged["right"][1, 5, 5] = np.nan
    for name, values in run(damaged).items():
        assert np.isnan(values[1]).all(), name
        np.testing.assert_allclose(np.delete(values, 1, 0), np.delete(answer[name], 1, 0), **TOLERANCE, err_msg=name)
    for head, names in (("class", ALL), ("value", ALL - {"entropy", "lower", "upper"})):
        of_head = {key.removeprefix(f"{head}/"): value for key, value in answer.items() if key.startswith(head)}
        assert_answers(of_head, model.posterior_predictive(inputs, DRAWS)[head], names)


@pytest.mark.slow
def test_the_plug_in_mean_of_an_ensemble(portable):
    members = [network(calibration={"name": "temperature", "temperature": 3.0}) for _ in range(2)]
    model = tfp_bnn.inference.ensemble(members, draws_per_member=2)
    answer = portable(model, plug_in=True)({"features": X})
    assert set(answer) == {"mean"}
    np.testing.assert_allclose(answer["mean"], model.plug_in_predictive(X).mean(), **TOLERANCE)


@pytest.mark.slow
def test_eight_bits_make_a_smaller_file_with_nearly_the_same_answers(exporting_to):
    litert = exporting_to("litert")
    x = keras.Input((4,), name="features")
    y = DenseFlipout(3)(DenseFlipout(64, activation="relu")(DenseFlipout(64, activation="relu")(x)))
    model = tfp_bnn.VariationalModel(x, y, seed=0)
    rows = np.random.default_rng(2).normal(size=(100, 4))
    litert(model, plug_in=True)
    size = litert.path.stat().st_size
    answer = litert(model, plug_in=True, int8_from=rows)({"features": X})
    assert litert.path.stat().st_size < 0.5 * size
    error = np.abs(answer["mean"] - model.plug_in_predictive(X).mean())
    assert 0 < error.max() < 0.05
    rows_of_user = [{"features": row[None].astype(np.float32)} for row in rows]
    settings = {"optimizations": [tf.lite.Optimize.DEFAULT], "representative_dataset": lambda: rows_of_user}
    own = litert(model, plug_in=True, **settings)({"features": X})
    assert np.abs(own["mean"] - model.plug_in_predictive(X).mean()).max() < 0.05


def test_the_rows_of_eight_bits_are_found_by_name(tmp_path, monkeypatch):
    x = [keras.Input((2,), name="right"), keras.Input((2,), name="left")]
    model = tfp_bnn.VariationalModel(x, DenseFlipout(1)(keras.layers.Subtract()(x)), likelihood="normal", seed=0)
    rows = {"left": np.zeros((3, 2)), "right": np.arange(6.0).reshape(3, 2), "other": np.ones((3, 1))}
    seen = []

    def export(network, filepath, representative_dataset, **kwargs):
        seen.extend(representative_dataset())
        Path(filepath).touch()

    monkeypatch.setattr(ServedNetwork, "export", export)
    arguments = {"format": "litert", "plug_in": True, "verbose": False}
    for given in (rows, [rows["right"], rows["left"]]):
        model.export(tmp_path / "model", int8_from=given, **arguments)
        for name in ("left", "right"):
            np.testing.assert_array_equal(np.concatenate([row[name] for row in seen]), rows[name])
        seen.clear()
    with pytest.raises(ValueError, match=r"keys \['left'\], but .* inputs \['right', 'left'\]: \['right'\] missing"):
        model.export(tmp_path / "model", int8_from={"left": rows["left"]}, **arguments)


def with_python(x):
    return tf.ensure_shape(tf.numpy_function(np.sin, [x], tf.float32), x.shape)


@pytest.mark.slow
def test_an_earlier_file_survives_a_layer_that_cannot_be_exported(portable):
    x = keras.Input((4,))
    y = DenseFlipout(3)(keras.layers.Lambda(with_python, output_shape=(4,), name="sine")(x))
    portable.path.write_bytes(b"earlier")
    with pytest.raises(ValueError, match=r"(?s)cannot be exported with format=.*(PyFunc|py_func|numpy_function)"):
        portable(tfp_bnn.VariationalModel(x, y, seed=0), num_samples=2)
    assert portable.path.read_bytes() == b"earlier"
    assert list(portable.path.parent.iterdir()) == [portable.path]


@pytest.mark.parametrize("plug_in", [False, True])
@pytest.mark.parametrize(
    "full", [OSError(errno.ENOSPC, "No space left"), tf.errors.ResourceExhaustedError(None, None, "No space left")]
)
def test_a_full_disk_is_no_missing_operation(full, plug_in, monkeypatch, tmp_path):
    tried = []

    def export(network, filepath, **kwargs):
        tried.append(filepath)
        raise full

    monkeypatch.setattr(ServedNetwork, "export", export)
    path = tmp_path / "model"
    path.write_bytes(b"earlier")
    with pytest.raises(ValueError, match=r"could not be written to .*: .*No space left.*Expected the path of a file"):
        network().export(path, format="litert", num_samples=2, plug_in=plug_in)
    assert len(tried) == 1
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"earlier"


def test_a_process_without_stderr_can_export(monkeypatch, tmp_path):
    def dup(descriptor):
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(os, "dup", dup)
    monkeypatch.setattr(ServedNetwork, "export", lambda network, filepath, **kwargs: Path(filepath).write_text("new"))
    network().export(tmp_path / "model", format="litert", num_samples=2, verbose=False)
    assert (tmp_path / "model").read_text() == "new"


def test_a_format_whose_package_is_missing_is_refused_with_the_line_that_installs_it(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"needs onnx and tf2onnx. Use `pip install 'tfp_bnn\[onnx\]'`"):
        network().export(tmp_path / "model.onnx", format="onnx")


def test_draws_that_would_take_too_much_of_a_file_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("tfp_bnn.export.baked_draws.MOST_BYTES", 100)
    with pytest.raises(ValueError, match=r"(?s)10 draws take .* Use num_samples=[12] or fewer, or format="):
        network().export(tmp_path / "model.tflite", format="litert", num_samples=10)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("path", "arguments", "message"),
    [
        ("", {}, r"could not be written to .*it is a folder.*Expected the path of a file"),
        ("taken/model", {}, r"could not be written to .*Expected the path of a file"),
        ("model", {"num_samples": 0}, "`num_samples`"),
        ("model", {"level": 1.0}, "`level` must be a number between 0 and 1"),
        ("model", {"int8_from": X}, r"`int8_from` is for the plug-in mean in LiteRT"),
        ("model", {"int8_from": X[:, :2], "plug_in": True}, "features|shape"),
        ("model", {"format": "tf_saved_model", "plug_in": True}, "as its signature `mean`"),
        ("model", {"format": "openvino", "int8_from": X}, "`int8_from` is for format='litert'"),
        ("model", {"format": "hologram"}, "Unrecognized format=hologram"),
    ],
)
def test_bad_arguments_are_refused(path, arguments, message, tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("precious")
    with pytest.raises(ValueError, match=rf"(?s){message}"):
        network().export(tmp_path / path, **{"format": "litert", "num_samples": 2, **arguments})
    assert taken.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [taken]


def test_another_format_of_keras_replaces_all_files_of_an_earlier_export_or_none(monkeypatch, tmp_path):
    """OpenVINO writes two files. The index is the last to take its place."""
    moved, replace = [], os.replace

    def export(network, filepath, format, input_signature, verbose):
        Path(filepath).write_text("new")
        if failing:
            raise OSError("the disk is full")
        Path(filepath).with_suffix(".bin").write_text("new")

    def files():
        return {path.name: path.read_text() for path in tmp_path.iterdir()}

    monkeypatch.setattr(ServedNetwork, "export", export)
    monkeypatch.setattr(os, "replace", lambda source, target: (moved.append(target.suffix), replace(source, target)))
    earlier = {"model.xml": "earlier", "model.bin": "earlier", "other": "earlier"}
    for name, text in earlier.items():
        (tmp_path / name).write_text(text)
    model, path, failing = network(), tmp_path / "model.xml", True
    with pytest.raises(OSError, match="the disk is full"):
        model.export(path, format="openvino", verbose=False)
    assert files() == earlier
    failing = False
    kernel = model.variational_layers[0].variational_weights["kernel"].posterior_variables["loc"]
    before = np.asarray(kernel)
    kernel.assign(np.full_like(before, np.nan))
    with pytest.raises(ValueError, match="NaN"):
        model.export(path, format="openvino", verbose=False)
    assert files() == earlier
    kernel.assign(before)
    model.export(str(path), format="openvino", verbose=False)
    assert (files(), moved) == ({"model.xml": "new", "model.bin": "new", "other": "earlier"}, [".bin", ".xml"])

"""A SavedModel of a Bayesian model answers by itself, and nothing is written that is wrong."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_bnn
from tfp_bnn.export import saved_model
from tfp_bnn.layers import DenseFlipout, DenseReparameterization

X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)

# A process that has TensorFlow alone.
IN_ANOTHER_PROCESS = """
import sys
sys.modules["tfp_bnn"] = sys.modules["tensorflow_probability"] = sys.modules["keras"] = None
import numpy as np, tensorflow as tf
model = tf.saved_model.load("exported")
x = np.load("x.npy")
answer = model.signatures["serving_default"](features=tf.constant(x))
other = model.signatures["predict"](features=tf.constant(x), seed=tf.constant(5, tf.int64))
draws = model.signatures["draws"](features=tf.constant(x), seed=tf.constant(5, tf.int64))
one_by_one = np.concatenate([model.serve(x[row : row + 1]) for row in range(len(x))])
np.savez("answer.npz", **answer)
np.savez("other.npz", **other, **draws, one_by_one=one_by_one)
"""


def network(**kwargs):
    x = keras.Input((4,), name="features")
    return tfp_bnn.VariationalModel(x, DenseFlipout(2)(x), seed=0, **kwargs)


def point_network():
    x = keras.Input((4,), name="features")
    layer = DenseReparameterization(2, kernel_posterior="delta")
    model = tfp_bnn.VariationalModel(x, layer(x), seed=0)
    model.num_examples = len(X)
    return model


def assert_predictive(answer, predictive):
    for name in ("mean", "entropy", "aleatoric", "epistemic"):
        np.testing.assert_allclose(answer[name], getattr(predictive, name)(), rtol=1e-5, atol=1e-5, err_msg=name)
    np.testing.assert_allclose([answer["lower"], answer["upper"]], predictive.interval(), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["categorical", "normal"])
def test_it_answers_in_a_process_that_has_tensorflow_alone(likelihood, tmp_path):
    model = network(likelihood=likelihood)
    calibration = {"name": "scale", "scale": 2.0} if likelihood == "normal" else {"name": "temperature"}
    model.calibration = calibration
    model.export(tmp_path / "exported", verbose=False)
    np.save(tmp_path / "x.npy", X)
    run = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert_predictive(np.load(tmp_path / "answer.npz"), model.posterior_predictive(X))
    other, predictive = np.load(tmp_path / "other.npz"), model.posterior_predictive(X, seed=5)
    assert_predictive(other, predictive)
    np.testing.assert_allclose(other["samples"], np.moveaxis(predictive.samples, 0, 1), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(other["one_by_one"], model.posterior_predictive(X).mean(), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_export_prints_the_signatures_and_keeps_the_training_as_it_was(tmp_path, capsys):
    model, other = network(), network()
    other.set_weights(model.get_weights())
    for each in (model, other):
        each.compile("sgd")
        each.fit(X, Y, shuffle=False, verbose=0)
    model.export(tmp_path / "exported", num_samples=4)
    printed = capsys.readouterr().out
    for name in ("serving_default", "predict", "draws", "mean", "serve"):
        assert f"Endpoint '{name}'" in printed
    assert "The answers are those of 4 draws." in printed
    # An earlier export is replaced.
    for each in (model, other):
        each.fit(X, Y, shuffle=False, verbose=0)
    model.export(tmp_path / "exported", num_samples=4, verbose=False)
    assert capsys.readouterr().out == ""
    loaded = tf.saved_model.load(tmp_path / "exported")
    answer = loaded.serve(X)
    np.testing.assert_allclose(answer, other.posterior_predictive(X, 4).mean(), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_lookup_tables_are_saved(tmp_path):
    x = keras.Input((1,), dtype="string", name="word")
    one_hot = keras.layers.StringLookup(vocabulary=["a", "b"], output_mode="one_hot")(x)
    model = tfp_bnn.VariationalModel(x, DenseFlipout(2)(one_hot), seed=0)
    model.export(tmp_path / "exported", num_samples=4, verbose=False)
    words = np.array([["a"], ["b"], ["c"]])
    loaded = tf.saved_model.load(tmp_path / "exported")
    answer = loaded.serve(tf.constant(words))
    draws = model.draws()
    expected = np.mean([tf.nn.softmax(draws(k)(tf.constant(words))) for k in range(4)], axis=0)
    np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-5)


def laplace():
    return tfp_bnn.inference.laplace(point_network(), X, Y, prior_precision=1.0)


def swag():
    model = point_network()
    model.compile("sgd")
    iterates = tfp_bnn.inference.SwagIterates(rank=2)
    model.fit(X, Y, epochs=3, verbose=0, callbacks=[iterates])
    return tfp_bnn.inference.swag(model, iterates)


def mean_field():
    prior = {"name": "normal", "scale": 1.0}
    return tfp_bnn.inference.mean_field(point_network(), X, Y, num_steps=1, plain_prior=prior, verbose=0)


def ensemble():
    return tfp_bnn.inference.ensemble([network(name="a"), network(name="b")])


@pytest.mark.slow
@pytest.mark.parametrize("find", [laplace, swag, mean_field, ensemble])
def test_posteriors_beside_their_networks_are_written(find, tmp_path):
    model = find()
    model.export(tmp_path / "exported", num_samples=3, verbose=False)
    loaded = tf.saved_model.load(tmp_path / "exported")
    answer = loaded.signatures["predict"](features=tf.constant(X), seed=tf.constant(5, tf.int64))
    assert_predictive(answer, model.posterior_predictive(X, 3, seed=5))


def test_an_earlier_export_survives_a_model_that_cannot_be_exported(tmp_path):
    earlier = tmp_path / "saved_model.pb"
    earlier.write_bytes(b"earlier")
    model = network()
    kernel = model.trainable_variables[0]
    kernel.assign(np.full(kernel.shape, np.nan))
    with pytest.raises(ValueError, match="NaN or infinite"):
        model.export(tmp_path, verbose=False)
    assert list(tmp_path.iterdir()) == [earlier]
    assert earlier.read_bytes() == b"earlier"


@pytest.fixture
def quick(monkeypatch):
    """A model whose export is traced at once."""
    same = tf.function(lambda x: x, [tf.TensorSpec([None])], autograph=False)
    monkeypatch.setattr(saved_model, "served_functions", lambda *_: ({"serve": same}, ""))
    return network()


def test_an_export_that_fails_half_way_leaves_the_earlier_one(quick, tmp_path, monkeypatch):
    def write_half(archive, folder, **kwargs):
        written = Path(folder) / "saved_model.pb"
        written.parent.mkdir(exist_ok=True)
        written.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    # The class itself makes objects of another one.
    monkeypatch.setattr(type(keras.export.ExportArchive()), "write_out", write_half)
    earlier = tmp_path / "exported" / "saved_model.pb"
    earlier.parent.mkdir()
    earlier.write_bytes(b"earlier")
    with pytest.raises(ValueError, match=r"could not be written to .*No space left"):
        quick.export(earlier.parent, verbose=False)
    assert earlier.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [earlier.parent]


@pytest.mark.parametrize(("verbose", "prints"), [(None, True), (1, True), (0, False), (np.False_, False)])
def test_nothing_is_printed_if_verbose_is_false_in_any_form(quick, verbose, prints, tmp_path, capsys):
    quick.export(tmp_path / "exported", verbose=verbose)
    assert bool(capsys.readouterr().out) == prints


def test_an_export_replaces_the_earlier_one_and_nothing_else(quick, tmp_path):
    folder = tmp_path / "exported"
    (folder / "notes").mkdir(parents=True)
    (folder / "assets").mkdir()
    (folder / "assets" / "earlier").write_bytes(b"earlier")
    (folder / "notes" / "a.txt").write_text("mine")
    (folder / "model.onnx").write_bytes(b"another format")
    (folder / "link").symlink_to("model.onnx")
    (folder / "saved_model.pb").write_bytes(b"earlier")
    quick.export(folder, verbose=False)
    assert (folder / "notes" / "a.txt").read_text() == "mine"
    assert (folder / "link").is_symlink()
    assert (folder / "model.onnx").read_bytes() == b"another format"
    assert not (folder / "assets" / "earlier").exists()
    assert tf.saved_model.load(folder).serve([1.0]) == 1.0
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("file", "it is a file"),
        ("file/new", "file' is no folder"),
        ("", "the current folder is there, .* Give a folder below it"),
        ("here", "the current folder is there, .* Give a folder below it"),
        ("mounted", "a file system is mounted there, .* Give a folder below it"),
        ("closed/new", "closed' cannot be written to"),
    ],
)
def test_a_path_that_cannot_be_written_to_is_refused_before_anything_is_traced(path, message, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("precious")
    for name in ("here", "mounted", "closed"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path).name == "mounted")
    # Whoever runs the tests may write everywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "closed")
    monkeypatch.setattr(saved_model, "served_functions", lambda *_: pytest.fail("It is traced."))
    with pytest.raises(ValueError, match=rf"could not be written to .*{message}\. Expected the path of a folder"):
        network().export(tmp_path / path, num_samples=2, verbose=False)
    assert (tmp_path / "file").read_text() == "precious"
    assert len(list(tmp_path.iterdir())) == 4


def test_saving_one_draw_of_the_weights_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"would save one draw of the weights.*Use model.export\(folder\)"):
        tf.saved_model.save(network(), tmp_path / "saved")

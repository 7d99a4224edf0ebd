"""`predict` shows the sets or intervals of a model that has them."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

import zoo
from tfp_bnn.predictive import ConformalIntervals, ConformalSets

INPUTS = np.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3], [6.0, 2.7, 5.1, 1.6]])
NAMES = ("=cmd|' /C calc'!A0", "\x1b[31mred", "virginica")


def predicted(run, folder, path, *options):
    return list(csv.DictReader(io.StringIO(run("predict", folder, path, "--trust", *options))))


@pytest.fixture
def flowers(tmp_path):
    np.save(tmp_path / "x.npy", INPUTS)
    return tmp_path / "x.npy"


def test_sets_are_those_of_the_samples_of_the_fit(tiny_artifact, tmp_path, flowers, run):
    model = zoo.load_artifact(tiny_artifact, trust=True)
    probabilities = model.posterior_predictive(INPUTS, num_samples=7, seed=5).mean().astype(float)
    # The most uncertain input gets no class, and the most certain one gets one.
    least, *_, most = np.sort(1 - probabilities.max(axis=1))[::-1]
    model.conformal = ConformalSets(0.9, (least + most) / 2, num_samples=7, seed=5)
    folder = zoo.save_artifact(model, tmp_path / "sets", data={"class_names": ["a", "b", "c"]})
    rows = predicted(run, folder, flowers)
    sets = model.conformal.predict(model.posterior_predictive(INPUTS, num_samples=7, seed=5))
    expected = ["|".join(name for name, is_in in zip("abc", row, strict=True) if is_in) for row in sets]
    assert [row["set_90"] for row in rows] == expected
    assert "" in expected
    assert list(rows[0])[-2:] == ["epistemic", "set_90"]
    np.testing.assert_allclose([[float(row[f"mean_{k}"]) for k in "abc"] for row in rows], probabilities, rtol=1e-4)
    with pytest.warns(UserWarning, match="have 3 draws, but the conformal prediction was fitted to 7"):
        other = predicted(run, folder, flowers, "--num-samples", 3, "--seed", 0)
    assert other[0]["mean_a"] != rows[0]["mean_a"]


def test_names_in_sets_are_escaped(tiny_artifact, tmp_path, flowers, run):
    model = zoo.load_artifact(tiny_artifact, trust=True)
    model.conformal = ConformalSets(0.9, 1.0)
    folder = zoo.save_artifact(model, tmp_path / "sets", data={"class_names": NAMES})
    assert predicted(run, folder, flowers)[0]["set_90"] == "'=cmd|' /C calc'!A0|\\x1b[31mred|virginica"


@pytest.mark.parametrize(
    ("outputs", "columns"),
    [(1, ["lower_80", "upper_80"]), (2, ["lower_80_0", "upper_80_0", "lower_80_1", "upper_80_1"])],
)
def test_intervals_have_a_column_for_each_end(outputs, columns, tmp_path, flowers, run):
    model = zoo.create_model("mlp_flipout", input_shape=(4,), num_outputs=outputs, likelihood="normal", hidden=(2,))
    model.conformal = ConformalIntervals(0.8, 0.25, num_samples=4, seed=1)
    rows = predicted(run, zoo.save_artifact(model, tmp_path / "intervals"), flowers)
    lower, upper = model.conformal.predict(model.posterior_predictive(INPUTS, 4, 1))
    assert list(rows[0])[-len(columns) :] == columns
    found = np.array([[float(row[column]) for column in columns] for row in rows])
    np.testing.assert_allclose(found[:, ::2], lower, rtol=1e-5)
    np.testing.assert_allclose(found[:, 1::2], upper, rtol=1e-5)


def test_one_yes_or_no_has_two_classes(tmp_path, flowers, run):
    model = zoo.create_model("mlp_flipout", input_shape=(4,), num_outputs=1, likelihood="bernoulli", hidden=(2,))
    model.conformal = ConformalSets(0.9, [0.0, 1.0])
    named = zoo.save_artifact(model, tmp_path / "named", data={"class_names": ["no", "yes"]})
    rows = predicted(run, named, flowers)
    assert {row["set_90"] for row in rows} == {"yes"}
    assert [row["prediction"] for row in rows] == ["yes" if float(row["mean_yes"]) > 0.5 else "no" for row in rows]
    assert {row["set_90"] for row in predicted(run, zoo.save_artifact(model, tmp_path / "x"), flowers)} == {"1"}


def test_several_labels_have_no_prediction(tmp_path, flowers, run):
    """Any number of them may hold, so the most probable one says little."""
    model = zoo.create_model("mlp_flipout", input_shape=(4,), num_outputs=3, likelihood="bernoulli", hidden=(2,))
    named = zoo.save_artifact(model, tmp_path / "labels", data={"class_names": ["a", "b", "c"]})
    (row, *_) = predicted(run, named, flowers)
    assert list(row) == ["input", "mean_a", "mean_b", "mean_c", "entropy", "aleatoric", "epistemic"]

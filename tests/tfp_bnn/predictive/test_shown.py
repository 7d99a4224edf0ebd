"""How predictions are shown: a line, a table, a data frame, a figure."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest

import tfp_bnn
from tfp_bnn.core.draws import FiniteDraws
from tfp_bnn.likelihoods import Bernoulli, Categorical, Joint, Normal
from tfp_bnn.predictive import JointPredictive

LOGITS = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)


def predictive_of(outputs, likelihood, class_names=None, **how):
    draws = FiniteDraws([lambda x, k=k: outputs[k][np.asarray(x, int)] for k in range(len(outputs))])
    found = tfp_bnn.PosteriorPredictive.from_draws(draws, np.arange(outputs.shape[1]), likelihood, **how)
    found.class_names = class_names
    return found


def test_std_of_numbers_is_that_of_the_target_and_of_classes_that_of_the_probability():
    # Means 0 and 2 with equal probability, noise 1: variance 1 + 1.
    numbers = predictive_of(np.array([[[0.0]], [[2.0]]], np.float32), Normal(scale=1.0))
    np.testing.assert_allclose(numbers.std(), [[np.sqrt(2)]], rtol=1e-6)
    np.testing.assert_array_equal(numbers.stddev(), numbers.std())
    classes = predictive_of(LOGITS, Categorical())
    np.testing.assert_allclose(classes.std(), classes.samples.std(axis=0), rtol=1e-5)
    np.testing.assert_allclose(classes.variance(), classes.std() ** 2, rtol=1e-5)


def test_std_of_numbers_needs_no_draws_in_memory():
    outputs = np.zeros((3, 4, 1), np.float32)
    np.testing.assert_array_equal(predictive_of(outputs, Normal(scale=2.0), max_bytes=1).std(), np.full((4, 1), 2.0))


def test_a_data_frame_of_classes_has_a_column_per_class():
    predictive = predictive_of(LOGITS, Categorical(), class_names=("a", "b", "c"))
    frame = predictive.to_dataframe()
    assert list(frame) == ["prediction", "mean_a", "mean_b", "mean_c", "entropy", "aleatoric", "epistemic"]
    np.testing.assert_array_equal(frame[["mean_a", "mean_b", "mean_c"]], predictive.mean())
    assert list(frame["prediction"]) == [("a", "b", "c")[k] for k in predictive.mean().argmax(axis=1)]
    np.testing.assert_array_equal(frame["epistemic"], predictive.epistemic())


def test_a_data_frame_of_one_probability_has_both_answers():
    frame = predictive_of(LOGITS[..., :1], Bernoulli()).to_dataframe()
    np.testing.assert_allclose(frame["mean_0"] + frame["mean_1"], 1.0, rtol=1e-6)
    np.testing.assert_array_equal(frame["prediction"], (frame["mean_1"] > 0.5).astype(int))


def test_a_data_frame_of_numbers_has_intervals_of_each_target():
    predictive = predictive_of(LOGITS[..., :2], Normal(scale=1.0))
    frame = predictive.to_dataframe(level=0.5)
    assert list(frame)[:4] == ["mean_0", "std_0", "lower_50_0", "upper_50_0"]
    lower, upper = predictive.interval(0.5)
    np.testing.assert_array_equal(frame[["lower_50_1", "upper_50_1"]], np.stack([lower, upper])[:, :, 1].T)


def test_classes_of_one_name_are_columns_of_their_own():
    predictive = predictive_of(LOGITS, Categorical(), class_names=["a", "a", "b"])
    frame = predictive.to_dataframe()
    assert list(frame)[:4] == ["prediction", "mean_a (0)", "mean_a (1)", "mean_b (2)"]
    np.testing.assert_array_equal(frame.iloc[:, 1:4], predictive.mean())
    assert frame["prediction"][0] == ["a (0)", "a (1)", "b (2)"][predictive.mean()[0].argmax()]


def test_positions_are_rows():
    frame = predictive_of(np.tile(LOGITS[:, :, None], (1, 1, 4, 1)), Categorical()).to_dataframe()
    assert frame.index.names == ["input", "position_0"]
    assert len(frame) == 20
    assert frame.loc[(3, 0)].equals(frame.loc[(3, 3)])


def test_without_pandas_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        predictive_of(LOGITS, Categorical()).to_dataframe()


@pytest.mark.parametrize(
    ("outputs", "likelihood", "says"),
    [
        (LOGITS, Categorical(), "<PosteriorPredictive: 5 inputs, 3 classes, 2 draws, likelihood 'categorical'>"),
        (LOGITS[:1], Bernoulli(), "<PosteriorPredictive: 5 inputs, 3 labels, 1 draw, likelihood 'bernoulli'>"),
        (LOGITS[..., :1], Normal(scale=1.0), "<PosteriorPredictive: 5 inputs, 1 target, 2 draws, likelihood 'normal'>"),
    ],
)
def test_one_line_a_table_and_a_figure(outputs, likelihood, says):
    predictive = predictive_of(outputs, likelihood, class_names=["<a>", "b", "c"])
    assert repr(predictive) == says
    page = predictive._repr_html_()
    assert page.count("<tr>") == 1 + 5
    assert "data:image/png;base64," in page
    assert "<a>" not in page


def test_what_has_no_draws_or_has_positions_is_a_line():
    assert "<table>" not in predictive_of(LOGITS, Categorical(), max_bytes=1)._repr_html_()
    positions = predictive_of(np.tile(LOGITS[:, :, None], (1, 1, 4, 1)), Categorical())
    assert "5 inputs of 4 positions" in repr(positions)
    assert "<table>" not in positions._repr_html_()
    with pytest.raises(ValueError, match=r"these have positions of shape \(4,\)"):
        positions.plot()


def test_a_plot_draws_as_many_inputs_as_asked_and_their_targets():
    classes = predictive_of(LOGITS, Categorical(), class_names=["a", "b", "c"]).plot([2, 0, 1, 1, 0], max_inputs=2)
    assert [panel.get_title() for panel in classes.axes] == ["input 0: c", "input 1: a"]
    weights = predictive_of(LOGITS[..., :1], Normal(scale=1.0))
    weights.target_units = ("kg",)
    assert "1 target in kg" in repr(weights)
    with pytest.raises(ValueError, match=r"list of texts, such as \['mmHg'\], or None, but got 'kg'"):
        weights.target_units = "kg"
    with pytest.raises(ValueError, match=r"list of texts, such as \['setosa'\], or None, but got {"):
        weights.class_names = {"a", "b"}
    with pytest.raises(ValueError, match=r"must be 1 texts, one for each target, but got \['kg', 'm'\]"):
        weights.target_units = ("kg", "m")
    with pytest.raises(ValueError, match="must be None, because the targets are classes"):
        predictive_of(LOGITS, Categorical()).target_units = ("kg",)
    assert weights.target_units == ("kg",)
    numbers = weights.plot(np.arange(5.0))
    assert numbers.axes[0].get_ylabel() == "target (kg)"
    labels = [line.get_label() for line in numbers.axes[0].lines]
    assert labels == ["mean", "target"]
    with pytest.raises(ValueError, match=r"targets have the shape \(4,\), but there are 5 predictions"):
        predictive_of(LOGITS, Categorical()).plot([0, 1, 2, 0])


def test_a_plot_takes_targets_in_every_form_and_draws_no_missing_ones():
    one_hot = np.eye(3)[[2, 0, 1, 1, 0]]
    one_hot[0] = np.nan
    for y, missing in (([-1, 0, 1, 1, 0], -1), (one_hot, "nan")):
        classes = predictive_of(LOGITS, Categorical(missing=missing)).plot(y, max_inputs=2)
        assert [panel.get_title() for panel in classes.axes] == ["input 0", "input 1: 0"]
    (panel,) = predictive_of(LOGITS[..., :1], Normal(scale=1.0, missing=-999)).plot([-999, 1, 2, 3, 4]).axes
    np.testing.assert_array_equal(panel.lines[1].get_ydata(), [np.nan, 1, 2, 3, 4])


def test_a_plot_of_several_labels_has_the_true_ones_in_its_titles():
    y = np.array([[1, 0, 1], [0, 0, 0], [-1, 1, 1], [-1, -1, -1], [0, 1, 0]])
    figure = predictive_of(LOGITS, Bernoulli(missing=-1), class_names=["a", "b", "c"]).plot(y, max_inputs=4)
    titles = [panel.get_title() for panel in figure.axes]
    assert titles == ["input 0: a, c", "input 1: none", "input 2: b, c", "input 3"]


def test_a_notebook_computes_only_what_it_shows(monkeypatch):
    asked = []
    interval = tfp_bnn.PosteriorPredictive.interval
    monkeypatch.setattr(
        tfp_bnn.PosteriorPredictive, "interval", lambda self, level: (asked.append(len(self)), interval(self, level))[1]
    )
    page = predictive_of(np.zeros((2, 300, 1), np.float32), Normal(scale=1.0))._repr_html_()
    assert "and 294 more" in page
    assert sorted(asked) == [6, 40]


def test_many_classes_are_the_most_probable_ones():
    outputs = np.zeros((2, 1, 40), np.float32)
    outputs[:, :, 37] = 5.0
    (panel,) = predictive_of(outputs, Categorical()).plot().axes
    labels = [label.get_text() for label in panel.get_yticklabels()]
    assert len(labels) == 10
    assert "37" in labels


def test_several_outputs_are_shown_next_to_each_other():
    likelihood = Joint({"class": "categorical", "value": {"name": "normal", "scale": 1.0}})
    draws = FiniteDraws([lambda x, w=w: {"class": w * x, "value": w * x[:, :1]} for w in (1.0, 3.0)])
    joint = JointPredictive.from_draws(draws, np.ones((4, 3)), likelihood)
    frame = joint.to_dataframe()
    assert isinstance(frame, pd.DataFrame)
    assert {"class/prediction", "value/std"} <= set(frame)
    assert repr(joint).startswith("<JointPredictive of 2 outputs: 'class': <PosteriorPredictive: 4 inputs, 3 classes")
    assert joint._repr_html_().count("<table>") == 2

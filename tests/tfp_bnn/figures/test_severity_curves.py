"""Curves of scores against severity show the mean and name the worst change."""

from __future__ import annotations

import numpy as np
import pytest

from tfp_bnn.figures import severity_curves


def test_the_mean_and_the_change_that_moves_the_score_most_are_drawn():
    changes = {"fog": [0.9, 0.8, 0.7], "$noise$": [0.9, 0.7, 0.2], "blur": [0.9, 0.9, 0.9]}
    figure = severity_curves({"accuracy": changes, "ECE": {"fog": [0.0, 0.1, 0.4]}})
    accuracy, ece = figure.axes
    by_label = {line.get_label(): line.get_ydata() for line in accuracy.lines}
    np.testing.assert_allclose(by_label["mean of 3"], np.mean(list(changes.values()), axis=0))
    np.testing.assert_allclose(by_label[r"\$noise\$"], changes["$noise$"])
    assert (accuracy.get_ylabel(), ece.get_ylabel()) == ("accuracy", "ECE")


def test_a_score_that_is_nan_has_not_moved_furthest():
    figure = severity_curves({"ECE": {"fog": [0.1, np.nan], "blur": [0.1, 0.4], "noise": [0.1, 0.2]}})
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["mean of 3", "blur"]


@pytest.mark.parametrize(
    ("scores", "says"),
    [
        ({}, "is empty"),
        ({"ECE": {}}, "has 0 changes"),
        ({"ECE": {"fog": []}}, "at least one"),
        ({"ECE": {"fog": [1.0], "blur": [1.0, 2.0]}}, "the same number of severities"),
    ],
)
def test_scores_without_the_same_severities_are_refused(scores, says):
    with pytest.raises(ValueError, match=says):
        severity_curves(scores)

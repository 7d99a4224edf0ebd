"""Figures of predictive means, intervals and quantiles."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from tfp_bnn import metrics
from tfp_bnn.figures import quantile_calibration, regression_predictions, to_png

RNG = np.random.default_rng(0)
MEANS = RNG.normal(size=50)
TARGETS = MEANS + RNG.normal(size=50)
LEVELS = np.arange(1, 20) / 20
QUANTILES = MEANS + scipy.stats.norm.ppf(LEVELS)[:, None]


def test_predictions_and_intervals_stand_over_their_targets(check_figure, legend_of):
    lower, upper = QUANTILES[0], QUANTILES[-1]
    figure = regression_predictions(TARGETS, MEANS, lower, upper, names=["mass (kg)"])
    (panel,) = figure.axes
    (points,) = [line for line in panel.lines if line.get_label() == "predictive mean"]
    np.testing.assert_array_equal(np.sort(points.get_xydata(), axis=0), np.sort(np.stack([TARGETS, MEANS], 1), axis=0))
    segments = panel.collections[0].get_segments()
    order = np.argsort(TARGETS)
    np.testing.assert_allclose([segment[:, 1] for segment in segments], np.stack([lower, upper], axis=1)[order])
    coverage = metrics.interval_coverage(TARGETS, lower, upper)
    assert panel.get_title() == f"{100 * coverage:.1f} % of 50 targets in their 90 % intervals"
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("mass (kg), true", "mass (kg), predicted")
    assert legend_of(figure) == ["90 % interval", "predictive mean", "prediction = target"]
    check_figure(figure)


def test_of_many_rows_the_intervals_of_200_are_drawn(legend_of):
    y = np.arange(1000.0)
    figure = regression_predictions(y, y, y - 1, y + 1, level=0.5)
    assert len(figure.axes[0].collections[0].get_segments()) == 200
    assert legend_of(figure)[0] == "50 % interval (200 of 1,000)"


@pytest.mark.parametrize("outputs", [1, 2, 4])
def test_every_output_has_its_panel(outputs, check_figure):
    y = RNG.normal(size=(7, outputs))
    figure = regression_predictions(y, y, y - 1, y + 1)
    drawn = [panel for panel in figure.axes if panel.axison]
    assert len(drawn) == outputs
    assert drawn[-1].get_xlabel() == ("target, true" if outputs == 1 else f"target {outputs - 1}, true")
    to_png(figure, dpi=40)


@pytest.mark.parametrize("value", [0.0, -3.0, 1e20])
def test_predictions_of_one_row_and_of_constants(value, check_figure):
    for rows in (1, 4):
        y = np.full(rows, value)
        check_figure(regression_predictions(y, y, y, y))
        check_figure(quantile_calibration(y, [y], [0.5]))


def test_predictions_refuse():
    with pytest.raises(ValueError, match="Shapes must be equal"):
        regression_predictions(TARGETS, MEANS[:, None], TARGETS, TARGETS)
    with pytest.raises(ValueError, match="at least one value"):
        regression_predictions([], [], [], [])
    with pytest.raises(ValueError, match="Were they swapped"):
        regression_predictions(TARGETS, MEANS, TARGETS + 1, TARGETS)
    with pytest.raises(ValueError, match="`level` must be a number above 0"):
        regression_predictions(TARGETS, MEANS, TARGETS, TARGETS, level=90)
    with pytest.raises(ValueError, match="must hold 1 names"):
        regression_predictions(TARGETS, MEANS, TARGETS, TARGETS, names=["a", "b"])


def test_shares_below_quantiles_and_inside_intervals(check_figure, legend_of):
    figure = quantile_calibration(TARGETS, QUANTILES, LEVELS)
    _, below, inside = figure.axes[0].lines
    np.testing.assert_allclose(below.get_xdata(), LEVELS)
    np.testing.assert_allclose(below.get_ydata(), [np.mean(q >= TARGETS) for q in QUANTILES])
    np.testing.assert_allclose(inside.get_xdata(), np.arange(9, 0, -1) / 10)
    coverage = [metrics.interval_coverage(TARGETS, QUANTILES[i], QUANTILES[18 - i]) for i in range(9)]
    np.testing.assert_allclose(inside.get_ydata(), coverage)
    error = metrics.quantile_calibration_error(TARGETS, QUANTILES, LEVELS)
    assert figure.axes[0].get_title() == f"Quantiles of 50 targets: calibration error {error:.4f}"
    assert legend_of(figure) == ["perfectly calibrated", "targets below the quantile", "targets in the interval"]
    check_figure(figure)


def test_no_intervals_without_symmetric_levels(legend_of):
    figure = quantile_calibration(TARGETS, QUANTILES[:3], LEVELS[:3])
    assert "targets in the interval" not in legend_of(figure)


def test_quantiles_refuse():
    with pytest.raises(ValueError, match="must ascend"):
        quantile_calibration(TARGETS, QUANTILES[::-1], LEVELS[::-1])
    with pytest.raises(ValueError, match="`levels` must be 19 numbers"):
        quantile_calibration(TARGETS, QUANTILES, LEVELS[:-1])
    with pytest.raises(ValueError, match="must have the shape of the targets"):
        quantile_calibration(TARGETS[:-1], QUANTILES, LEVELS)

"""Figures of predictive distributions over one input."""

from __future__ import annotations

import numpy as np
import pytest

from tfp_bnn.figures import regression_curves

X = np.linspace(-1.0, 1.0, 5)
DATA = (np.array([-0.5, 0.5]), np.array([-0.2, 0.3]))
LINE = (X[:, np.newaxis], np.full((5, 1), 0.04), np.full((5, 1), 0.05))


def test_bands_are_two_standard_deviations_of_the_mean_and_of_the_target(check_figure, legend_of):
    figure = regression_curves(X, {"a line": LINE, "a point": (X, 0 * X, 0 * X)}, DATA, axis_names=("t (s)", "z (m)"))
    assert [panel.get_title() for panel in figure.axes] == ["a line", "a point"]
    panel = figure.axes[0]
    (mean, points) = panel.lines
    np.testing.assert_array_equal(mean.get_xydata(), np.stack([X, X], axis=1))
    np.testing.assert_array_equal(points.get_xydata(), np.stack(DATA, axis=1))
    for band, reach in zip(panel.collections, (2 * 0.3, 2 * 0.2), strict=True):
        y = band.get_paths()[0].vertices[:, 1]
        assert (y.min(), y.max()) == pytest.approx((-1 - reach, 1 + reach))
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("t (s)", "z (m)")
    assert len(legend_of(figure)) == 4
    check_figure(figure, size=None)


def test_empty_places_of_the_grid_have_no_panel():
    figure = regression_curves(X, {str(k): LINE for k in range(5)}, DATA, columns=3)
    assert sum(panel.axison for panel in figure.axes) == 5


def test_curves_refuse():
    with pytest.raises(ValueError, match="`predictions` is empty"):
        regression_curves(X, {}, DATA)
    with pytest.raises(ValueError, match="`columns` must be at least 1"):
        regression_curves(X, {"a": LINE}, DATA, columns=0)
    with pytest.raises(ValueError, match=r"`predictions\['a'\]` must hold 5 finite numbers"):
        regression_curves(X, {"a": (X[:-1], X, X)}, DATA)
    with pytest.raises(ValueError, match=r"variances must not be negative; got 3 arrays"):
        regression_curves(X, {"a": (X, X, 0 * X)}, DATA)
    with pytest.raises(ValueError, match="`data` must hold 2 finite numbers"):
        regression_curves(X, {"a": LINE}, ([0.0, 1.0], [np.nan, 0.0]))

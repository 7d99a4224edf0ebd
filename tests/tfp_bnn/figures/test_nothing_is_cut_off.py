"""No text of a figure is cut off at its edge, however long the numbers and the names are."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from tfp_bnn import figures

RNG = np.random.default_rng(0)
N = 12_345
P, LABELS = RNG.dirichlet(np.full(10, 0.3), N), RNG.integers(0, 10, N)
TARGETS = 1e5 * RNG.normal(size=(N, 1))
NAMES = [f"a class with a long name {index}" for index in range(10)]
TITLE = "12345: a class with a very long name of it"
DRAWS = RNG.dirichlet(np.ones(10), (5, 4))

FIGURES = {
    "reliability": lambda: figures.reliability_diagram(LABELS, P),
    "confidence": lambda: figures.confidence_histogram(LABELS, P),
    "confusion": lambda: figures.confusion_matrix(LABELS, P, NAMES),
    "risk": lambda: figures.risk_coverage(LABELS, P, {"mutual information": RNG.random(N), "entropy": RNG.random(N)}),
    "predictions": lambda: figures.regression_predictions(TARGETS, TARGETS, TARGETS - 1, TARGETS + 1),
    "quantiles": lambda: figures.quantile_calibration(TARGETS, [TARGETS - 1, TARGETS, TARGETS + 1], [0.1, 0.5, 0.9]),
    "uncertainty": lambda: figures.uncertainty_histograms(
        1e5 * RNG.random(N), 1e5 * RNG.random(N), "epistemic standard deviation", "units of the target"
    ),
    "kl": lambda: figures.kl_by_layer({"a_very_long_name_of_a_layer/with_parts": 1_234_567.8, "b": 3.0}),
    "classes": lambda: figures.class_predictions(DRAWS, [TITLE] * 4, NAMES),
    "numbers": lambda: figures.number_predictions(TARGETS[:9], TARGETS[:9] - 1, TARGETS[:9] + 1, TARGETS[:9]),
    "images": lambda: figures.image_predictions(RNG.random((4, 8, 8, 1)), DRAWS, [TITLE] * 4, NAMES, columns=3),
    "severity": lambda: figures.severity_curves({"NLL (nats per example)": {"a very long corruption": [1.0, 2.0]}}),
}


def texts_outside(figure):
    """Titles, labels, legends and annotations of a figure that leave it, with their distances from its edges."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer, edge = canvas.get_renderer(), figure.bbox
    texts = [text for legend in figure.legends for text in legend.get_texts()]
    if figure._supxlabel is not None:
        texts.append(figure._supxlabel)
    for panel in figure.axes:
        # Labels of ticks beyond the view are never drawn.
        axes = (panel.xaxis, panel.yaxis) if panel.axison else ()
        ticks = [tick.label1 for axis in axes for tick in axis._update_ticks() if tick.label1.get_visible()]
        titles = [panel.title, panel._left_title, panel.xaxis.label, panel.yaxis.label]
        legend = panel.get_legend()
        texts += [*ticks, *titles, *panel.texts, *([] if legend is None else legend.get_texts())]
    found = {}
    for text in texts:
        box = text.get_window_extent(renderer)
        beyond = max(-box.x0, -box.y0, box.x1 - edge.width, box.y1 - edge.height)
        if text.get_text().strip() and beyond > 1:
            found[text.get_text()] = beyond
    return found


@pytest.mark.parametrize("name", FIGURES)
def test_all_texts_are_inside(name):
    assert texts_outside(FIGURES[name]()) == {}

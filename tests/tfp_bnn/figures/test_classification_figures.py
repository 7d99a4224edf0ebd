"""Figures of class probabilities: what they draw is what the metrics say, in the extreme cases too."""

from __future__ import annotations

import numpy as np
import pytest

from tfp_bnn import metrics
from tfp_bnn.figures import (
    confidence_histogram,
    decision_surface,
    image_predictions,
    kl_by_layer,
    reliability_diagram,
    risk_coverage,
    to_png,
    uncertainty_histograms,
)

RNG = np.random.default_rng(0)
SAMPLES = RNG.dirichlet([0.3, 0.3, 0.3], size=(6, 200)).astype(np.float32)
PROBABILITIES = SAMPLES.mean(axis=0)
LABELS = np.where(RNG.random(200) < 0.8, PROBABILITIES.argmax(axis=1), 0)

# Labels and probabilities.
EXTREMES = {
    "one row": ([1], [[0.3, 0.7]]),
    "all right": ([0, 1, 1], [[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]),
    "all wrong": ([1, 0, 0], [[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]),
    "exactly 0 and 1": ([0, 1, 1], [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]),
    "a class missing": ([0, 1, 0], [[0.5, 0.2, 0.3], [0.1, 0.8, 0.1], [0.0, 0.1, 0.9]]),
    "all undecided": ([0, 1], [[0.5, 0.5], [0.5, 0.5]]),
    "edges of bins": ([0, 1, 2], np.float32([[0.6, 0.4, 0.0], [0.2, 0.8, 0.0], [0.2, 0.4, 0.4]])),
    "above 1 by rounding": ([0, 0], np.float32([[1.0000001, 0.0], [1.0000002, 0.0]])),
    "one-hot labels": ([[1, 0], [0, 1]], [[0.9, 0.1], [0.6, 0.4]]),
}
extremes = pytest.mark.parametrize(("labels", "probabilities"), EXTREMES.values(), ids=list(EXTREMES))
WRONG = {
    "logits": (LABELS, 5 * PROBABILITIES - 1, "softmax"),
    "no rows": (LABELS[:0], PROBABILITIES[:0], "no empty axis"),
    "other rows": (LABELS[:-1], PROBABILITIES, r"`labels` must have shape \(200,\)"),
    "label out of range": (LABELS + 3, PROBABILITIES, "must lie from 0 to 2"),
    "NaN": (LABELS, PROBABILITIES * np.nan, "finite"),
}
wrong = pytest.mark.parametrize(("labels", "probabilities", "says"), WRONG.values(), ids=list(WRONG))


# === Reliability diagram ===


def test_reliability_points_are_those_of_the_metric(check_figure, legend_of):
    figure = reliability_diagram(LABELS, PROBABILITIES, num_bins=10)
    data = metrics.reliability_diagram(LABELS, PROBABILITIES, 10)
    filled = data.counts > 0
    assert 0 < filled.sum() < 10
    panel, counts = figure.axes
    (points,) = [line for line in panel.lines if line.get_label() == "accuracy in a bin"]
    np.testing.assert_allclose(points.get_xdata(), data.confidence[filled])
    np.testing.assert_allclose(points.get_ydata(), data.accuracy[filled])
    assert [bar.get_height() for bar in counts.patches] == data.counts[filled].tolist()
    error = metrics.expected_calibration_error(LABELS, PROBABILITIES, 10)
    assert panel.get_title() == f"Reliability of 200 examples: ECE {error:.4f}"
    assert legend_of(figure) == ["perfectly calibrated", "accuracy in a bin", "its 90 % interval"]
    check_figure(figure)


def test_reliability_intervals_hold_the_accuracy():
    import scipy.stats

    # Bins of 10 rows with 7 right, 1 row right and 1 row wrong.
    labels = np.array([0] * 7 + [1] * 3 + [0, 1])
    p = np.array([0.75] * 10 + [0.95, 0.55])
    panel = reliability_diagram(labels, np.stack([p, 1 - p], axis=1)).axes[0]
    (intervals,) = panel.collections
    ends = np.array([segment[:, 1] for segment in intervals.get_segments()])
    jeffreys = scipy.stats.beta.ppf([0.05, 0.95], 7.5, 3.5)
    np.testing.assert_allclose(ends[1], jeffreys)
    assert ends[0, 0] == 0
    assert 0.5 < ends[0, 1] < 1
    assert ends[2, 1] == 1
    assert 0 < ends[2, 0] < 0.5


@extremes
def test_reliability_of_extremes(labels, probabilities, check_figure):
    check_figure(reliability_diagram(labels, probabilities))


@wrong
def test_reliability_refuses(labels, probabilities, says):
    with pytest.raises(ValueError, match=says):
        reliability_diagram(labels, probabilities)


# === Confidence histogram ===


def test_confidences_of_right_and_wrong_are_counted_apart(check_figure, legend_of):
    figure = confidence_histogram(LABELS, PROBABILITIES)
    right = PROBABILITIES.argmax(axis=1) == LABELS
    steps = [patch.get_data() for patch in figure.axes[0].patches]
    for step, rows in zip(steps, (right, ~right), strict=True):
        counts, _ = np.histogram(PROBABILITIES.max(axis=1)[rows], step.edges)
        np.testing.assert_array_equal(step.values, counts)
        assert counts.sum() == rows.sum()
    assert steps[0].edges[0] == pytest.approx(1 / 3)
    assert legend_of(figure) == [
        f"right: {right.sum()}",
        f"wrong: {(~right).sum()}",
        f"accuracy {metrics.accuracy(LABELS, PROBABILITIES):.4f}",
        f"mean confidence {PROBABILITIES.max(axis=1).mean():.4f}",
    ]
    check_figure(figure)


@extremes
def test_confidences_of_extremes(labels, probabilities, check_figure):
    figure = confidence_histogram(labels, probabilities)
    # Every row is in a bin.
    assert sum(patch.get_data().values.sum() for patch in figure.axes[0].patches) == len(labels)
    check_figure(figure)


@wrong
def test_confidences_refuse(labels, probabilities, says):
    with pytest.raises(ValueError, match=says):
        confidence_histogram(labels, probabilities)


# === Risk-coverage curve ===


def test_risk_curves_are_those_of_the_metric_between_oracle_and_chance(check_figure, legend_of):
    entropy, information = metrics.predictive_entropy(PROBABILITIES), metrics.mutual_information(SAMPLES)
    figure = risk_coverage(LABELS, PROBABILITIES, {"entropy": entropy, "mutual information": information})
    curve = metrics.risk_coverage_curve(LABELS, PROBABILITIES, entropy)
    drawn, _, oracle, chance = figure.axes[0].lines
    np.testing.assert_array_equal(drawn.get_xdata(), curve.coverage)
    np.testing.assert_array_equal(drawn.get_ydata(), curve.risk)
    errors = np.sort(PROBABILITIES.argmax(axis=1) != LABELS)
    np.testing.assert_allclose(oracle.get_ydata(), errors.cumsum() / np.arange(1, 201))
    assert (oracle.get_ydata() <= curve.risk + 1e-12).all()
    assert list(chance.get_ydata()) == [errors.mean()] * 2
    areas = [metrics.area_under_risk_coverage(LABELS, PROBABILITIES, scores) for scores in (entropy, information)]
    assert legend_of(figure) == [
        f"entropy: area {areas[0]:.3g}",
        f"mutual information: area {areas[1]:.3g}",
        f"oracle: area {oracle.get_ydata().mean():.3g}",
        f"chance: area {errors.mean():.3g}",
    ]
    check_figure(figure)


def test_a_constant_uncertainty_is_no_better_than_chance(check_figure):
    figure = risk_coverage(LABELS, PROBABILITIES, {"constant": np.ones(200)})
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), np.mean(PROBABILITIES.argmax(axis=1) != LABELS))
    check_figure(figure)


@extremes
def test_risk_of_extremes(labels, probabilities, check_figure):
    check_figure(risk_coverage(labels, probabilities, {"entropy": metrics.predictive_entropy(probabilities)}))


@wrong
def test_risk_refuses(labels, probabilities, says):
    with pytest.raises(ValueError, match=says):
        risk_coverage(labels, probabilities, {"entropy": np.ones(200)})


def test_risk_refuses_uncertainties_that_do_not_fit():
    with pytest.raises(ValueError, match="at least one array"):
        risk_coverage(LABELS, PROBABILITIES, {})
    with pytest.raises(ValueError, match=r"`uncertainty` must have shape \(200,\)"):
        risk_coverage(LABELS, PROBABILITIES, {"entropy": np.ones(199)})


# === Histograms of uncertainty ===


def test_histograms_are_shares_over_common_bins(check_figure, legend_of):
    inside, outside = RNG.exponential(0.1, 300), RNG.normal(1.0, 0.1, 50)
    figure = uncertainty_histograms(inside, outside, "mutual information")
    first, second = (patch.get_data() for patch in figure.axes[0].patches)
    np.testing.assert_array_equal(first.edges, second.edges)
    assert first.edges[0] == 0
    np.testing.assert_allclose(first.values, np.histogram(inside, first.edges)[0] / 300)
    assert first.values.sum() == pytest.approx(1)
    assert second.values.sum() == pytest.approx(1)
    assert figure.axes[0].get_xlabel() == "mutual information (nats)"
    assert legend_of(figure) == [
        f"in distribution: mean {inside.mean():.3g} of 300",
        f"out of distribution: mean {outside.mean():.3g} of 50",
    ]
    check_figure(figure)


@pytest.mark.parametrize("values", [[0.0], [0.0, 0.0, 0.0], [0.7] * 5, [-2.0, -2.0], [1e30], [-1.4, 0.3], [1e-300, 0]])
def test_histograms_of_extremes_lose_no_row(values, check_figure):
    figure = uncertainty_histograms(values)
    assert figure.axes[0].patches[0].get_data().values.sum() == pytest.approx(1)
    check_figure(figure)


def test_histograms_refuse():
    for values in ([], [[0.1]], [np.nan]):
        with pytest.raises(ValueError, match="`in_distribution` must"):
            uncertainty_histograms(values)
        with pytest.raises(ValueError, match="`out_of_distribution` must"):
            uncertainty_histograms([0.1], values)


# === Decision surface ===


def certain_on_the_right(points: np.ndarray) -> np.ndarray:
    """Two draws that agree where x1 > 0, and contradict each other elsewhere."""
    first = np.where(points[:, 0] > 0, 1.0, 0.0)
    second = np.ones(len(points))
    return np.stack([np.stack([1 - p, p], axis=-1) for p in (first, second)])


def test_surface_shows_probability_and_mutual_information(check_figure, legend_of):
    asked = []

    def predict(points):
        asked.append(points)
        return certain_on_the_right(points)

    names = np.array(["no", "yes"])
    figure = decision_surface(predict, [[-1, 0], [1, 2]], [0, 1], names, ("length (m)", "mass (kg)"), 20)
    (points,) = asked
    assert points.shape == (400, 2)
    assert points.dtype == np.float32
    # 40 % of the range beyond the data.
    np.testing.assert_allclose([points.min(axis=0), points.max(axis=0)], [[-1.8, -0.8], [1.8, 2.8]], rtol=1e-6)
    left, right = figure.axes[:2]
    probability, information = left.collections[0].get_array(), right.collections[0].get_array()
    on_the_right = points[:, 0].reshape(20, 20) > 0
    np.testing.assert_allclose(probability, np.where(on_the_right, 1.0, 0.5))
    np.testing.assert_allclose(information, np.where(on_the_right, 0.0, np.log(2)))
    assert left.get_title() == "Probability of yes"
    assert [left.get_xlabel(), right.get_xlabel(), left.get_ylabel()] == ["length (m)", "length (m)", "mass (kg)"]
    assert figure.axes[-1].get_ylabel() == "mutual information (nats)"
    assert legend_of(figure) == ["no", "yes"]
    check_figure(figure, size=(10.0, 4.4))


@pytest.mark.parametrize("classes", [2, 3, 9])
@pytest.mark.parametrize("rows", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_surface_of_few_points_and_any_number_of_classes(classes, rows, check_figure, legend_of):
    x = np.zeros((rows, 2))
    figure = decision_surface(
        lambda points: np.full((1, len(points), classes), 1 / classes), x, np.zeros(rows, int), resolution=4
    )
    assert legend_of(figure) == [f"class {index}" for index in range(classes)]
    check_figure(figure, size=(10.0, 4.4))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"x": np.ones((2, 3))}, r"of shape \(n, 2\)"),
        ({"x": np.ones((0, 2))}, "at least one"),
        ({"x": np.full((2, 2), np.inf)}, "finite"),
        ({"labels": [0, 2]}, "must lie from 0 to 1"),
        ({"labels": [0]}, "`labels` must have shape"),
        ({"class_names": ["one"]}, "must hold 2 names"),
        ({"axis_names": ["one"]}, "2 axis_names"),
        ({"resolution": 1}, "resolution >= 2"),
        ({"predict": lambda points: np.full((1, 3, 2), 0.5)}, "gave 3 rows for 16 points"),
        ({"predict": lambda points: np.full((1, len(points), 2), 2.0)}, "must sum to 1"),
    ],
)
def test_surface_refuses(change, says):
    arguments = {"predict": certain_on_the_right, "x": np.eye(2), "labels": [0, 1], "resolution": 4, **change}
    with pytest.raises(ValueError, match=says):
        decision_surface(**arguments)


# === Images ===


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_stand_beside_their_probabilities(count, channels):
    images = RNG.uniform(0, 255, size=(count, 6, 6, channels)).astype(np.float32)
    figure = image_predictions(images, SAMPLES[:, :count], [f"true: {index}" for index in range(count)], "abc")
    drawn = [panel for panel in figure.axes if panel.axison]
    assert len(drawn) == count
    for index, panel in enumerate(drawn):
        np.testing.assert_allclose([bar.get_width() for bar in panel.patches], PROBABILITIES[index], rtol=1e-6)
        low, high = np.quantile(SAMPLES[:, index], [0.05, 0.95], axis=0)
        ends = np.array([segment[:, 0] for segment in panel.collections[0].get_segments()])
        np.testing.assert_allclose(ends, np.stack([low, high], axis=1))
        assert [label.get_text() for label in panel.get_yticklabels()] == ["a", "b", "c"]
        below = [other for other in drawn if other.get_subplotspec().colspan == panel.get_subplotspec().colspan]
        assert bool(panel.get_xlabel()) == (panel is below[-1])
    titles = [panel.get_title(loc="left") for panel in figure.axes if panel.images]
    assert titles == [f"true: {index}" for index in range(count)]
    to_png(figure)


def test_the_true_class_stands_out():
    figure = image_predictions(np.zeros((2, 6, 6, 1)), SAMPLES[:, :2], ["x", "y"], "abc", labels=np.array([2, 0]))
    for label, panel in zip((2, 0), [panel for panel in figure.axes if panel.axison], strict=True):
        others = {bar.get_facecolor() for index, bar in enumerate(panel.patches) if index != label}
        assert len(others) == 1
        assert panel.patches[label].get_facecolor() not in others
        bold = [name.get_fontweight() == "bold" for name in panel.get_yticklabels()]
        assert bold == [index == label for index in range(3)]


def test_colours_of_raw_pixels_are_not_cut_off():
    floats = np.linspace(0, 255, 75, dtype=np.float32).reshape(1, 5, 5, 3)
    (shown,) = image_predictions(floats, SAMPLES[:, :1], ["x"], "abc").axes[0].images
    np.testing.assert_allclose(shown.get_array(), floats[0] / 255, atol=1e-6)
    for kept in (floats.astype(np.uint8), floats / 255, np.zeros_like(floats)):
        (shown,) = image_predictions(kept, SAMPLES[:, :1], ["x"], "abc").axes[0].images
        np.testing.assert_array_equal(shown.get_array(), kept[0])


def test_images_refuse_what_does_not_belong_together():
    images = np.zeros((2, 6, 6, 1))
    for arguments in ((images, SAMPLES[:, :3], ["a", "b"], "abc"), (images, SAMPLES[:, :2], ["a"], "abc")):
        with pytest.raises(ValueError, match="2 titles for 2 images"):
            image_predictions(*arguments)
    with pytest.raises(ValueError, match="at least one"):
        image_predictions(images[:0], SAMPLES[:, :0], [], "abc")
    with pytest.raises(ValueError, match="1 or 3 channels"):
        image_predictions(images[..., 0], SAMPLES[:, :2], ["a", "b"], "abc")
    for labels in (np.array([0]), np.array([0, 3])):
        with pytest.raises(ValueError, match="2 labels from 0 to 2"):
            image_predictions(images, SAMPLES[:, :2], ["a", "b"], "abc", labels=labels)


# === KL by layer ===


def test_kl_has_a_bar_for_each_term(check_figure):
    terms = {"conv1": 12.0, "prior/shared": -0.5, "logits": np.float32(1000.25)}
    figure = kl_by_layer(terms)
    (panel,) = figure.axes
    assert [bar.get_width() for bar in panel.patches] == [12.0, -0.5, 1000.25]
    assert [label.get_text() for label in panel.get_yticklabels()] == list(terms)
    assert panel.get_title() == "KL(posterior || prior): 1,011.8 nats in all"
    assert panel.get_xlabel() == "KL (nats)"
    assert panel.yaxis_inverted()
    to_png(figure)


@pytest.mark.parametrize("terms", [{"a": 0.0}, {"a": -1.0}, {f"layer {i}": float(i) for i in range(110)}, {"a": 1e30}])
def test_kl_of_extremes(terms):
    figure = kl_by_layer(terms)
    assert figure.get_size_inches()[1] <= 30
    to_png(figure, dpi=30)


def test_kl_refuses():
    with pytest.raises(ValueError, match="at least one layer"):
        kl_by_layer({})
    with pytest.raises(ValueError, match="is not for 'b'"):
        kl_by_layer({"a": 1.0, "b": np.nan})


# === All ===


@pytest.mark.slow
@pytest.mark.parametrize("name", ["$a$ and $\\nonsense$", "_hidden", "a\nb\x00", "x" * 300])
def test_odd_names_are_drawn_as_they_are(name):
    images = np.zeros((1, 3, 3, 1))
    figures = [
        kl_by_layer({name: 1.0}),
        image_predictions(images, SAMPLES[:, :1], [name], [name, "b", "c"]),
        decision_surface(certain_on_the_right, np.eye(2), [0, 1], [name, "b"], (name, name), 4),
        uncertainty_histograms([0.1], name=name, unit=name),
        risk_coverage([0], [[0.9, 0.1]], {name: [0.3]}),
    ]
    for figure in figures:
        to_png(figure, dpi=50)
    label = figures[0].axes[0].get_yticklabels()[0]
    shown = label._preprocess_math(label.get_text())
    assert shown[1] is False
    if len(name) < 40 and name.isprintable():
        assert shown[0].replace(r"\$", "$") == name


def test_the_same_figure_is_the_same_bytes():
    first, second = (to_png(reliability_diagram(LABELS, PROBABILITIES)) for _ in range(2))
    assert first == second


def test_figures_leave_pyplot_alone():
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    to_png(reliability_diagram(LABELS, PROBABILITIES), dpi=30)
    assert plt.get_fignums() == before

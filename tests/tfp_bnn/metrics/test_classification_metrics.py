"""Classification metrics against scikit-learn, SciPy, TensorFlow Probability and direct formulas."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import scipy.stats
import sklearn.metrics
import tensorflow_probability as tfp

from tfp_bnn import metrics

Scored = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]

ON_LABELS = [metrics.accuracy, metrics.nll, metrics.brier_score, metrics.expected_calibration_error]
ON_SAMPLES = [metrics.expected_entropy, metrics.mutual_information]


def random_predictions(num_rows: int = 400, num_classes: int = 5, seed: int = 0) -> Scored:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(num_classes, 0.4), size=num_rows)
    return rng.integers(num_classes, size=num_rows), probabilities


def loop_ece(labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.floating], num_bins: int) -> float:
    """The definition of Guo et al. (2017), bin by bin; rounds as a human would, so edges hold to 9 digits."""
    total = 0.0
    confidence = np.round(probabilities.max(axis=1).astype(np.float64), 9)
    correct = probabilities.argmax(axis=1) == labels
    for b in range(num_bins):
        low, high = round(b / num_bins, 9), round((b + 1) / num_bins, 9)
        rows = (confidence > low) & (confidence <= high)
        if rows.any():
            total += rows.mean() * abs(correct[rows].mean() - confidence[rows].mean())
    return total


# === Against independent references ===


@pytest.mark.parametrize("num_classes", [2, 5])
def test_scores_equal_scikit_learn(num_classes: int) -> None:
    labels, p = random_predictions(num_classes=num_classes)
    classes = list(range(num_classes))
    assert metrics.accuracy(labels, p) == pytest.approx(sklearn.metrics.accuracy_score(labels, p.argmax(axis=1)))
    assert metrics.nll(labels, p) == pytest.approx(sklearn.metrics.log_loss(labels, p, labels=classes), rel=1e-12)
    one_hot = np.eye(num_classes)[labels]
    brier = num_classes * sklearn.metrics.mean_squared_error(one_hot, p)
    assert metrics.brier_score(labels, p) == pytest.approx(brier, rel=1e-12)


def test_brier_score_of_two_classes_is_twice_the_binary_one() -> None:
    labels, p = random_predictions(num_classes=2)
    binary = sklearn.metrics.brier_score_loss(labels, p[:, 1])
    assert metrics.brier_score(labels, p) == pytest.approx(2 * binary, rel=1e-12)


@pytest.mark.parametrize("num_bins", [1, 10, 15])
def test_ece_equals_tfp_and_the_definition(num_bins: int) -> None:
    labels, p = random_predictions()
    ours = metrics.expected_calibration_error(labels, p, num_bins=num_bins)
    theirs = tfp.stats.expected_calibration_error(
        num_bins, logits=np.log(p).astype(np.float32), labels_true=labels.astype(np.int32)
    )
    assert ours == pytest.approx(float(theirs), abs=1e-5)
    assert ours == pytest.approx(loop_ece(labels, p, num_bins), abs=1e-8)


def test_entropies_equal_scipy() -> None:
    _, p = random_predictions()
    np.testing.assert_allclose(metrics.predictive_entropy(p), scipy.stats.entropy(p, axis=1), rtol=1e-12)
    samples = np.stack([random_predictions(seed=seed)[1] for seed in range(7)])
    expected = scipy.stats.entropy(samples, axis=2).mean(axis=0)
    np.testing.assert_allclose(metrics.expected_entropy(samples), expected, rtol=1e-12)


def test_mutual_information_is_the_mean_divergence_from_the_mean() -> None:
    samples = np.stack([random_predictions(seed=seed)[1] for seed in range(7)])
    divergence = scipy.stats.entropy(samples, samples.mean(axis=0)[np.newaxis], axis=2).mean(axis=0)
    np.testing.assert_allclose(metrics.mutual_information(samples), divergence, rtol=1e-9)


def test_entropy_is_the_sum_of_its_parts() -> None:
    samples = np.stack([random_predictions(seed=seed)[1] for seed in range(7)])
    parts = metrics.expected_entropy(samples) + metrics.mutual_information(samples)
    np.testing.assert_allclose(parts, metrics.predictive_entropy(samples.mean(axis=0)), rtol=1e-12)


# === Edge cases ===


@pytest.mark.parametrize("metric", ON_LABELS)
@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.bool_])
def test_one_hot_labels_are_the_same_as_integers(metric: Callable[..., float], dtype: type) -> None:
    labels, p = random_predictions(num_rows=50)
    assert metric(np.eye(5, dtype=dtype)[labels], p) == metric(labels, p)


@pytest.mark.parametrize("metric", ON_LABELS)
def test_float32_is_summed_in_float64(metric: Callable[..., float]) -> None:
    labels, p = random_predictions(num_rows=2000)
    single = p.astype(np.float32)
    assert metric(labels.astype(np.uint8), single) == pytest.approx(
        metric(labels, single.astype(np.float64)), rel=1e-12
    )


def test_a_class_without_rows_changes_nothing() -> None:
    labels, p = random_predictions(num_classes=3)
    padded = np.pad(p, ((0, 0), (0, 1)))
    for metric in ON_LABELS:
        assert metric(labels, padded) == pytest.approx(metric(labels, p), rel=1e-12)
    np.testing.assert_allclose(metrics.predictive_entropy(padded), metrics.predictive_entropy(p))


def test_one_row() -> None:
    labels, p = [1], [[0.3, 0.7]]
    assert metrics.accuracy(labels, p) == 1.0
    assert metrics.nll(labels, p) == pytest.approx(-np.log(0.7))
    assert metrics.brier_score(labels, p) == pytest.approx(0.18)
    assert metrics.expected_calibration_error(labels, p) == pytest.approx(0.3)


def test_all_right_and_sure() -> None:
    labels = np.arange(4)
    for metric, expected in zip(ON_LABELS, [1.0, 0.0, 0.0, 0.0], strict=True):
        assert metric(labels, np.eye(4)) == expected


def test_all_wrong_and_sure() -> None:
    labels = np.arange(4)
    p = np.roll(np.eye(4), 1, axis=1)
    floor_nats = -np.log(np.finfo(np.float32).tiny)
    for metric, expected in zip(ON_LABELS, [0.0, floor_nats, 2.0, 1.0], strict=True):
        assert metric(labels, p) == pytest.approx(expected)


def test_probabilities_of_exactly_0_and_1_have_no_entropy() -> None:
    p = np.array([[0.0, 1.0], [1.0, 0.0]])
    np.testing.assert_array_equal(metrics.predictive_entropy(p), [0.0, 0.0])
    np.testing.assert_array_equal(metrics.expected_entropy([p, p]), [0.0, 0.0])


def test_rounding_above_1_gives_no_negative_nats() -> None:
    p = np.array([[1.0 + 1e-6, 0.0]])
    assert metrics.nll([0], p) == 0.0
    assert metrics.predictive_entropy(p).tolist() == [0.0]
    assert metrics.mutual_information([p, p]).tolist() == [0.0]


def test_mutual_information_is_0_for_one_sample_and_log_2_for_two_that_disagree() -> None:
    _, p = random_predictions()
    np.testing.assert_array_equal(metrics.mutual_information(p[np.newaxis]), np.zeros(len(p)))
    opposite = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])
    np.testing.assert_allclose(metrics.mutual_information(opposite), [np.log(2)])


def test_of_equally_probable_classes_the_first_is_predicted() -> None:
    assert metrics.accuracy([0, 1], [[0.5, 0.5], [0.5, 0.5]]) == 0.5


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("num_bins", [5, 10, 15, 20])
def test_ties_at_bin_edges_belong_to_the_lower_bin(num_bins: int, dtype: type) -> None:
    top = np.arange((num_bins + 1) // 2, num_bins + 1) / num_bins
    # One row on each edge and, just as sure but wrong, one above it: in another bin, the gaps do not cancel.
    top = np.concatenate([top, np.minimum(top + 0.01, 1.0)])
    p = np.stack([top, 1.0 - top], axis=1).astype(dtype)
    labels = np.repeat([0, 1], len(top) // 2)
    ours = metrics.expected_calibration_error(labels, p, num_bins=num_bins)
    assert ours == pytest.approx(loop_ece(labels, p.astype(np.float64).round(6), num_bins), abs=1e-6)


def test_bins_are_open_below_and_closed_above() -> None:
    # With two bins 0.5 is alone in the first one: |1 - 0.5| / 2 + |0 - 0.6| / 2. In one bin the gaps partly cancel.
    labels, p = [0, 1], [[0.5, 0.5], [0.6, 0.4]]
    assert metrics.expected_calibration_error(labels, p, num_bins=2) == pytest.approx(0.55)
    assert metrics.expected_calibration_error(labels, p, num_bins=1) == pytest.approx(0.05)


def test_a_calibrated_model_has_a_small_ece() -> None:
    # Of 100 rows with top probability 0.8, 80 are right.
    labels = np.repeat([0, 1], [80, 20])
    assert metrics.expected_calibration_error(labels, np.tile([0.8, 0.2], (100, 1))) == pytest.approx(0.0, abs=1e-12)


# === Refusals ===


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 1], r"`labels` must have shape \(2,\) or, one-hot, \(2, 3\) .* got \(3,\)"),
        ([[0], [1]], r"got \(2, 1\)\. .* labels\[:, 0\]"),
        ([0, 3], "must lie from 0 to 2 for 3 classes, but range from 0 to 3"),
        ([-1, 0], "range from -1 to 0"),
        ([0.0, 1.0], "must be integers, but got the dtype float64"),
        ([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]], "must hold a single 1 per row"),
        ([[1, 1, 0], [1, 0, 0]], "must hold a single 1 per row"),
        ([[0, 0, 0], [1, 0, 0]], "must hold a single 1 per row"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: npt.ArrayLike, message: str) -> None:
    for metric in ON_LABELS:
        with pytest.raises(ValueError, match=message):
            metric(labels, [[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])


BAD_ROWS = [
    ([[np.nan, 1.0]], "must be finite, but 1 of 2 values"),
    ([[np.inf, 1.0]], "must be finite, but 1 of 2 values"),
    ([[2.0, -1.0]], r"must not be negative, but the lowest value is -1\.0\. If they are logits"),
    ([[0.6, 0.41]], r"must sum to 1 over the last axis to 0\.001, but one row sums to 1\.01"),
    ([[3, 4]], "sums to 7"),
    ([[1.0]], r"at least two classes and no empty axis, but got .*1\)\. .*np\.stack"),
    (np.empty((0, 2)), "no empty axis, but got"),
    ([0.2, 0.8], "must have shape"),
]


@pytest.mark.parametrize(("probabilities", "message"), BAD_ROWS)
def test_what_is_no_probability_is_refused(probabilities: npt.ArrayLike, message: str) -> None:
    for metric in ON_LABELS:
        with pytest.raises(ValueError, match=f"`probabilities` .*{message}"):
            metric([0], probabilities)
    with pytest.raises(ValueError, match=f"`probabilities` .*{message}"):
        metrics.predictive_entropy(probabilities)
    for decomposition in ON_SAMPLES:
        with pytest.raises(ValueError, match=f"`sample_probabilities` .*{message}"):
            decomposition([probabilities])


def test_sums_within_the_tolerance_are_accepted() -> None:
    assert metrics.accuracy([0], [[0.6, 0.4009]]) == 1.0


def test_samples_are_no_predictive_distribution() -> None:
    samples = np.full((3, 2, 2), 0.5)
    with pytest.raises(ValueError, match=r"must have shape \(n, classes\).*got \(3, 2, 2\)"):
        metrics.predictive_entropy(samples)
    with pytest.raises(ValueError, match=r"must have shape \(samples, n, classes\).*got \(2, 2\)"):
        metrics.mutual_information(samples[0])


@pytest.mark.parametrize("num_bins", [0, -1, 1.5, True, "15"])
def test_a_number_of_bins_that_is_not_positive_is_refused(num_bins: object) -> None:
    with pytest.raises(ValueError, match="`num_bins` must be a positive integer, but got"):
        metrics.expected_calibration_error([0], [[1.0, 0.0]], num_bins=num_bins)

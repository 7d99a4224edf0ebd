"""Every function of labels against an independent reference, on random predictions and on the edge cases of T10."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import sklearn.metrics
import tensorflow_probability as tfp

from tfp_bnn import metrics

Labels = npt.NDArray[np.int64]
Probabilities = npt.NDArray[Any]

# === References: slow, by the definitions, none shares code with the functions ===


def accuracy(y: Labels, p: Probabilities) -> float:
    return sklearn.metrics.accuracy_score(y, p.argmax(axis=1))


def nll(y: Labels, p: Probabilities) -> float:
    tiny = float(np.finfo(np.float32).tiny)
    return -math.fsum(math.log(min(max(float(row[label]), tiny), 1.0)) for row, label in zip(p, y, strict=True)) / len(
        y
    )


def brier_score(y: Labels, p: Probabilities) -> float:
    return p.shape[1] * sklearn.metrics.mean_squared_error(np.eye(p.shape[1])[y], p.astype(np.float64))


def width_bins(values: npt.NDArray[Any], num_bins: int) -> Iterator[npt.NDArray[np.bool_]]:
    """Rounds edges to 6 digits, as a human would."""
    rounded = np.round(values.astype(np.float64), 6)
    for b in range(num_bins):
        low, high = round(b / num_bins, 6), round((b + 1) / num_bins, 6)
        yield (rounded > low) & (rounded <= high) | (rounded == 0) & (b == 0)


def mass_bins(values: npt.NDArray[Any], num_bins: int) -> Iterator[npt.NDArray[np.bool_]]:
    ascending = sorted(values)
    low = -math.inf
    for b in range(num_bins):
        high = ascending[math.ceil(Fraction((b + 1) * len(values), num_bins)) - 1]
        yield (values > low) & (values <= high)
        low = high


BINS = {"width": width_bins, "mass": mass_bins}


def gaps(values: npt.NDArray[Any], happened: npt.NDArray[Any], binning: str, num_bins: int) -> list[tuple[int, float]]:
    """Rows and gap of each bin with rows."""
    found = []
    for rows in BINS[binning](values, num_bins):
        if rows.any():
            found.append((int(rows.sum()), abs(happened[rows].mean() - values[rows].mean(dtype=np.float64))))
    assert sum(number for number, _ in found) == len(values)
    return found


def top(y: Labels, p: Probabilities) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    return p.max(axis=1), p.argmax(axis=1) == y


def ece(y: Labels, p: Probabilities, binning: str = "width", num_bins: int = 15) -> float:
    return sum(number * gap for number, gap in gaps(*top(y, p), binning, num_bins)) / len(y)


def mce(y: Labels, p: Probabilities, binning: str = "width", num_bins: int = 15) -> float:
    return max(gap for _, gap in gaps(*top(y, p), binning, num_bins))


def classwise(y: Labels, p: Probabilities, binning: str = "width", num_bins: int = 15) -> float:
    errors = [
        sum(number * gap for number, gap in gaps(p[:, k], y == k, binning, num_bins)) / len(y)
        for k in range(p.shape[1])
    ]
    return float(np.mean(errors))


def errors_of(y: Labels, p: Probabilities) -> npt.NDArray[np.bool_]:
    return p.argmax(axis=1) != y


def auroc(positive: npt.NDArray[np.bool_], scores: npt.NDArray[Any]) -> float:
    if len(set(positive.tolist())) == 1:
        return math.nan
    return sklearn.metrics.roc_auc_score(positive, scores)


def average_precision(positive: npt.NDArray[np.bool_], scores: npt.NDArray[Any]) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sklearn.metrics.average_precision_score(positive, scores)


def risk(errors: npt.NDArray[np.bool_], uncertainty: npt.NDArray[Any], answered: int) -> float:
    """The errors among rows more certain than the last one answered, and the mean number of those tied with it."""
    last = np.sort(uncertainty)[answered - 1]
    before, tied = uncertainty < last, uncertainty == last
    return (errors[before].sum() + (answered - before.sum()) * errors[tied].mean()) / answered


def aurc(y: Labels, p: Probabilities, u: npt.NDArray[Any]) -> float:
    return float(np.mean([risk(errors_of(y, p), u, k) for k in range(1, len(y) + 1)]))


def risk_at(y: Labels, p: Probabilities, u: npt.NDArray[Any], coverage: float = 0.9) -> float:
    return risk(errors_of(y, p), u, math.ceil(Fraction(str(coverage)) * len(y)))


OF_PREDICTIONS: dict[str, tuple[Callable[..., float], Callable[..., float]]] = {
    "accuracy": (metrics.accuracy, accuracy),
    "nll": (metrics.nll, nll),
    "brier": (metrics.brier_score, brier_score),
    "ece": (metrics.expected_calibration_error, ece),
    "mce": (metrics.maximum_calibration_error, mce),
    "classwise": (metrics.classwise_calibration_error, classwise),
    "ece_mass": (lambda y, p: metrics.expected_calibration_error(y, p, binning="mass"), lambda y, p: ece(y, p, "mass")),
    "mce_mass": (lambda y, p: metrics.maximum_calibration_error(y, p, binning="mass"), lambda y, p: mce(y, p, "mass")),
    "classwise_mass": (
        lambda y, p: metrics.classwise_calibration_error(y, p, binning="mass"),
        lambda y, p: classwise(y, p, "mass"),
    ),
    "error_rate": (lambda y, p: metrics.expected_error_rate(p), lambda y, p: float(np.mean([1 - max(r) for r in p]))),
}
OF_UNCERTAINTY: dict[str, tuple[Callable[..., float], Callable[..., float]]] = {
    "auroc": (metrics.misclassification_auroc, lambda y, p, u: auroc(errors_of(y, p), u)),
    "aupr": (metrics.misclassification_aupr, lambda y, p, u: average_precision(errors_of(y, p), u)),
    "aurc": (metrics.area_under_risk_coverage, aurc),
    "risk": (metrics.risk_at_coverage, risk_at),
}

# === Predictions ===


def random_predictions(seed: int = 0, rows: int = 300, classes: int = 4) -> tuple[Labels, Probabilities]:
    rng = np.random.default_rng(seed)
    return rng.integers(classes, size=rows), rng.dirichlet(np.full(classes, 0.5), size=rows)


def on_bin_edges(dtype: type) -> tuple[Labels, Probabilities]:
    first = np.arange(16)
    pairs = np.stack([first, 15 - first], axis=1) / 15
    return np.tile([0, 1, 1], 16), np.repeat(pairs, 3, axis=0).astype(dtype)


def cases() -> dict[str, tuple[Labels, Probabilities]]:
    labels, p = random_predictions()
    sure = np.eye(4)[np.random.default_rng(1).integers(4, size=40)]
    # Eighths are exact, so their ratios are rounded once, like the edges of bins.
    few = np.round(p * 8) / 8
    return {
        "random": (labels, p),
        "random float32": (labels, p.astype(np.float32)),
        "two classes": random_predictions(2, 151, 2),
        "class missing": (labels % 3, p),
        "class missing and never predicted": (
            labels % 3,
            np.pad(p[:, :3] / p[:, :3].sum(1, keepdims=True), [(0, 0), (0, 1)]),
        ),
        "one row, right": (np.array([1]), np.array([[0.3, 0.7]])),
        "one row, wrong": (np.array([0]), np.array([[0.3, 0.7]])),
        "one row, sure and right": (np.array([1]), np.array([[0.0, 1.0]])),
        "one row, sure and wrong": (np.array([0]), np.array([[0.0, 1.0]])),
        "all right": (p.argmax(axis=1), p),
        "all wrong": ((p.argmax(axis=1) + 1) % 4, p),
        "exactly 0 and 1": (labels[:40], sure),
        "exactly 0 and 1, all right": (sure.argmax(axis=1), sure),
        "exactly 0 and 1, all wrong": ((sure.argmax(axis=1) + 1) % 4, sure),
        "uniform": (labels, np.full((300, 4), 0.25)),
        "on bin edges": on_bin_edges(np.float64),
        "on bin edges, float32": on_bin_edges(np.float32),
        "many ties": (labels, few / few.sum(axis=1, keepdims=True)),
        "fewer rows than bins": (labels[:7], p[:7]),
    }


CASES = cases()


# === Tests ===


@pytest.mark.parametrize("case", CASES)
def test_scores_of_predictions_are_finite_and_equal_their_references(case: str) -> None:
    for name, (ours, reference) in OF_PREDICTIONS.items():
        value = ours(*CASES[case])
        assert type(value) is float, name
        assert math.isfinite(value), name
        assert value == pytest.approx(reference(*CASES[case]), abs=1e-7), name


@pytest.mark.parametrize("case", CASES)
def test_scores_of_uncertainty_equal_their_references(case: str) -> None:
    labels, p = CASES[case]
    entropy = metrics.predictive_entropy(p)
    both_kinds = len(set(errors_of(labels, p).tolist())) == 2
    for u in (entropy, entropy.round(1), np.ones(len(p))):
        for name, (ours, reference) in OF_UNCERTAINTY.items():
            value = ours(labels, p, u)
            assert type(value) is float, name
            # Without errors, or without correct predictions, there are no pairs to compare: NaN, as in scikit-learn.
            assert math.isfinite(value) == (both_kinds or name != "auroc"), name
            assert value == pytest.approx(reference(labels, p, u), abs=1e-12, nan_ok=True), name


@pytest.mark.parametrize("binning", ["width", "mass"])
@pytest.mark.parametrize("num_bins", [1, 2, 10, 50])
def test_calibration_errors_equal_their_definitions_with_any_number_of_bins(num_bins: int, binning: str) -> None:
    for seed in range(5):
        labels, p = random_predictions(seed, rows=97)
        for ours, reference in (
            (metrics.expected_calibration_error, ece),
            (metrics.maximum_calibration_error, mce),
            (metrics.classwise_calibration_error, classwise),
        ):
            assert ours(labels, p, num_bins, binning) == pytest.approx(reference(labels, p, binning, num_bins))


def test_brier_score_equals_that_of_tfp_which_lacks_a_constant() -> None:
    labels, p = random_predictions()
    theirs = tfp.stats.brier_score(labels=labels.astype(np.int32), logits=np.log(p))
    assert metrics.brier_score(labels, p) == pytest.approx(float(np.mean(theirs)) + 1.0)


@pytest.mark.parametrize("coverage", [0.01, 0.07, 0.29, 0.5, 0.55, 0.57, 1.0])
def test_risk_at_coverage_answers_the_fewest_rows_that_suffice(coverage: float) -> None:
    labels, p = random_predictions(rows=100)
    u = metrics.predictive_entropy(p)
    assert metrics.risk_at_coverage(labels, p, u, coverage) == pytest.approx(risk_at(labels, p, u, coverage))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("digits", [0, 1, 8])
def test_out_of_distribution_metrics_equal_scikit_learn(digits: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    inside, outside = rng.exponential(1.0, 157).round(digits), rng.exponential(2.0, 80).round(digits)
    positive, scores = np.repeat([False, True], [157, 80]), np.concatenate([inside, outside])
    assert metrics.out_of_distribution_auroc(inside, outside) == pytest.approx(auroc(positive, scores), abs=1e-12)
    ap = average_precision(positive, scores)
    assert metrics.out_of_distribution_aupr(inside, outside) == pytest.approx(ap, abs=1e-12)
    rejected, found, _ = sklearn.metrics.roc_curve(positive, scores, drop_intermediate=False)
    for recall in (0.05, 0.5, 0.95, 1.0):
        expected = rejected[np.argmax(found >= recall)]
        assert metrics.out_of_distribution_fpr(inside, outside, recall) == pytest.approx(expected, abs=1e-12)

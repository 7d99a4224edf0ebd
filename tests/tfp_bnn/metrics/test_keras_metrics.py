"""Keras metrics, batch by batch, against the functions on all rows at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfp_bnn import metrics
from tfp_bnn.metrics.keras_metrics.ranking import NUM_BINS

CLASSES, SAMPLES, ROWS = 4, 5, 203


def mean(samples: np.ndarray) -> np.ndarray:
    return samples.mean(axis=0, dtype=np.float64).astype(samples.dtype)


def numpy_of(variable: keras.Variable) -> np.ndarray:
    return tf.convert_to_tensor(variable).numpy()


def averaged(score: Callable[[Any], np.ndarray]) -> Callable[..., float]:
    return lambda labels, samples: float(score(samples).mean())


# Of integer labels and samples of class probabilities: a metric, and what it should be.
EXACT: dict[str, tuple[Callable[[], Any], Callable[..., float]]] = {
    "nll": (metrics.NegativeLogLikelihood, lambda y, s: metrics.nll(y, mean(s))),
    "brier": (metrics.BrierScore, lambda y, s: metrics.brier_score(y, mean(s))),
    "ece": (metrics.ExpectedCalibrationError, lambda y, s: metrics.expected_calibration_error(y, mean(s))),
    "ece of 1 bin": (
        lambda: metrics.ExpectedCalibrationError(num_bins=1),
        lambda y, s: metrics.expected_calibration_error(y, mean(s), 1),
    ),
    "mce": (
        lambda: metrics.MaximumCalibrationError(num_bins=10),
        lambda y, s: metrics.maximum_calibration_error(y, mean(s), 10),
    ),
    "classwise": (
        lambda: metrics.ClasswiseCalibrationError(CLASSES),
        lambda y, s: metrics.classwise_calibration_error(y, mean(s)),
    ),
    "entropy": (metrics.PredictiveEntropy, averaged(lambda s: metrics.predictive_entropy(mean(s)))),
    "expected_entropy": (metrics.ExpectedEntropy, averaged(metrics.expected_entropy)),
    "mutual_information": (metrics.MutualInformation, averaged(metrics.mutual_information)),
    "variance": (metrics.ClassVariance, averaged(metrics.class_variance)),
    "error_rate": (metrics.ExpectedErrorRate, lambda y, s: metrics.expected_error_rate(mean(s))),
}
NEED_SAMPLES = ("mutual_information", "variance")


def rounded(scores: np.ndarray) -> np.ndarray:
    """To the lower edge of the bin: 8 bits of mantissa, and 0 below 2^-28."""
    mantissa, exponent = np.frexp(scores.astype(np.float32))
    return np.where(scores < 2.0**-28, 0.0, np.ldexp(np.floor(mantissa * 2**9) / 2**9, exponent))


def on_scores(function: Callable[..., float], score: str, **arguments: float) -> Callable[..., float]:
    return lambda y, s: function(y, mean(s), rounded(metrics.uncertainty_scores(s)[score]), **arguments)


def on_kinds(function: Callable[..., float], score: str, **arguments: float) -> Callable[..., float]:
    def expected(y: np.ndarray, s: np.ndarray) -> float:
        scores = rounded(metrics.uncertainty_scores(s)[score])
        return function(scores[y == 0], scores[y > 0], **arguments)

    return expected


# As above, exact for rounded scores.
RANKING: dict[str, tuple[Callable[[], Any], Callable[..., float]]] = {
    "auroc": (metrics.MisclassificationAUROC, on_scores(metrics.misclassification_auroc, "entropy")),
    "aupr": (
        lambda: metrics.MisclassificationAUPR("expected_error"),
        on_scores(metrics.misclassification_aupr, "expected_error"),
    ),
    "aurc": (
        lambda: metrics.AreaUnderRiskCoverage("expected_entropy"),
        on_scores(metrics.area_under_risk_coverage, "expected_entropy"),
    ),
    "risk": (
        lambda: metrics.RiskAtCoverage(0.55, "mutual_information"),
        on_scores(metrics.risk_at_coverage, "mutual_information", coverage=0.55),
    ),
}
OUT_OF_DISTRIBUTION: dict[str, tuple[Callable[[], Any], Callable[..., float]]] = {
    "ood auroc": (
        lambda: metrics.OutOfDistributionAUROC("variance"),
        on_kinds(metrics.out_of_distribution_auroc, "variance"),
    ),
    "ood aupr": (metrics.OutOfDistributionAUPR, on_kinds(metrics.out_of_distribution_aupr, "entropy")),
    "ood fpr": (
        lambda: metrics.OutOfDistributionFPR(0.9, "mutual_information"),
        on_kinds(metrics.out_of_distribution_fpr, "mutual_information", recall=0.9),
    ),
}
CLASSIFICATION = {**EXACT, **RANKING, **OUT_OF_DISTRIBUTION}


def quantiles(samples: np.ndarray, levels: list[float]) -> np.ndarray:
    return np.quantile(samples, levels, axis=0)


LEVELS = [0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95]
# Of targets and samples of them.
REGRESSION: dict[str, tuple[Callable[[], Any], Callable[..., float]]] = {
    "coverage": (
        lambda: metrics.IntervalCoverage(0.8),
        lambda y, s: metrics.interval_coverage(y, *quantiles(s, [0.1, 0.9])),
    ),
    "width": (metrics.IntervalWidth, lambda y, s: metrics.interval_width(*quantiles(s, [0.05, 0.95]))),
    "crps": (metrics.ContinuousRankedProbabilityScore, metrics.crps),
    "crps, not fair": (
        lambda: metrics.ContinuousRankedProbabilityScore(fair=False),
        lambda y, s: metrics.crps(y, s, fair=False),
    ),
    "quantiles": (
        metrics.QuantileCalibrationError,
        lambda y, s: metrics.quantile_calibration_error(y, quantiles(s, LEVELS), LEVELS),
    ),
}
ALL = {**CLASSIFICATION, **REGRESSION}


def class_rows(seed: int = 0, dtype: type = np.float32) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    samples = rng.dirichlet(np.full(CLASSES, 0.3), size=(SAMPLES, ROWS)) + 1e-4
    return rng.integers(CLASSES, size=ROWS), (samples / samples.sum(axis=-1, keepdims=True)).astype(dtype)


def target_rows(seed: int = 0, outputs: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(ROWS, outputs)), rng.normal(size=(SAMPLES, ROWS, outputs))


def rows_for(name: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    if name in REGRESSION:
        return target_rows(seed)
    labels, samples = class_rows(seed)
    return (np.minimum(labels, 1), samples) if name in OUT_OF_DISTRIBUTION else (labels, samples)


def in_batches(metric: Any, y: np.ndarray, samples: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Batches of 64, 64, 64 and 11 rows."""
    for start in range(0, len(y), 64):
        rows = slice(start, start + 64)
        metric.update_state(y[rows], samples[..., rows, :], None if weights is None else weights[rows])
    return float(metric.result())


# === The same as the functions ===


@pytest.mark.parametrize("name", ALL)
def test_batches_of_samples_give_what_the_function_gives_at_once(name: str) -> None:
    make, function = ALL[name]
    y, samples = rows_for(name)
    metric = make()
    assert in_batches(metric, y, samples) == pytest.approx(function(y, samples), abs=1e-6)
    metric.reset_state()
    y, samples = rows_for(name, seed=1)
    assert in_batches(metric, y, samples) == pytest.approx(function(y, samples), abs=1e-6)


@pytest.mark.parametrize(
    "name", [name for name in CLASSIFICATION if name not in (*NEED_SAMPLES, "risk", "ood auroc", "ood fpr")]
)
def test_one_draw_is_a_single_sample(name: str) -> None:
    make, function = CLASSIFICATION[name]
    y, samples = rows_for(name)
    assert in_batches(make(), y, samples[0]) == pytest.approx(function(y, samples[:1]), abs=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_weights_count_as_so_many_rows(name: str) -> None:
    make, function = ALL[name]
    y, samples = rows_for(name)
    weights = np.random.default_rng(2).integers(4, size=len(y))
    repeated = np.repeat(np.arange(len(y)), weights)
    expected = function(y[repeated], samples[:, repeated])
    assert in_batches(make(), y, samples, weights) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_rows_without_weight_may_hold_anything(name: str) -> None:
    make, function = ALL[name]
    y, samples = rows_for(name)
    padded_y, padded = np.concatenate([y, y[:2]]), np.concatenate([samples, samples[:, :2]], axis=1)
    padded_y[-2:], padded[:, -2], padded[:, -1] = -1, np.nan, 0.0
    weights = np.arange(len(padded_y)) < len(y)
    assert in_batches(make(), padded_y, padded, weights) == pytest.approx(function(y, samples), abs=1e-6)
    assert in_batches(make(), padded_y, padded, weights[:, np.newaxis]) == pytest.approx(function(y, samples), abs=1e-6)


@pytest.mark.parametrize("name", ["nll", "ece", "auroc"])
def test_the_mask_of_keras_is_a_weight(name: str) -> None:
    make, function = CLASSIFICATION[name]
    y, samples = rows_for(name)
    predictions = tf.constant(samples)
    predictions._keras_mask = tf.constant(np.arange(len(y)) < 100)
    metric = make()
    metric.update_state(y, predictions)
    assert float(metric.result()) == pytest.approx(function(y[:100], samples[:, :100]), abs=1e-6)


@pytest.mark.parametrize("name", [*EXACT, *RANKING])
def test_labels_may_be_one_hot_or_a_column_or_whole_numbers(name: str) -> None:
    make, _ = CLASSIFICATION[name]
    y, samples = class_rows()
    expected = in_batches(make(), y, samples)
    for labels in (np.eye(CLASSES)[y], np.eye(CLASSES, dtype=bool)[y], y[:, np.newaxis], y.astype(np.float32)):
        assert in_batches(make(), labels, samples) == expected


@pytest.mark.parametrize("name", [name for name in EXACT if name != "classwise"])
def test_a_single_probability_is_that_of_the_second_class(name: str) -> None:
    make, function = EXACT[name]
    rng = np.random.default_rng(0)
    second = rng.uniform(0.01, 0.99, size=(SAMPLES, ROWS, 1)).astype(np.float32)
    y = rng.integers(2, size=(ROWS, 1))
    both = np.concatenate([np.float32(1.0) - second, second], axis=-1)
    assert in_batches(make(), y, second) == pytest.approx(function(y[:, 0], both), abs=1e-6)


def test_targets_of_one_output_need_no_axis_for_it() -> None:
    y, samples = target_rows(outputs=1)
    for make, _ in REGRESSION.values():
        assert in_batches(make(), y[:, 0], samples) == in_batches(make(), y, samples)


@pytest.mark.parametrize("name", ["entropy", "expected_entropy", "mutual_information", "variance", "error_rate"])
def test_uncertainty_needs_no_labels(name: str) -> None:
    make, function = EXACT[name]
    y, samples = class_rows()
    metric = make()
    metric.update_state(None, samples)
    assert float(metric.result()) == pytest.approx(function(y, samples), abs=1e-6)


def test_float32_on_a_bin_edge_is_where_the_function_has_it() -> None:
    top = np.repeat(np.arange(8, 16) / 15, 3).astype(np.float32)
    p, y = np.stack([top, 1.0 - top], axis=1), np.tile([0, 1, 1], 8)
    metric = metrics.ExpectedCalibrationError()
    metric.update_state(y, p)
    assert float(metric.result()) == pytest.approx(metrics.expected_calibration_error(y, p), abs=1e-6)


# === Edge cases (T10) ===

EDGES: dict[str, tuple[np.ndarray, np.ndarray]] = {
    "class missing": (class_rows()[0] % 3, class_rows()[1]),
    "one row, right": (np.array([2]), np.full((2, 1, 4), [0.1, 0.2, 0.4, 0.3])),
    "one row, wrong": (np.array([1]), np.full((2, 1, 4), [0.1, 0.2, 0.4, 0.3])),
    "all right": (mean(class_rows()[1]).argmax(axis=1), class_rows()[1]),
    "all wrong": ((mean(class_rows()[1]).argmax(axis=1) + 1) % 4, class_rows()[1]),
    "exactly 0 and 1": (np.array([0, 1, 2, 3, 0, 1]), np.tile(np.eye(4)[[0, 1, 2, 3, 1, 2]], (2, 1, 1))),
    "exactly 0 and 1, all right": (np.arange(4), np.tile(np.eye(4), (2, 1, 1))),
    "uniform": (np.arange(4), np.full((2, 4, 4), 0.25)),
}


@pytest.mark.parametrize("name", [*EXACT, *RANKING])
@pytest.mark.parametrize("case", EDGES)
def test_edge_cases_are_finite_and_those_of_the_functions(case: str, name: str) -> None:
    make, function = CLASSIFICATION[name]
    y, samples = EDGES[case]
    metric = make()
    metric.update_state(y, samples)
    value = float(metric.result())
    wrong = mean(samples).argmax(axis=1) != y
    assert math.isfinite(value) == (name != "auroc" or wrong.any() != wrong.all())
    assert value == pytest.approx(function(y, samples), rel=1e-6, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("name", ALL)
def test_before_any_row_the_result_is_0_or_undefined(name: str) -> None:
    undefined = name in ("auroc", "ood auroc", "ood fpr")
    assert float(ALL[name][0]().result()) == pytest.approx(math.nan if undefined else 0.0, nan_ok=True)


@pytest.mark.parametrize(("flags", "names"), [(0, ["ood auroc", "ood fpr"]), (1, ["ood auroc", "ood fpr"])])
def test_one_kind_of_input_alone_has_no_auroc(flags: int, names: list[str]) -> None:
    _, samples = class_rows()
    for name in names:
        assert math.isnan(in_batches(ALL[name][0](), np.full(ROWS, flags), samples))
    assert in_batches(metrics.OutOfDistributionAUPR(), np.full(ROWS, flags), samples) == flags


@pytest.mark.parametrize("name", ALL)
def test_predictions_that_are_not_a_number_give_no_number(name: str) -> None:
    y, samples = rows_for(name)
    samples[:, 3] = np.nan
    if name == "coverage":
        # No interval holds the target.
        assert in_batches(ALL[name][0](), y, samples) < 1
    elif name == "quantiles":
        assert math.isfinite(in_batches(ALL[name][0](), y, samples))
    else:
        assert math.isnan(in_batches(ALL[name][0](), y, samples))


# === Rounded scores ===


@pytest.mark.parametrize("score", ["entropy", "expected_entropy", "mutual_information", "expected_error", "variance"])
@pytest.mark.parametrize("sharpness", [1.0, 100.0])
def test_the_error_of_rounding_scores_is_within_the_stated_bound(sharpness: float, score: str) -> None:
    rng = np.random.default_rng(0)
    logits = sharpness * rng.normal(size=(1, 4000, CLASSES)) + rng.normal(size=(SAMPLES, 4000, CLASSES))
    samples = np.exp(logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True))
    y = np.where(rng.random(4000) < 0.8, mean(samples).argmax(axis=1), 0)
    scores = metrics.uncertainty_scores(samples)[score]
    exact = metrics.misclassification_auroc(y, mean(samples), scores)
    metric = metrics.MisclassificationAUROC(score)
    metric.update_state(y, samples)
    positives, negatives = numpy_of(metric.positives), numpy_of(metric.negatives)
    bound = (positives * negatives).sum() / (2 * positives.sum() * negatives.sum())
    error = abs(float(metric.result()) - exact)
    assert error <= bound + 1e-6
    assert error < 2e-3 if sharpness == 1.0 else bound < 0.5


def test_scores_beyond_the_bins_are_counted_in_the_outermost_ones() -> None:
    sure, unsure = np.eye(2)[[0, 0]], np.full((1, 2), 0.5)
    metric = metrics.MisclassificationAUROC()
    metric.update_state([0, 1, 1], np.concatenate([sure, unsure]))
    assert numpy_of(metric.negatives)[0] == 1
    assert numpy_of(metric.positives)[0] == 1
    assert numpy_of(metric.positives)[1:].sum() == 1
    assert metric.positives.shape == (NUM_BINS,)


# === Refusals ===


def refused(metric: Any, message: str, *args: Any) -> None:
    with pytest.raises(ValueError, match=message):
        metric.update_state(*args)


@pytest.mark.parametrize("name", [*EXACT, *RANKING])
def test_predictions_that_are_no_probabilities_are_refused(name: str) -> None:
    metric = CLASSIFICATION[name][0]()
    y, samples = class_rows()
    refused(metric, "If they are logits, apply a softmax first", y, np.log(samples))
    refused(metric, "several independent labels per row are not supported", y, samples * 1.01)
    refused(metric, r"of shape \(n, classes\) or \(samples, n, classes\), but got \(203,\)", y, samples[0, :, 0])
    assert sum(np.abs(numpy_of(variable)).sum() for variable in metric.variables) == 0


@pytest.mark.parametrize("name", ["nll", "brier", "ece", "classwise", "auroc", "aurc"])
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 4], "Labels must be integers from 0 to 3, but a batch has others"),
        ([-1, 0], "Labels must be integers from 0 to 3"),
        ([0.5, 1.0], "Labels must be integers from 0 to 3"),
        ([0.0, math.nan], "Labels must be integers from 0 to 3"),
        ([0, 1, 2], "There are 3 targets for 2 predictions"),
        (np.zeros((2, 3)), r"Labels must be integers of shape \(n,\) or \(n, 1\), or one-hot of shape \(n, 4\)"),
        ([[0.5, 0.5, 0, 0], [1, 0, 0, 0]], "One-hot labels must hold a single 1 per row .* Soft labels"),
        ([[1, 1, 0, 0], [1, 0, 0, 0]], "One-hot labels must hold a single 1 per row"),
    ],
)
def test_labels_that_do_not_fit_are_refused(name: str, labels: Any, message: str) -> None:
    refused(CLASSIFICATION[name][0](), message, labels, np.full((2, 4), 0.25))


def test_flags_of_out_of_distribution_inputs_are_0_or_1() -> None:
    metric = metrics.OutOfDistributionAUROC()
    refused(metric, "Labels must be integers from 0 to 1", [0, 2], np.full((2, 4), 0.25))
    refused(metric, r"0 for others, of shape \(n,\), but got \(2, 4\)", np.eye(4)[:2], np.full((2, 4), 0.25))


@pytest.mark.parametrize(
    "make", [metrics.MutualInformation, metrics.ClassVariance, lambda: metrics.RiskAtCoverage(0.5, "variance")]
)
def test_what_needs_samples_refuses_one_draw(make: Callable[[], Any]) -> None:
    refused(make(), "needs samples, predictions of shape .samples, n, classes.", [0, 1], np.full((2, 4), 0.25))


@pytest.mark.parametrize("name", REGRESSION)
def test_regression_refuses_what_are_no_samples(name: str) -> None:
    metric = REGRESSION[name][0]()
    y, samples = target_rows()
    refused(metric, r"draws of the target, of shape \(samples, n, outputs\), but got \(203, 2\)", y, samples[0])
    refused(metric, r"Targets of shape \(203, 1\) do not fit predictions of shape \(5, 203, 2\)", y[:, 0], samples)
    refused(metric, "There are 202 targets for 203 predictions", y[1:], samples)


def test_a_fair_crps_refuses_a_single_sample() -> None:
    y, samples = target_rows()
    refused(metrics.ContinuousRankedProbabilityScore(), "at least 2 samples, but got 1", y, samples[:1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: metrics.ExpectedCalibrationError(num_bins=0), "`num_bins` must be a positive integer"),
        (lambda: metrics.ClasswiseCalibrationError(num_classes=1), "`num_classes` must be an integer of at least 2"),
        (lambda: metrics.MisclassificationAUROC("entropie"), "Unknown score 'entropie'. Did you mean 'entropy'"),
        (lambda: metrics.RiskAtCoverage(90), "`coverage` must be a number above 0 and up to 1"),
        (lambda: metrics.OutOfDistributionFPR(95), "`recall` must be a number above 0 and up to 1"),
        (lambda: metrics.IntervalCoverage(90), "`level` must be a number above 0 and up to 1"),
        (lambda: metrics.QuantileCalibrationError([0.5, 1.0]), "`levels` must be one or more numbers above 0"),
        (lambda: metrics.QuantileCalibrationError([]), "`levels` must be one or more numbers above 0"),
    ],
)
def test_arguments_out_of_range_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_another_number_of_classes_is_refused() -> None:
    refused(
        metrics.ClasswiseCalibrationError(3), "made with num_classes=3, but the predictions have 4", [0], [[0.25] * 4]
    )


# === As objects of Keras ===


def test_every_keras_metric_of_the_package_is_tested_here() -> None:
    public = {value for value in vars(metrics).values() if isinstance(value, type) and issubclass(value, keras.Metric)}
    assert {type(make()) for make, _ in ALL.values()} == public
    assert len(public) == 21


@pytest.mark.parametrize("name", ALL)
def test_configs_go_out_and_come_back(name: str) -> None:
    metric = ALL[name][0]()
    serialized = keras.saving.serialize_keras_object(metric)
    assert serialized["registered_name"] == f"tfp_bnn>{type(metric).__name__}"
    again = keras.saving.deserialize_keras_object(serialized)
    assert type(again) is type(metric)
    assert again.get_config() == metric.get_config()
    y, samples = rows_for(name)
    assert in_batches(again, y, samples) == in_batches(metric, y, samples)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [None, "float16", "mixed_bfloat16", "float64"])
def test_the_state_is_float32_or_better(dtype: str | None, name: str) -> None:
    cls, config = type(ALL[name][0]()), ALL[name][0]().get_config()
    metric = cls(**{**config, "dtype": dtype})
    expected = "float64" if dtype == "float64" else "float32"
    assert metric.dtype == expected
    assert metric.variables
    assert {variable.dtype for variable in metric.variables} == {expected}
    y, samples = rows_for(name)
    metric.update_state(y, samples)
    assert tf.convert_to_tensor(metric.result()).dtype == expected


@pytest.mark.parametrize("name", ALL)
def test_metrics_are_documented(name: str) -> None:
    doc = type(ALL[name][0]()).__doc__
    assert "Args:" in doc
    assert ">>> " in doc

"""What the Keras metrics round, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from tfp_bnn import metrics
from tfp_bnn.metrics.keras_metrics.ranking import NUM_BINS
from tfp_bnn.metrics.uncertainty import SCORES

from .cases import CLASSES, OF_CLASSES, OF_LABELS, OF_TARGETS, SAMPLES, mean, target_rows


def numpy_of(variable):
    return tf.convert_to_tensor(variable).numpy()


# === Rounded scores ===


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("sharpness", [1.0, 100.0])
def test_the_error_of_rounding_scores_is_within_the_stated_bound(sharpness, score):
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


def test_scores_beyond_the_bins_are_counted_in_the_outermost_ones():
    certain, uncertain = np.eye(2)[[0, 0]], np.full((1, 2), 0.5)
    metric = metrics.MisclassificationAUROC()
    metric.update_state([0, 1, 1], np.concatenate([certain, uncertain]))
    assert numpy_of(metric.negatives)[0] == 1
    assert numpy_of(metric.positives)[0] == 1
    assert numpy_of(metric.positives)[1:].sum() == 1
    assert metric.positives.shape == (NUM_BINS,)


# === Refusals ===


def refused(metric, message, *args):
    with pytest.raises(ValueError, match=message):
        metric.update_state(*args)


@pytest.mark.parametrize("case", OF_CLASSES, ids=str)
def test_predictions_that_are_no_probabilities_are_refused(case):
    metric = case.make()
    y, samples = case.rows()
    refused(metric, "If they are logits, apply a softmax first", y, np.log(samples))
    refused(metric, "several independent labels per row are not supported", y, samples * 1.01)
    shape = rf"of shape \(n, classes\) or \(samples, n, classes\), but got \({len(y)},\)"
    refused(metric, shape, y, samples[0, :, 0])
    assert sum(np.abs(numpy_of(variable)).sum() for variable in metric.variables) == 0


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
def test_labels_that_do_not_fit_are_refused(labels, message):
    for case in OF_LABELS:
        refused(case.make(), message, labels, np.full((2, 4), 0.25))


def test_flags_of_out_of_distribution_inputs_are_0_or_1():
    metric = metrics.OutOfDistributionAUROC()
    refused(metric, "Labels must be integers from 0 to 1", [0, 2], np.full((2, 4), 0.25))
    refused(metric, r"0 for others, of shape \(n,\), but got \(2, 4\)", np.eye(4)[:2], np.full((2, 4), 0.25))


@pytest.mark.parametrize(
    "make", [metrics.MutualInformation, metrics.ClassVariance, lambda: metrics.RiskAtCoverage(0.5, "variance")]
)
def test_what_needs_samples_refuses_one_draw(make):
    refused(make(), "needs samples, predictions of shape .samples, n, classes.", [0, 1], np.full((2, 4), 0.25))


@pytest.mark.parametrize("case", OF_TARGETS, ids=str)
def test_regression_refuses_what_are_no_samples(case):
    metric = case.make()
    y, samples = target_rows()
    n = len(y)
    draws = rf"draws of the target, of shape \(samples, n, outputs\), but got \({n}, 2\)"
    refused(metric, draws, y, samples[0])
    shapes = rf"Targets of shape \({n}, 1\) do not fit predictions of shape \({SAMPLES}, {n}, 2\)"
    refused(metric, shapes, y[:, 0], samples)
    refused(metric, f"There are {n - 1} targets for {n} predictions", y[1:], samples)


def test_a_fair_crps_refuses_a_single_sample():
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
def test_arguments_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_another_number_of_classes_is_refused():
    refused(
        metrics.ClasswiseCalibrationError(3), "made with num_classes=3, but the predictions have 4", [0], [[0.25] * 4]
    )

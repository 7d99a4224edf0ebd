"""Outputs with positions against SciPy, and against the same outputs as rows."""

from __future__ import annotations

import re

import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn import metrics
from tfp_bnn.likelihoods import Bernoulli, Categorical, Likelihood, Normal
from tfp_bnn.predictive import PosteriorPredictive, score, standard_errors

RNG = np.random.default_rng(0)
SAMPLES, EXAMPLES, HEIGHT, WIDTH = 5, 4, 2, 3
POSITIONS = (HEIGHT, WIDTH)
OUTPUTS = RNG.normal(size=(SAMPLES, EXAMPLES, *POSITIONS, 4)).astype(np.float32)
CLASSES = RNG.integers(4, size=(EXAMPLES, *POSITIONS))
LABELS = RNG.integers(2, size=(EXAMPLES, *POSITIONS, 4)).astype(np.float32)
NUMBERS = RNG.normal(size=(EXAMPLES, *POSITIONS, 4)).astype(np.float32)


class Counts(Likelihood):
    """As a user writes one: rows only."""

    def distribution(self, outputs, weights):
        return tfd.Independent(tfd.Poisson(log_rate=outputs), reinterpreted_batch_ndims=1)


COUNTS = RNG.poisson(2.0, size=(EXAMPLES, *POSITIONS, 4))
CASES = {
    "categorical": (Categorical(), {}, CLASSES),
    "bernoulli": (Bernoulli(), {}, LABELS),
    "normal": (Normal("learned"), {"log_scale": np.float32(0.3)}, NUMBERS),
    "per_example": (Normal("per_example"), {}, NUMBERS[..., :2]),
    "own": (Counts(), {}, COUNTS),
}


def predictive_of(likelihood, weights, outputs, **kwargs):
    return PosteriorPredictive(likelihood, weights, outputs, {}, outputs.shape, **kwargs)


def log_densities(name, y, outputs):
    """log p of each position, `(..., *positions)`, float64, in SciPy."""
    outputs = outputs.astype(np.float64)
    if name == "categorical":
        return (scipy.special.log_softmax(outputs, axis=-1) * np.eye(4)[y]).sum(-1)
    if name == "bernoulli":
        return scipy.stats.bernoulli.logpmf(y, scipy.special.expit(outputs)).sum(-1)
    if name == "normal":
        return scipy.stats.norm.logpdf(y, outputs, np.exp(0.3)).sum(-1)
    if name == "per_example":
        return scipy.stats.norm.logpdf(y, outputs[..., :2], 1e-6 + np.logaddexp(0, outputs[..., 2:])).sum(-1)
    return scipy.stats.poisson.logpmf(y, np.exp(outputs)).sum(-1)


# === Log-likelihood ===


@pytest.mark.parametrize("name", CASES)
def test_the_log_likelihood_of_an_example_is_the_sum_over_its_positions(name):
    likelihood, weights, y = CASES[name]
    expected = log_densities(name, y, OUTPUTS)
    found = likelihood.log_likelihood(y, OUTPUTS[0], weights)
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, expected[0].sum((-1, -2)), rtol=1e-5)
    of_draws = likelihood.log_likelihood(y, OUTPUTS, weights, draws=True)
    np.testing.assert_allclose(of_draws, expected.sum((-1, -2)), rtol=1e-5)
    at_positions = likelihood.log_likelihood(y, OUTPUTS, weights, draws=True, by_position=True)
    np.testing.assert_allclose(at_positions, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", [CLASSES[..., np.newaxis], np.eye(4, dtype=np.float32)[CLASSES]])
def test_classes_may_have_a_column_or_be_one_hot(form):
    expected = log_densities("categorical", CLASSES, OUTPUTS[0]).sum((-1, -2))
    np.testing.assert_allclose(Categorical().log_likelihood(form, OUTPUTS[0], {}), expected, rtol=1e-5)


@pytest.mark.parametrize("y", [NUMBERS[..., 0], NUMBERS[..., :1]])
def test_a_single_number_needs_no_column(y):
    expected = scipy.stats.norm.logpdf(NUMBERS[..., 0], OUTPUTS[0, ..., 0], 0.5).sum((-1, -2))
    np.testing.assert_allclose(Normal(0.5).log_likelihood(y, OUTPUTS[0, ..., :1], {}), expected, rtol=1e-5)


def test_each_draw_may_have_learned_its_own_scale():
    log_scales = np.linspace(-1, 1, SAMPLES, dtype=np.float32)[:, np.newaxis]
    weights, by_draw = {"log_scale": log_scales}, frozenset({"log_scale"})
    predictive = predictive_of(Normal("learned"), weights, OUTPUTS, weights_by_draw=by_draw)
    scales = np.exp(log_scales.astype(np.float64)).reshape(-1, 1, 1, 1, 1)
    by_draw = scipy.stats.norm.logpdf(NUMBERS, OUTPUTS, scales).sum((-1, -2, -3))
    expected = scipy.special.logsumexp(by_draw, axis=0) - np.log(SAMPLES)
    np.testing.assert_allclose(predictive.log_prob(NUMBERS), expected, rtol=1e-5)
    np.testing.assert_allclose(predictive.aleatoric(), np.full(NUMBERS.shape, (scales**2).mean()), rtol=1e-5)
    of_rows = predictive_of(
        Normal("learned"),
        {"log_scale": log_scales},
        OUTPUTS.reshape(SAMPLES, -1, 4),
        weights_by_draw=frozenset({"log_scale"}),
    )
    errors, expected_errors = (
        standard_errors(one, y) for one, y in ((predictive, NUMBERS), (of_rows, NUMBERS.reshape(-1, 4)))
    )
    for name in ("rmse", "coverage_90", "aleatoric_std"):
        assert errors[name] == pytest.approx(expected_errors[name], rel=1e-5)


# === Weights ===


def test_weights_are_for_examples_positions_or_targets():
    likelihood, weights, y = CASES["normal"]
    terms = scipy.stats.norm.logpdf(y, OUTPUTS[0], np.exp(0.3))
    for shape in ((EXAMPLES,), (EXAMPLES, *POSITIONS), (EXAMPLES, *POSITIONS, 4)):
        weight = RNG.uniform(size=shape).astype(np.float32)
        spread = weight.reshape(*shape, *[1] * (4 - len(shape)))
        found = likelihood.log_likelihood(y, OUTPUTS[0], weights, weight)
        np.testing.assert_allclose(found, (spread * terms).sum((1, 2, 3)), rtol=1e-4)


def test_a_weight_for_each_target_needs_no_positions():
    weight = RNG.uniform(size=(EXAMPLES, 4)).astype(np.float32)
    found = Normal(1.0).log_likelihood(NUMBERS[:, 0, 0], OUTPUTS[0, :, 0, 0], {}, weight)
    expected = (weight * scipy.stats.norm.logpdf(NUMBERS[:, 0, 0], OUTPUTS[0, :, 0, 0])).sum(-1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("shape", [(EXAMPLES, HEIGHT), (EXAMPLES, WIDTH, HEIGHT), (EXAMPLES, *POSITIONS, 3)])
def test_weights_of_another_shape_are_refused_with_both_shapes(shape):
    message = re.escape(f"`sample_weight` of shape {shape} does not fit targets of shape ('batch', 2, 3, 4)")
    with pytest.raises(ValueError, match=message):
        Normal(1.0).log_likelihood(NUMBERS, OUTPUTS[0], {}, np.ones(shape))


@pytest.mark.parametrize(
    "y", [CLASSES[:, 0], CLASSES[:, :, :2], CLASSES[:, 0, 0], np.zeros((EXAMPLES, *POSITIONS, 4, 1))]
)
def test_targets_with_other_positions_are_refused_with_both_shapes(y):
    message = re.escape(f"Targets of shape {y.shape} do not fit outputs with the positions (2, 3)")
    for check in (
        lambda: Categorical().log_likelihood(y, OUTPUTS[0], {}),
        lambda: Categorical().check_examples(y, OUTPUTS.shape[2:]),
        lambda: predictive_of(Categorical(), {}, OUTPUTS).log_prob(y),
    ):
        with pytest.raises(ValueError, match=message):
            check()


def test_columns_that_do_not_fit_are_refused_with_the_shapes_of_targets_and_outputs():
    with pytest.raises(ValueError, match=r"the targets have the shape \(4, 2, 3, 3\), and the outputs the shape"):
        Normal(1.0).check_examples(NUMBERS[..., :3], OUTPUTS.shape[2:])


# === The predictive ===


@pytest.mark.parametrize("name", CASES)
def test_the_predictions_at_positions_are_those_of_rows(name):
    likelihood, weights, y = CASES[name]
    rows = OUTPUTS.reshape(SAMPLES, -1, 4)
    found, expected = (predictive_of(likelihood, weights, outputs) for outputs in (OUTPUTS, rows))

    def check(get, axis):
        of_positions, of_rows = get(found), get(expected)
        shape = of_rows.shape
        assert of_positions.shape == (*shape[:axis], EXAMPLES, *POSITIONS, *shape[axis + 1 :])
        np.testing.assert_array_equal(of_positions.reshape(shape), of_rows)

    for moment in ("mean", "entropy", "aleatoric", "epistemic"):
        check(lambda predictive, moment=moment: getattr(predictive, moment)(), 0)
    check(lambda predictive: predictive.samples, 1)
    check(lambda predictive: predictive.quantiles([0.1, 0.5]), 1)
    check(lambda predictive: np.stack(predictive.interval()), 1)
    check(lambda predictive: predictive.sample(7, seed=1), 1)
    of_rows = y.reshape(-1, *y.shape[3:])
    if found.target_kind == "number":
        transformed = found.pit(y), expected.pit(of_rows)
        np.testing.assert_array_equal(transformed[0].reshape(transformed[1].shape), transformed[1])
    at_positions = found.log_prob(y, by_position=True)
    np.testing.assert_allclose(at_positions.reshape(-1), expected.log_prob(of_rows), rtol=1e-6)
    assert found.distribution().batch_shape == (EXAMPLES, *POSITIONS)


@pytest.mark.parametrize("name", CASES)
def test_scores_are_over_all_positions_and_the_nll_is_that_of_examples(name):
    likelihood, weights, y = CASES[name]
    of_rows = y.reshape(-1, *y.shape[3:])
    predictive = predictive_of(likelihood, weights, OUTPUTS)
    found = score(predictive, y)
    expected = score(predictive_of(likelihood, weights, OUTPUTS.reshape(SAMPLES, -1, 4)), of_rows)
    joint = scipy.special.logsumexp(log_densities(name, y, OUTPUTS).sum((-1, -2)), axis=0) - np.log(SAMPLES)
    assert found["nll"] == pytest.approx(-joint.mean(), rel=1e-5)
    assert {key: value for key, value in found.items() if key != "nll"} == pytest.approx(
        {key: value for key, value in expected.items() if key != "nll"}, rel=1e-6
    )


@pytest.mark.parametrize("name", ["categorical", "bernoulli", "normal"])
def test_standard_errors_are_those_of_leaving_each_draw_out(name):
    likelihood, weights, y = CASES[name]
    errors = standard_errors(predictive_of(likelihood, weights, OUTPUTS), y)
    without = [
        score(predictive_of(likelihood, weights, np.delete(OUTPUTS, draw, axis=0)), y) for draw in range(SAMPLES)
    ]
    for key in set(errors) - {"accuracy", "ece", "coverage_90"}:
        error, expected = errors[key], np.sqrt((SAMPLES - 1) * np.var([scores[key] for scores in without]))
        assert error == pytest.approx(expected, rel=2e-3, abs=1e-6), key


def test_the_accuracy_of_a_segmentation_is_that_of_its_pixels():
    predictive = predictive_of(Categorical(), {}, OUTPUTS)
    correct = predictive.mean().argmax(-1) == CLASSES
    assert score(predictive, CLASSES)["accuracy"] == pytest.approx(correct.mean())
    flat = predictive.mean().reshape(-1, 4)
    ece = metrics.expected_calibration_error(CLASSES.reshape(-1), flat)
    assert score(predictive, CLASSES)["ece"] == pytest.approx(ece)

"""The Monte Carlo standard error of each score, against leaving each draw out, or repeating some, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tfp_bnn.calibration import Scale, Temperature
from tfp_bnn.likelihoods import Bernoulli, Categorical, Normal
from tfp_bnn.predictive import PosteriorPredictive, monte_carlo_error, score, standard_errors

RNG = np.random.default_rng(0)
SAMPLES, ROWS, RESAMPLES = 4, 40, 4
LABELS = RNG.integers(0, 2, size=ROWS)
TARGETS = RNG.normal(size=(ROWS, 2)).astype(np.float32)
MIXTURES = {
    "categorical": (Categorical(), 3, LABELS, Temperature(0.7)),
    "bernoulli": (Bernoulli(), 1, LABELS, Temperature(2.0)),
    "normal": (Normal(scale=0.5), 2, TARGETS, Scale(0.4)),
    "per_example": (Normal(scale="per_example"), 4, TARGETS, Scale(1.7)),
}


STEPS = ("accuracy", "ece", "coverage_90")


def resamples(num_samples):
    return np.random.default_rng(0).integers(num_samples, size=(RESAMPLES, num_samples))


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("name", MIXTURES)
def test_standard_errors_are_those_of_other_mixtures_of_the_draws(name, calibrated, monkeypatch):
    monkeypatch.setattr(monte_carlo_error, "NUM_RESAMPLES", RESAMPLES)
    likelihood, num_outputs, y, calibration = MIXTURES[name]
    outputs = RNG.normal(size=(SAMPLES, ROWS, num_outputs)).astype(np.float32)

    def predictive(outputs):
        raw = PosteriorPredictive(likelihood, {}, outputs, {}, outputs.shape)
        return raw.calibrated_by(calibration) if calibrated else raw

    errors = standard_errors(predictive(outputs), y)
    without = [score(predictive(np.delete(outputs, draw, axis=0)), y) for draw in range(SAMPLES)]
    resampled = [score(predictive(outputs[draws]), y) for draws in resamples(SAMPLES)]
    assert set(errors) == set(without[0])
    for metric, error in errors.items():
        values = np.array([scores[metric] for scores in without])
        expected = np.sqrt((SAMPLES - 1) / SAMPLES * np.sum((values - values.mean()) ** 2))
        if metric in STEPS:
            expected = np.std([scores[metric] for scores in resampled], ddof=1)
        assert error == pytest.approx(expected, rel=2e-3, abs=1e-6), metric
    assert max(errors.values()) > 0
    no_targets = standard_errors(predictive(outputs))
    assert no_targets == {metric: errors[metric] for metric in no_targets}


def test_standard_error_of_what_is_linear_in_the_draws_is_that_of_a_mean():
    outputs = RNG.normal(size=(SAMPLES, ROWS, 2)).astype(np.float32)
    predictive = PosteriorPredictive(Normal(scale=1.0), {}, outputs, {}, outputs.shape)
    # Where all targets are below the predictions, the mean absolute error is linear in them.
    errors = standard_errors(predictive, np.full((ROWS, 2), -100.0, np.float32))
    draws = outputs.mean(axis=(1, 2), dtype=np.float64)
    assert errors["mae"] == pytest.approx(draws.std(ddof=1) / np.sqrt(SAMPLES), rel=1e-4)


def test_one_draw_shows_no_spread():
    outputs = np.zeros((1, 3, 2), np.float32)
    assert standard_errors(PosteriorPredictive(Categorical(), {}, outputs, {}, outputs.shape), np.zeros(3, int)) == {}

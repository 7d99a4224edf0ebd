"""The sampling error of a metric: the bootstrap over the examples."""

from __future__ import annotations

import numpy as np
import pytest

import tfp_bnn
from tfp_bnn.core.draws import FiniteDraws
from tfp_bnn.likelihoods import Categorical, Normal
from tfp_bnn.predictive import sampling_errors, score

N = 400


def predictive_of(outputs, likelihood):
    return tfp_bnn.PosteriorPredictive.from_draws(FiniteDraws([lambda x: x]), outputs, likelihood)


@pytest.mark.statistical
def test_errors_are_those_of_binomial_shares_and_of_means():
    # The relative error of a standard deviation of 400 resamples is 1 / sqrt(800): 20 % are more than 5 of these.
    rng = np.random.default_rng(0)
    classes = predictive_of(rng.normal(size=(N, 2)).astype(np.float32), Categorical())
    labels = rng.integers(0, 2, N)
    errors = sampling_errors(classes, labels, num_resamples=400)
    right = (classes.mean().argmax(axis=1) == labels).mean()
    assert errors["accuracy"] == pytest.approx(np.sqrt(right * (1 - right) / N), rel=0.2)
    assert errors["nll"] == pytest.approx(classes.log_prob(labels).std() / np.sqrt(N), rel=0.2)
    assert errors["entropy"] == pytest.approx(classes.entropy().std() / np.sqrt(N), rel=0.2)
    numbers, targets = predictive_of(np.zeros((N, 1), np.float32), Normal(scale=1.0)), rng.normal(size=(N, 1))
    errors = sampling_errors(numbers, targets, num_resamples=400)
    assert errors["mae"] == pytest.approx(np.abs(targets).std() / np.sqrt(N), rel=0.2)
    assert {"coverage_90", "rmse", "aleatoric_std"} <= set(errors)


def test_further_metrics_see_the_same_rows_and_undefined_ones_are_left_out():
    outputs = np.arange(8, dtype=np.float32).reshape(4, 2)
    seen = []

    def further(rows, y):
        seen.append((rows.mean(), y, rows.quantiles([0.5])))
        return {"first": float(y[0]), "never": float("nan")}

    predictive, y = predictive_of(outputs, Categorical()), np.array([0, 1, 0, 1])
    errors = sampling_errors(predictive, y, further, num_resamples=3)
    assert "never" not in errors
    assert "first" in errors
    whole = predictive.mean()
    for mean, of_rows, quantiles in seen:
        assert mean.shape == (4, 2)
        assert quantiles.shape == (1, 4, 2)
        assert set(map(tuple, mean)) <= set(map(tuple, whole))
        assert len(of_rows) == 4
    assert sampling_errors(predictive, y, num_resamples=3) == {k: v for k, v in errors.items() if k != "first"}


def test_few_observed_targets_are_fine_in_resampled_sets_and_in_batches():
    outputs, y = np.zeros((3, 1), np.float32), np.array([[1.0], [np.nan], [np.nan]], np.float32)
    likelihood = Normal(scale=1.0, missing="nan")
    # (2 / 3)^3, about 30 %, of the sets have no target.
    errors = sampling_errors(predictive_of(outputs, likelihood), y)
    assert errors["mae"] == 0.0
    pairs = [(predictive_of(outputs[rows], likelihood), y[rows]) for rows in (slice(2), slice(2, 3))]
    assert score(pairs) == score(predictive_of(outputs, likelihood), y)


def test_one_example_shows_no_spread():
    assert sampling_errors(predictive_of(np.zeros((1, 2), np.float32), Categorical()), [0]) == {}

"""Several yes-or-no labels for each example are scored."""

from __future__ import annotations

import numpy as np
import pytest

from tfp_bnn import metrics
from tfp_bnn.likelihoods import Bernoulli
from tfp_bnn.predictive import PosteriorPredictive, monte_carlo_error, score, standard_errors

RNG = np.random.default_rng(0)
ROWS, LABELS, SAMPLES = 50, 3, 6
OUTPUTS = RNG.normal(size=(SAMPLES, ROWS, LABELS)).astype(np.float32)
Y = RNG.integers(2, size=(ROWS, LABELS))


@pytest.fixture(scope="module")
def predictive():
    return PosteriorPredictive(Bernoulli(), {}, OUTPUTS, {}, OUTPUTS.shape)


def test_scores_are_over_all_labels_of_all_examples(predictive):
    found = score(predictive, Y)
    mean, flat = predictive.mean(), Y.reshape(-1)
    both = np.stack([1.0 - mean.reshape(-1), mean.reshape(-1)], axis=1)
    assert found["accuracy"] == pytest.approx(np.mean((mean > 0.5) == Y))
    assert found["brier"] == pytest.approx(2.0 * np.mean((mean - Y) ** 2), rel=1e-5)
    assert found["ece"] == pytest.approx(metrics.expected_calibration_error(flat, both))
    assert found["nll"] == pytest.approx(-predictive.log_prob(Y).mean(), rel=1e-6)
    assert found["entropy"] == pytest.approx(predictive.entropy().mean(), rel=1e-6)
    assert found["mutual_information"] == pytest.approx(predictive.epistemic().mean(), rel=1e-6)
    assert tuple(found) == predictive.likelihood.score_names(LABELS)
    assert set(score(predictive)) == {"entropy", "mutual_information"}


def test_standard_errors_are_those_of_other_mixtures_of_the_draws(predictive, monkeypatch):
    monkeypatch.setattr(monte_carlo_error, "NUM_RESAMPLES", 8)
    errors = standard_errors(predictive, Y)
    without = []
    for draw in range(SAMPLES):
        outputs = np.delete(OUTPUTS, draw, axis=0)
        without.append(score(PosteriorPredictive(Bernoulli(), {}, outputs, {}, outputs.shape), Y))
    resamples = np.random.default_rng(0).integers(SAMPLES, size=(8, SAMPLES))
    repeated = [OUTPUTS[draws] for draws in resamples]
    resampled = [score(PosteriorPredictive(Bernoulli(), {}, outputs, {}, outputs.shape), Y) for outputs in repeated]
    for name, error in errors.items():
        expected = np.sqrt((SAMPLES - 1) * np.var([scores[name] for scores in without]))
        if name in ("accuracy", "ece"):
            expected = np.std([scores[name] for scores in resampled], ddof=1)
        assert error == pytest.approx(expected, rel=2e-3, abs=1e-6), name
    assert set(errors) == set(without[0])


def test_one_logit_is_a_class_and_several_are_labels():
    assert Bernoulli().target_kind(1) == "class"
    assert Bernoulli().target_kind(LABELS) == "labels"
    assert Bernoulli().num_classes(1) == 2
    assert Bernoulli().num_outputs_for(Y) == LABELS
    assert Bernoulli().chance_nll(LABELS) == pytest.approx(LABELS * np.log(2))
    assert Bernoulli().training_metrics(1) == ["accuracy"]
    (of_labels,) = Bernoulli().training_metrics(LABELS)
    assert of_labels.name == "accuracy"


def test_labels_are_drawn(predictive):
    drawn = predictive.sample(SAMPLES, seed=1)
    assert drawn.shape == (SAMPLES, ROWS, LABELS)
    assert set(np.unique(drawn)) == {0.0, 1.0}

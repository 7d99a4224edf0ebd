"""Classes with an order: probabilities against SciPy, cutpoints and refusals."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import scipy.stats

from tfp_bnn.likelihoods import Ordinal
from tfp_bnn.predictive import PosteriorPredictive

CUTPOINTS = np.array([-1.0, 0.5, 3.0], np.float32)


@pytest.fixture
def learned(add_weight):
    likelihood = Ordinal(4)
    weights = likelihood.add_weights(add_weight)
    likelihood.assign_parameters(weights, {"cutpoints": CUTPOINTS})
    return likelihood, {role: np.asarray(value) for role, value in weights.items()}


def probabilities(outputs):
    below = scipy.special.expit(CUTPOINTS.astype(np.float64) - outputs.astype(np.float64))
    return np.diff(below, axis=-1, prepend=0.0, append=1.0)


def test_probabilities_are_differences_of_cumulative_ones(learned):
    likelihood, weights = learned
    outputs = np.random.default_rng(0).normal(size=(5, 7, 1)).astype(np.float32)
    np.testing.assert_allclose(likelihood.mean(outputs, weights), probabilities(outputs), rtol=1e-4)
    labels = np.random.default_rng(1).integers(4, size=7)
    expected = np.log(np.take_along_axis(probabilities(outputs), labels[None, :, None], -1))[..., 0]
    np.testing.assert_allclose(likelihood.log_prob(labels, outputs, weights), expected, rtol=1e-4, atol=1e-5)
    below, at_most = likelihood.levels(outputs, weights, labels)
    cumulative = np.cumsum(probabilities(outputs), axis=-1)
    np.testing.assert_allclose(at_most, np.take_along_axis(cumulative, labels[None, :, None], -1), rtol=1e-5)
    np.testing.assert_allclose(at_most - below, np.exp(expected)[..., None], rtol=1e-4)


@pytest.mark.parametrize("missing", [-1, "nan"])
def test_the_levels_of_missing_labels_are_nan(learned, missing):
    complete, weights = learned
    outputs = np.random.default_rng(0).normal(size=(2, 3, 1)).astype(np.float32)
    found = Ordinal(4, missing=missing).levels(outputs, weights, np.array([2.0, float(missing), 1.0]))
    expected = np.array(complete.levels(outputs, weights, np.array([2, 0, 1])))
    expected[:, :, 1] = np.nan
    np.testing.assert_array_equal(found, expected)


def test_all_classes_are_equally_likely_at_the_start(add_weight):
    likelihood = Ordinal(5)
    weights = likelihood.add_weights(add_weight)
    np.testing.assert_allclose(likelihood.mean(np.zeros((1, 1)), weights), np.full((1, 5), 0.2), rtol=1e-5)


@pytest.mark.statistical
def test_the_randomized_transform_of_drawn_classes_is_uniform(learned):
    # The Kolmogorov-Smirnov test of 2,000 values fails by chance at 1e-6; the seeds are fixed.
    likelihood, weights = learned
    rng = np.random.default_rng(0)
    outputs = (rng.normal(size=(1, 2000, 1)) + 0.5 * rng.normal(size=(3, 2000, 1))).astype(np.float32)
    predictive = PosteriorPredictive(likelihood, weights, outputs, {}, outputs.shape)
    drawn = predictive.sample(3, seed=1)
    y = drawn[rng.integers(3, size=2000), np.arange(2000)]
    assert scipy.stats.kstest(predictive.pit(y)[:, 0], "uniform").pvalue > 1e-6


def test_wrong_cutpoints_classes_and_outputs_are_refused(learned, add_weight):
    likelihood, _ = learned
    weights = likelihood.add_weights(add_weight)
    with pytest.raises(ValueError, match="must increase"):
        likelihood.assign_parameters(weights, {"cutpoints": CUTPOINTS[::-1]})
    with pytest.raises(ValueError, match="must have the shape"):
        likelihood.assign_parameters(weights, {"cutpoints": CUTPOINTS[:2]})
    with pytest.raises(ValueError, match=r"from 0 to 3, because the likelihood Ordinal\(num_classes=4\) has 4 classes"):
        likelihood.check_targets(np.array([0, 4]), 1)
    with pytest.raises(ValueError, match="needs one output, the place of an example"):
        likelihood.check_targets(np.array([0, 1]), 4)
    with pytest.raises(ValueError, match="has 4 classes, but the data have 3"):
        likelihood.num_outputs_for(np.array([0, 1]), 3)
    with pytest.raises(ValueError, match="`num_classes` must be an integer >= 2"):
        Ordinal(1)

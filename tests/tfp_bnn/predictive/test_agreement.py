"""Agreement with a reference: the distances are those of SciPy and of closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import scipy.stats

import tfp_bnn
from tfp_bnn.core.draws import FiniteDraws
from tfp_bnn.predictive import agreement, compared_arrays

ROWS = np.zeros((6, 1), np.float32)


def predictive(likelihood, *outputs):
    """The predictive of given raw outputs of each draw, `(n, channels)`."""
    draws = FiniteDraws([lambda x, array=array: array.astype(np.float32) for array in outputs])
    return tfp_bnn.PosteriorPredictive.from_draws(draws, ROWS, tfp_bnn.likelihoods.LIKELIHOODS.get(likelihood))


def test_classes_are_compared_by_argmax_and_total_variation():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(size=(2, 6, 3)), rng.normal(size=(1, 6, 3))
    found = agreement(predictive("categorical", *ours), predictive("categorical", *theirs))
    p, r = (scipy.special.softmax(part, axis=-1).mean(axis=0) for part in (ours, theirs))
    # The largest difference of the probabilities of any event.
    events = [[int(bit) for bit in f"{number:03b}"] for number in range(8)]
    largest = np.max([np.abs((p - r) @ event) for event in events], axis=0)
    assert found["total_variation"] == pytest.approx(largest.mean(), rel=1e-5)
    assert found["agreement"] == np.mean(p.argmax(axis=-1) == r.argmax(axis=-1))
    assert 0 < found["agreement"] < 1


def test_one_logit_is_compared_as_two_classes():
    one, other = (predictive("bernoulli", np.full((6, 1), logit)) for logit in (2.0, -1.0))
    found = agreement(one, other)
    distance = scipy.special.expit(2.0) - scipy.special.expit(-1.0)
    assert found == {"agreement": 0.0, "total_variation": pytest.approx(distance, rel=1e-5)}
    assert compared_arrays(other).shape == (6, 2)
    # As earlier versions stored a reference.
    assert agreement(one, other.mean()) == found


def test_each_label_is_a_question_with_two_answers():
    ours, theirs = np.full((6, 2), [0.2, 3.0]), np.full((6, 2), [-0.2, 1.0])
    found = agreement(predictive("bernoulli", ours), predictive("bernoulli", theirs))
    difference = scipy.special.expit([0.2, 3.0]) - scipy.special.expit([-0.2, 1.0])
    assert found == {"agreement": 0.5, "total_variation": pytest.approx(np.abs(difference).mean(), rel=1e-5)}


@pytest.mark.slow
def test_numbers_are_compared_by_the_wasserstein_distance_of_their_mixtures():
    rng = np.random.default_rng(1)
    likelihood = {"name": "normal", "scale": 2.0}
    ours, theirs = rng.normal(scale=3.0, size=(2, 6, 1)), rng.normal(scale=3.0, size=(3, 6, 1))
    found = agreement(predictive(likelihood, *ours), predictive(likelihood, *theirs))["wasserstein"]
    # The integral of the absolute difference of the distribution functions.
    points = np.linspace(-30, 30, 20_001)[:, None, None]
    functions = [scipy.stats.norm.cdf(points, part[None, ..., 0], 2.0).mean(axis=1) for part in (ours, theirs)]
    expected = np.abs(functions[0] - functions[1]).sum(axis=0).mean() * (points[1] - points[0]).item()
    assert found == pytest.approx(expected, rel=0.02)


@pytest.mark.slow
def test_a_stored_reference_is_as_good_as_its_draws():
    one, other = (predictive("categorical", np.eye(6, 3) * scale) for scale in (1.0, 2.0))
    assert compared_arrays(other).shape == (6, 3)
    assert agreement(one, compared_arrays(other)) == agreement(one, other)
    numbers = compared_arrays(predictive({"name": "normal", "scale": 1.0}, np.ones((6, 1))))
    assert numbers.shape == (6, 1, 50)
    np.testing.assert_allclose(numbers[0, 0], scipy.stats.norm.ppf((np.arange(50) + 0.5) / 50, 1.0), atol=1e-4)


def test_a_reference_for_other_inputs_is_refused():
    with pytest.raises(ValueError, match=r"have the shape \(6, 3\), but those of the reference \(5, 3\)"):
        agreement(predictive("categorical", np.eye(6, 3)), np.ones((5, 3)))

"""Thompson sampling: one draw of the posterior is one policy."""

from __future__ import annotations

import numpy as np
import pytest

from tfp_bnn.acquisition import thompson
from tfp_bnn.likelihoods import Bernoulli, Categorical, Normal
from tfp_bnn.predictive import PosteriorPredictive


def predictive_of(outputs, likelihood=None):
    outputs = np.asarray(outputs, np.float32)
    return PosteriorPredictive(likelihood or Normal(scale=1.0), {}, outputs, {}, outputs.shape)


def test_every_decision_takes_the_best_arm_of_one_draw():
    """Draw s says that arm s is best in every context, so an arm tells its draw."""
    outputs = np.broadcast_to(np.eye(3)[:, None], (3, 200, 3))
    arms = thompson(predictive_of(outputs))
    assert arms.shape == (200,)
    assert set(arms) == {0, 1, 2}
    np.testing.assert_array_equal(arms, thompson(predictive_of(outputs)))
    assert list(arms) != list(thompson(predictive_of(outputs), seed=1))


def test_the_arms_of_a_decision_are_compared_under_the_same_draw():
    """Arm 1 is better by 1 under both draws, although arm 0 of the second beats arm 1 of the first."""
    outputs = np.array([[[0.0, 1.0]], [[10.0, 11.0]]])
    chosen = {int(thompson(predictive_of(outputs), seed=seed)[0]) for seed in range(20)}
    assert chosen == {1}


@pytest.mark.statistical
def test_an_arm_is_chosen_with_the_probability_that_it_is_best():
    """20,000 decisions; arm 0 is best under 1 of 4 draws. The bound is 5 standard errors: 6e-7 false failures."""
    outputs = np.zeros((4, 20_000, 2))
    outputs[0, :, 0], outputs[1:, :, 1] = 1.0, 1.0
    share = np.mean(thompson(predictive_of(outputs)) == 0)
    assert abs(share - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 20_000)


def test_inputs_can_be_the_arms():
    """Each draw prefers another of four inputs."""
    outputs = np.eye(4)[:, :, None]
    found = {int(thompson(predictive_of(outputs), arms="inputs", seed=seed)) for seed in range(40)}
    assert found == {0, 1, 2, 3}


def test_rewards_of_0_and_1_are_compared_by_their_probability():
    arms = thompson(predictive_of([[[-3.0, 2.0], [4.0, 1.0]]], Bernoulli()))
    assert list(arms) == [1, 0]
    assert thompson(predictive_of([[[-3.0], [4.0]]], Bernoulli()), arms="inputs") == 1


def test_predictions_that_are_no_arms_are_refused():
    with pytest.raises(ValueError, match=r"shape \(contexts, arms\) with two arms or more, but they have \(5, 1\)"):
        thompson(predictive_of(np.zeros((2, 5, 1))))
    with pytest.raises(ValueError, match=r"shape \(arms, 1\), but they have \(5, 2\)"):
        thompson(predictive_of(np.zeros((2, 5, 2))), arms="inputs")
    with pytest.raises(ValueError, match=r"Categorical\(\) predicts the probabilities of classes, which are none"):
        thompson(predictive_of(np.zeros((2, 5, 3)), Categorical()))
    with pytest.raises(ValueError, match="'targets' or 'inputs'"):
        thompson(predictive_of(np.zeros((2, 5, 2))), arms="arms")  # type: ignore[arg-type]

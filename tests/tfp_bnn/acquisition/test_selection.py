"""Scores of inputs and the choice of a batch, against sums over all labels that are written out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import tfp_bnn
from tfp_bnn import acquisition
from tfp_bnn.likelihoods import Bernoulli, Categorical, Normal
from tfp_bnn.predictive import JointPredictive, PosteriorPredictive

RNG = np.random.default_rng(0)


def predictive_of(outputs, likelihood=None):
    outputs = np.asarray(outputs, np.float32)
    return PosteriorPredictive(likelihood or Categorical(), {}, outputs, {}, outputs.shape)


def random_predictive(draws=4, rows=5, classes=3, spread=2.0, seed=0):
    return predictive_of(np.random.default_rng(seed).normal(scale=spread, size=(draws, rows, classes)))


def of_probabilities(probabilities):
    return predictive_of(np.log(np.maximum(probabilities, 1e-30)))


def entropy_of(p):
    p = np.ravel(p)
    return -np.sum(p[p > 0] * np.log(p[p > 0]))


def joint_information(probabilities, batch):
    """I(y_1, ..., y_b; w) in nats, by a sum over every set of labels and every draw."""
    draws, _, classes = probabilities.shape
    joint = {}
    for labels in itertools.product(range(classes), repeat=len(batch)):
        of_draws = [np.prod([probabilities[s, i, c] for i, c in zip(batch, labels, strict=True)]) for s in range(draws)]
        joint[labels] = np.mean(of_draws)
    given_weights = np.mean([sum(entropy_of(probabilities[s, i]) for i in batch) for s in range(draws)])
    return entropy_of(np.array(list(joint.values()))) - given_weights


def greedy(probabilities, number):
    chosen = []
    while len(chosen) < number:
        left = [i for i in range(probabilities.shape[1]) if i not in chosen]
        chosen.append(max(left, key=lambda i: joint_information(probabilities, [*chosen, i])))
    return chosen


# === Scores ===


def test_bald_is_the_mutual_information_of_label_and_draw():
    predictive = random_predictive()
    p = predictive.samples.astype(np.float64)
    expected = [joint_information(p, [i]) for i in range(5)]
    np.testing.assert_allclose(acquisition.bald(predictive), expected, atol=1e-6)


def test_entropy_and_variation_ratio_are_those_of_the_mean_probabilities():
    predictive = random_predictive()
    mean = predictive.samples.astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(acquisition.entropy(predictive), [entropy_of(p) for p in mean], rtol=1e-5)
    np.testing.assert_allclose(acquisition.variation_ratio(predictive), 1 - mean.max(axis=1), rtol=1e-5)


@pytest.mark.parametrize("labels", [1, 2])
def test_the_variation_ratio_of_labels_is_that_of_the_likelier_answer(labels):
    outputs = RNG.normal(scale=3.0, size=(4, 6, labels)).astype(np.float32)
    p = (1 / (1 + np.exp(-outputs.astype(np.float64)))).mean(axis=0)
    found = acquisition.variation_ratio(predictive_of(outputs, Bernoulli()))
    np.testing.assert_allclose(found, (1 - np.maximum(p, 1 - p)).mean(axis=1), rtol=1e-5)


def test_an_ambiguous_input_has_entropy_but_teaches_nothing():
    ambiguous, disputed = [[0.5, 0.5]] * 2, [[1.0, 0.0], [0.0, 1.0]]
    predictive = of_probabilities(np.stack([ambiguous, disputed], axis=1))
    np.testing.assert_allclose(acquisition.entropy(predictive), np.log(2), rtol=1e-6)
    np.testing.assert_allclose(acquisition.bald(predictive), [0.0, np.log(2)], atol=1e-6)


def test_the_standard_deviation_is_that_of_the_means_of_the_draws():
    outputs = RNG.normal(size=(6, 5, 2)).astype(np.float32)
    expected = np.sqrt(outputs.astype(np.float64).var(axis=0).mean(axis=-1))
    predictive = predictive_of(outputs, Normal(scale=2.0))
    np.testing.assert_allclose(acquisition.standard_deviation(predictive), expected, rtol=1e-5)
    assert acquisition.select(predictive, 1, by="standard_deviation") == expected.argmax()


def test_positions_are_averaged():
    predictive = predictive_of(RNG.normal(size=(3, 4, 2, 5, 3)))
    for score, values in (
        (acquisition.bald, predictive.epistemic()),
        (acquisition.variation_ratio, 1 - predictive.mean().max(axis=-1)),
    ):
        np.testing.assert_allclose(score(predictive), values.mean(axis=(1, 2)), rtol=1e-5)


# === BatchBALD ===


def mutual_information_by_gains(predictive, batch, **arguments):
    """The information of a batch, as the sum of what BatchBALD says that each input adds."""
    from tfp_bnn.acquisition.batch_bald import _class_probabilities, _Labels

    labels = _Labels(_class_probabilities(predictive), arguments.pop("most", 10_000), seed=0)
    total = 0.0
    for index in batch:
        total += labels.gains(np.array([index]))[0]
        labels.add(index)
    return total


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("batch", [[0], [1, 3], [4, 0, 2]])
def test_the_information_of_a_batch_is_the_sum_over_all_sets_of_labels(batch, classes):
    predictive = random_predictive(classes=classes)
    expected = joint_information(predictive.samples.astype(np.float64), batch)
    assert mutual_information_by_gains(predictive, batch) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_the_batch_is_that_of_a_greedy_search_over_all_inputs(seed):
    predictive = random_predictive(rows=9, seed=seed)
    assert list(acquisition.batch_bald(predictive, 3)) == greedy(predictive.samples.astype(np.float64), 3)


def test_inputs_that_are_left_out_as_hopeless_do_not_change_the_batch():
    """200 inputs: most are evaluated only once, at the start."""
    predictive = random_predictive(rows=200)
    assert list(acquisition.batch_bald(predictive, 2)) == greedy(predictive.samples.astype(np.float64), 2)


def test_the_same_input_twice_is_chosen_once_before_another_is():
    """Inputs 0 and 1 are copies: the second has the next highest score, but its label is known from the first."""
    copied = np.array([[0.9, 0.1], [0.1, 0.9], [0.9, 0.1], [0.1, 0.9]])
    other = np.array([[0.8, 0.2], [0.8, 0.2], [0.2, 0.8], [0.2, 0.8]])
    predictive = of_probabilities(np.stack([copied, copied, other], axis=1))
    assert list(acquisition.select(predictive, 2, by="bald")) == [0, 1]
    assert list(acquisition.select(predictive, 2, by="batch_bald")) == [0, 2]


def test_drawn_sets_of_labels_give_the_information_of_all():
    """Of nine inputs, the sets of labels of the first eight, 6,561, are enumerated, or drawn beyond 2,000."""
    predictive = random_predictive(rows=9)
    exact, drawn = (mutual_information_by_gains(predictive, range(9), most=most) for most in (10_000, 2_000))
    assert drawn != exact
    assert drawn == pytest.approx(exact, abs=0.02)


def test_a_batch_beyond_all_enumeration_is_reproducible_and_without_repetition():
    predictive = random_predictive(draws=5, rows=16, classes=10)
    first, again, other = (acquisition.batch_bald(predictive, 9, seed, most_configurations=200) for seed in (0, 0, 1))
    assert len(set(first)) == 9
    np.testing.assert_array_equal(first, again)
    assert list(first) != list(other)


def test_certain_draws_have_no_impossible_labels():
    """Probabilities of exactly 0: every draw is certain, and the labels of input 0 tell the draw."""
    certain = np.zeros((2, 3, 2))
    certain[0, :, 0] = certain[1, :, 1] = 1.0
    certain[1, 2] = [1.0, 0.0]
    outputs = np.where(certain > 0, 200.0, -200.0)
    assert list(acquisition.batch_bald(predictive_of(outputs), 3)) == [0, 1, 2]
    assert mutual_information_by_gains(predictive_of(outputs), [0, 1, 2]) == pytest.approx(np.log(2), abs=1e-6)


def test_one_label_counts_as_two_classes():
    outputs = RNG.normal(scale=2.0, size=(4, 6, 1)).astype(np.float32)
    of_classes = predictive_of(np.concatenate([np.zeros_like(outputs), outputs], axis=-1))
    batch = acquisition.batch_bald(predictive_of(outputs, Bernoulli()), 3)
    np.testing.assert_array_equal(batch, acquisition.batch_bald(of_classes, 3))


# === Selection ===


@pytest.mark.parametrize("by", ["bald", "entropy", "variation_ratio"])
def test_the_highest_scores_are_chosen_in_their_order(by):
    predictive = random_predictive(rows=30)
    scores = getattr(acquisition, by)(predictive)
    chosen = acquisition.select(predictive, 7, by)
    np.testing.assert_array_equal(chosen, np.argsort(-scores, kind="stable")[:7])
    assert chosen.dtype == np.int64


def test_a_function_can_score():
    predictive = random_predictive()
    assert list(acquisition.select(predictive, 2, by=lambda p: np.arange(len(p)))) == [4, 3]


def test_random_choice_is_a_function_of_its_seed():
    predictive = random_predictive(rows=50)
    first, again, other = (acquisition.select(predictive, 50, "random", seed) for seed in (0, 0, 1))
    assert sorted(first) == list(range(50))
    np.testing.assert_array_equal(first, again)
    assert list(first) != list(other)


@pytest.mark.parametrize("number", [0, 6, 1.5])
@pytest.mark.parametrize("by", ["bald", "batch_bald"])
def test_a_number_that_cannot_be_chosen_is_refused(by, number):
    with pytest.raises(ValueError, match="number"):
        acquisition.select(random_predictive(), number, by)


def test_what_does_not_fit_the_targets_is_refused():
    numbers = predictive_of(np.zeros((2, 3, 1)), Normal(scale=1.0))
    for by in ("bald", "batch_bald", "variation_ratio"):
        with pytest.raises(ValueError, match=r"predicts numbers. Use .*standard_deviation"):
            acquisition.select(numbers, 1, by)
    with pytest.raises(ValueError, match="by='bald'"):
        acquisition.select(random_predictive(), 1, "standard_deviation")
    for several in (predictive_of(np.zeros((2, 3, 4, 2))), predictive_of(np.zeros((2, 3, 2)), Bernoulli())):
        with pytest.raises(ValueError, match="an input has several"):
            acquisition.select(several, 1, "batch_bald")
    joint = JointPredictive(tfp_bnn.likelihoods.Joint({"class": "categorical"}), {"class": random_predictive()})
    scores = (acquisition.bald, acquisition.entropy, acquisition.variation_ratio, acquisition.standard_deviation)
    for use in (*scores, lambda joint: acquisition.select(joint, 1)):
        with pytest.raises(TypeError, match="predictive\\['class'\\]"):
            use(joint)


@pytest.mark.parametrize("by", ["bald", "batch_bald", "entropy"])
def test_predictions_that_are_nan_are_refused(by):
    outputs = RNG.normal(size=(2, 5, 3))
    outputs[1, 3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        acquisition.select(predictive_of(outputs), 2, by)


def test_bad_names_and_scores_are_refused():
    with pytest.raises(ValueError, match="Did you mean 'bald'"):
        acquisition.select(random_predictive(), 1, "balt")
    with pytest.raises(ValueError, match=r"one number for each of the 5 inputs.*\(5,\) with 1 NaN"):
        acquisition.select(random_predictive(), 1, lambda _: np.array([0, 1, np.nan, 2, 3]))
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        acquisition.select(random_predictive(), 1, lambda _: np.zeros(2))

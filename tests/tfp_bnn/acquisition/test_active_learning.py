"""The loop that trains, chooses and labels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

from tfp_bnn.acquisition import active_learning, select
from tfp_bnn.core.draws import FiniteDraws
from tfp_bnn.likelihoods import Categorical
from tfp_bnn.predictive import PosteriorPredictive, score

X = np.linspace(-2, 2, 23, dtype=np.float32)[:, None]
Y = (X[:, 0] > 0.3).astype(np.int64)


class Model:
    """Draws of lines that depend on what it was trained on."""

    def __init__(self, x, y, seed):
        self.x, self.y, self.seed = x, y, seed

    def posterior_predictive(self, x, num_samples, seed):
        slopes = np.random.default_rng(self.seed).normal(size=(num_samples, 2)) + np.array([0, self.y.mean()])
        functions = [lambda x, w=w: np.asarray(x, np.float32) * w.astype(np.float32) for w in slopes]
        x = x.toarray() if scipy.sparse.issparse(x) else x
        return PosteriorPredictive.from_draws(FiniteDraws(functions), x, Categorical(), num_samples)


def rounds(number_of_rounds=None, **arguments):
    arguments = {"initial": 4, "number": 5, "num_samples": 6, **arguments}
    return list(itertools.islice(active_learning(Model, X, Y, **arguments), number_of_rounds))


def test_every_round_labels_what_its_predictive_selects():
    found = rounds(test_data=(X, Y), by="bald")
    assert [step.num_labels for step in found] == [4, 9, 14, 19, 23]
    for step, following in itertools.pairwise(found):
        np.testing.assert_array_equal(following.labelled[: step.num_labels], step.labelled)
        left = np.setdiff1d(np.arange(23), step.labelled)
        predictive = step.model.posterior_predictive(X[left], 6, 0)
        number = following.num_labels - step.num_labels
        np.testing.assert_array_equal(following.labelled[step.num_labels :], left[select(predictive, number, "bald")])
    assert sorted(found[-1].labelled) == list(range(23))


def test_a_model_sees_the_labels_that_were_chosen_and_no_others():
    for step in rounds():
        np.testing.assert_array_equal(step.model.x, X[step.labelled])
        np.testing.assert_array_equal(step.model.y, Y[step.labelled])


def test_scores_are_those_of_the_test_data():
    (step,) = rounds(1, test_data=(X[::2], Y[::2]))
    assert step.scores == score(step.model.posterior_predictive(X[::2], 6, 0), Y[::2])
    (without,) = rounds(1)
    assert without.scores == {}


def test_runs_of_equal_seeds_are_equal_and_paired_across_acquisitions():
    first, again, random, other = rounds(seed=3), rounds(seed=3), rounds(seed=3, by="random"), rounds(seed=4)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.labelled, b.labelled)
    np.testing.assert_array_equal(first[0].labelled, random[0].labelled)
    assert [step.model.seed for step in first] == [step.model.seed for step in random]
    assert len({step.model.seed for step in first}) == len(first)
    assert list(first[1].labelled) != list(random[1].labelled)
    assert list(first[0].labelled) != list(other[0].labelled)


def test_the_first_examples_can_be_given():
    (step,) = rounds(1, initial=[7, 3])
    assert list(step.labelled) == [7, 3]


def test_inputs_can_be_dictionaries_or_sparse():
    class OfParts(Model):
        def posterior_predictive(self, x, num_samples, seed):
            return super().posterior_predictive(x["a"], num_samples, seed)

    (step,) = itertools.islice(active_learning(OfParts, {"a": X}, Y, initial=3), 1)
    np.testing.assert_array_equal(step.model.x["a"], X[step.labelled])
    found = list(active_learning(Model, scipy.sparse.csr_matrix(X), Y, initial=20, number=3, num_samples=2))
    assert [step.num_labels for step in found] == [20, 23]


def test_a_pool_of_tensors_is_that_of_their_arrays():
    (of_tensors,) = itertools.islice(active_learning(Model, tf.constant(X), tf.constant(Y), initial=3), 1)
    (of_arrays,) = itertools.islice(active_learning(Model, X, Y, initial=3), 1)
    np.testing.assert_array_equal(of_tensors.model.x, of_arrays.model.x)
    np.testing.assert_array_equal(of_tensors.model.y, of_arrays.model.y)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"number": 0}, "number"),
        ({"initial": 24}, "the pool has 23 examples"),
        ({"initial": 0}, "initial"),
        ({"initial": [1, 1]}, "different indices from 0 to 22"),
        ({"initial": [-1]}, "different indices from 0 to 22"),
        ({"initial": [0.5]}, "different indices"),
        ({"by": "balt"}, "Did you mean 'bald'"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_trained(arguments, message):
    with pytest.raises(ValueError, match=message):
        active_learning(None, X, Y, **arguments)


def test_pools_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="23 inputs but 22 targets"):
        active_learning(Model, X, Y[1:])
    for x, y in ((iter([X]), Y), (X, iter([Y]))):
        with pytest.raises(ValueError, match="a stream of batches"):
            active_learning(Model, x, y)


def test_a_pool_can_be_a_sparse_tensor():
    pools = X, tf.sparse.from_dense(X)
    found = [list(active_learning(Model, x, Y, initial=4, number=10, num_samples=3)) for x in pools]
    assert [step.labelled.tolist() for step in found[0]] == [step.labelled.tolist() for step in found[1]]

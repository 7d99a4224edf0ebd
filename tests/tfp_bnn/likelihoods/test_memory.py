"""What is computed from many numbers is computed from a few of them at a time."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from tfp_bnn.likelihoods import Laplace, Likelihood, Normal, examples, marginals
from tfp_bnn.likelihoods.marginals import ENTROPY_POINTS, NUM_DRAWS, Marginals
from tfp_bnn.predictive import PosteriorPredictive, drawing

from .own_likelihoods import Hurdle, JointNormal

DRAWS, ROWS = 3, 40
OUTPUTS = np.random.default_rng(0).normal(size=(DRAWS, ROWS, 2)).astype(np.float32)


class Softened(Likelihood):
    """A positive number without a mean in closed form."""

    def distribution(self, outputs, weights):
        return tfd.TransformedDistribution(tfd.Normal(outputs[..., 0], 0.5), tfb.Softplus())


@pytest.fixture
def sampled(monkeypatch):
    """The samples of marginal distributions that are drawn in a test."""
    found = []
    draw = Marginals.sample

    def sample(self, number, seed):
        found.append(draw(self, number, seed).numpy())
        return tf.constant(found[-1])

    monkeypatch.setattr(Marginals, "sample", sample)
    return found


@pytest.mark.parametrize("parts", [1, 3])
def test_sampled_moments_are_those_of_all_samples_of_which_few_are_in_memory(parts, sampled, monkeypatch):
    limit = NUM_DRAWS * DRAWS * ROWS // parts
    monkeypatch.setattr(marginals, "_NUMBERS_AT_ONCE", limit)
    distribution = Softened().distribution(tf.constant(OUTPUTS), {})
    for name, moment in (("mean", np.mean), ("variance", np.var)):
        sampled.clear()
        found = getattr(Marginals(distribution), name)()
        assert max(part.size for part in sampled) <= limit
        draws = np.concatenate(sampled)
        assert NUM_DRAWS <= len(draws) < NUM_DRAWS + len(sampled[0])
        np.testing.assert_allclose(found, moment(draws.astype(np.float64), axis=0), rtol=1e-4)


@pytest.mark.parametrize(("likelihood", "targets"), [(Normal(0.7), 2), (JointNormal(), 2), (Laplace("per_example"), 1)])
def test_levels_are_those_of_all_rows_of_which_few_are_in_memory(likelihood, targets, sampled, monkeypatch):
    y = np.random.default_rng(1).normal(size=(ROWS, targets)).astype(np.float32)
    whole = likelihood.levels(OUTPUTS, {}, y)
    sampled.clear()
    monkeypatch.setattr(examples, "_ROWS_AT_ONCE", 16)
    # A share of samples has a standard error of 0.014 at most; another seed gives other samples.
    np.testing.assert_allclose(likelihood.levels(OUTPUTS, {}, y), whole, atol=0.1 if sampled else 1e-6)
    assert all(part.shape[2] <= 16 for part in sampled)


@pytest.mark.parametrize("draws", [1, DRAWS])
def test_the_entropy_of_few_draws_takes_few_rows_at_a_time(draws, monkeypatch):
    likelihood, outputs, rows = Normal(0.7), OUTPUTS[:draws], []
    whole = PosteriorPredictive(likelihood, {}, outputs, {}, outputs.shape).entropy()
    limit = 8 * ENTROPY_POINTS
    entropy = Normal.entropy

    def counted(self, outputs, weights):
        rows.append(outputs.shape[1])
        return entropy(self, outputs, weights)

    monkeypatch.setattr(drawing, "_NUMBERS_AT_ONCE", limit)
    monkeypatch.setattr(Normal, "entropy", counted)
    np.testing.assert_allclose(
        PosteriorPredictive(likelihood, {}, outputs, {}, outputs.shape).entropy(), whole, rtol=1e-5
    )
    assert sum(rows) == ROWS
    # Two targets.
    assert max(rows) * 2 * ENTROPY_POINTS <= limit


def test_no_rows_are_sampled_to_find_out_whether_targets_are_whole_numbers(sampled):
    predictive = PosteriorPredictive(Hurdle(), {}, OUTPUTS, {}, OUTPUTS.shape)
    predictive.interval(0.9)
    predictive.pit(np.ones(ROWS))
    assert sampled
    # The likelihood asks two draws of three rows, or three rows alone.
    assert all(part.shape[-2] <= 3 for part in sampled)


class Rare(Hurdle):
    """Zero with the probability sigmoid(output + shift), else a number of Gamma(2, 1). Probes have outputs of 1."""

    shift = 0.0

    def distribution(self, outputs, weights):
        zero = tf.zeros_like(outputs[..., 0])
        choice = tfd.Categorical(logits=tf.stack([outputs[..., 0] + self.shift, zero], axis=-1))
        return tfd.Mixture(choice, [tfd.Deterministic(zero), tfd.Gamma(2.0 + zero, 1.0)])


@pytest.mark.parametrize("shift", [4.0, 40.0])
def test_a_number_is_no_whole_one_because_a_probe_of_the_likelihood_gives_only_zeros(shift, monkeypatch):
    """Of 96 draws all are 0 with a probability of 1/2 for the first shift; of any number for the second."""
    monkeypatch.setattr(Rare, "shift", shift)
    outputs = np.full((DRAWS, ROWS, 1), -6.0 - shift, np.float32)
    found = Rare().quantiles(outputs, {}, [0.3, 0.5, 0.9])[:, 0, 0]
    # Of Gamma(2, 1), but for a zero in 400.
    np.testing.assert_allclose(found, tfd.Gamma(2.0, 1.0).quantile([0.298, 0.499, 0.8998]), rtol=2e-3)

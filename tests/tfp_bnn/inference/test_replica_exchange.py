"""Replica exchange: modes get the weight that Bayes' rule gives them, and ladders with gaps are told."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_bnn
from tfp_bnn.inference import hmc, mcmc
from tfp_bnn.inference.convergence import effective_sample_size
from tfp_bnn.inference.log_posterior import LogPosterior
from tfp_bnn.inference.replica_exchange import exchange_rates, warn_of_gaps
from tfp_bnn.layers import DenseFlipout

X, Y = np.ones((8, 1), np.float32), np.full((8, 1), 4.0, np.float32)
NOISE, LOC, SCALE = 0.5, 0.25, 1.0
QUICK = {"num_samples": 10, "burn_in": 10, "num_chains": 2, "num_leapfrog_steps": 2, "verbose": 0}


@keras.saving.register_keras_serializable("test_replica_exchange")
def square(values):
    return values**2


def two_modes():
    """y = w^2 x: one mode at w = 2 and one at -2, more than 200 nats above what is between them."""
    layer = DenseFlipout(
        1,
        use_bias=False,
        activation=square,
        kernel_prior={"name": "normal", "loc": LOC, "scale": SCALE},
        name="outputs",
    )
    likelihood = {"name": "normal", "scale": NOISE}
    return tfp_bnn.VariationalSequential([keras.Input((1,)), layer], likelihood=likelihood, seed=0, name="modes")


def exact_probability_of_the_right_mode():
    w = np.linspace(-6, 6, 200_001)
    log_density = -0.5 * ((w - LOC) / SCALE) ** 2 - 0.5 * len(X) * ((Y[0, 0] - w**2) / NOISE) ** 2
    density = np.exp(log_density - log_density.max())
    return density[w > 0].sum() / density.sum()


@pytest.mark.slow
@pytest.mark.statistical
def test_the_modes_have_their_exact_weights_where_single_chains_stay_in_the_first_that_they_find():
    """32 chains of 500 states; their share in the right mode has an effective size of more than 300.

    The share is within 5.5 standard errors of quadrature: a false-failure rate below 4e-8.
    """
    settings = {**QUICK, "burn_in": 200, "num_chains": 32, "num_leapfrog_steps": 5}
    chains = hmc(two_modes(), X, Y, **{**settings, "num_samples": 500}, num_temperatures=8)
    right = (chains.states["outputs/kernel"][..., 0, 0] > 0).astype(np.float64)
    assert effective_sample_size(right) > 300
    expected = exact_probability_of_the_right_mode()
    assert expected == pytest.approx(0.73, abs=0.01)
    error = np.sqrt(expected * (1 - expected) / effective_sample_size(right))
    assert abs(right.mean() - expected) < 5.5 * error
    assert 0.3 < chains.statistics["exchange_rate"].mean() < 1
    alone = hmc(two_modes(), X, Y, **settings).states["outputs/kernel"] > 0
    assert (alone == alone[:, :1]).all()


@pytest.mark.slow
def test_equal_seeds_give_equal_chains_whose_statistics_are_those_of_the_states_that_are_kept():
    first, thinned = (
        hmc(two_modes(), X, Y, **{**QUICK, **arguments}, num_temperatures=5)
        for arguments in ({}, {"num_samples": 5, "thin": 2})
    )
    rates = [chains.statistics["exchange_rate"] for chains in (first, thinned)]
    np.testing.assert_array_equal(rates[1], rates[0][:, 1::2])
    kernels = first.states["outputs/kernel"]
    np.testing.assert_array_equal(thinned.states["outputs/kernel"], kernels[:, 1::2])
    posterior = LogPosterior(two_modes(), X, Y, None, 1.0, "hmc")
    log_posteriors = posterior(tf.constant(kernels.reshape(-1, 1))).numpy().reshape(2, 10)
    np.testing.assert_allclose(first.statistics["log_posterior"], log_posteriors, rtol=1e-4, atol=1e-2)
    assert {name: array.shape for name, array in first.statistics.items()} == dict.fromkeys(
        ("acceptance_rate", "step_size", "log_posterior", "diverging", "n_steps", "exchange_rate"), (2, 10)
    )


@pytest.mark.parametrize(("thin", "first"), [(1, 1.0), (2, 2 / 3), (3, 4 / 5), (4, 2 / 3)])
def test_all_pairs_of_neighbours_count_equally_in_the_rate_of_a_state(thin, first):
    """Four replicas of two chains: of the first chain the outer pairs always exchange, and the inner one never."""
    exchanges = np.full((12, 3, 2), np.nan, np.float32)
    exchanges[::2, ::2] = [1.0, 0.0]
    exchanges[1::2, 1] = [0.0, 1.0]
    rates = exchange_rates(exchanges, thin)
    assert rates.shape == (12 // thin, 2)
    np.testing.assert_allclose(rates[1:], [[2 / 3, 1 / 3]] * (12 // thin - 1), rtol=1e-6)
    np.testing.assert_allclose(rates[0], [first, 1 - first], rtol=1e-6)


def test_neighbours_that_hardly_exchange_are_warned_of():
    """Three replicas of one chain; each pair is offered an exchange in every second step."""
    exchanges = np.full((100, 2, 1), np.nan, np.float32)
    exchanges[::2, 0] = 1.0
    exchanges[1::2, 1] = 0.0
    warn_of_gaps(exchanges[:99])  # 49 offers say too little
    with pytest.warns(UserWarning, match=r"in only 0% of the offers.* Use more than 3 temperatures"):
        warn_of_gaps(exchanges)
    exchanges[1:11:2, 1] = 1.0
    warn_of_gaps(exchanges)


def test_the_parts_of_the_log_posterior_sum_to_it_whatever_the_leading_axes():
    posterior = LogPosterior(two_modes(), X, Y, None, 1.0, "hmc")
    vectors = posterior.draw_of_prior(6, 0)
    stacked = tf.reshape(vectors, (3, 2, 1))
    parts = posterior.log_likelihood_of_data(stacked) + posterior.log_prior(stacked)
    np.testing.assert_allclose(tf.reshape(parts, [6]), posterior(vectors), rtol=1e-6)


def test_the_spread_of_a_prior_is_its_median_deviation():
    """Of a normal distribution .674 standard deviations; the median of 20,000 draws is within .05 of that."""
    posterior = LogPosterior(two_modes(), X, Y, None, 1.0, "hmc")
    np.testing.assert_allclose(posterior.spread_of_prior(0, 20_000), 0.6745 * SCALE, atol=0.05)


def test_the_rows_of_all_temperatures_count(monkeypatch):
    monkeypatch.setattr(mcmc, "_MOST_ROWS", 100)
    with pytest.raises(ValueError, match=r"14 x 8 = 112 rows through the network at once; at most 100 fit"):
        hmc(two_modes(), X, Y, num_chains=2, num_temperatures=7)
    with pytest.raises(ValueError, match="`num_temperatures` must be an integer >= 1"):
        hmc(two_modes(), X, Y, num_temperatures=0)

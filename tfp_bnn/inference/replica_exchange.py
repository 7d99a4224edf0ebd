"""Replica exchange, or parallel tempering: copies of a chain, up to the prior, that carry it from mode to mode."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_bnn.inference.log_posterior import LogPosterior

EXCHANGES = "exchanges"
"""Name of the statistic `(K - 1, chains)`: 1 if replicas k and k + 1 exchanged their states, 0 if they did not, NaN if
there was no offer."""

_LEAST_RATE, _ENOUGH_OFFERS = 0.1, 50
# Replicas near the prior differ most, in inverse temperatures that are small.
_POWER = 3


def replica_exchange(
    posterior: LogPosterior,
    scale: tf.Tensor,
    make_kernel: Callable[[Any, tf.Tensor], Any],
    step_size: float,
    num_temperatures: int,
) -> Any:
    """The kernel of K replicas of each chain, of the densities p(data | w)^b p(w), with b from 1 to 0.

    Pairs of neighbours (0, 1), (2, 3), ... and (1, 2), (3, 4), ... take turns in the offer to exchange their states, so
    that a state goes on in its direction as long as it is accepted.

    Args:
        posterior: The log posterior.
        scale: Units of the weights, `(D,)`: the states of the chains times `scale` are the weights.
        make_kernel: Gives the kernel for a log density of states `(K, chains, D)` and step sizes `(K, 1, 1)`.
        step_size: The step size to begin with, of all replicas.
        num_temperatures: K, at least 2.
    """
    inverse_temperatures = np.linspace(1.0, 0.0, num_temperatures) ** _POWER
    step_sizes = tf.fill((num_temperatures, 1, 1), tf.constant(step_size, tf.float32))
    return tfp.mcmc.ReplicaExchangeMC(
        None,
        tf.constant(inverse_temperatures, tf.float32),
        lambda log_density: make_kernel(log_density, step_sizes),
        tfp.mcmc.even_odd_swap_proposal_fn(1.0),
        untempered_log_prob_fn=lambda states: posterior.log_prior(states * scale),
        tempered_log_prob_fn=lambda states: posterior.log_likelihood_of_data(states * scale),
    )


def statistics_of_exchange(results: Any, of_replicas: Callable[[Any], dict[str, tf.Tensor]]) -> dict[str, tf.Tensor]:
    """The statistics `(chains,)` of the replicas at temperature 1, and `EXCHANGES`.

    Args:
        results: Results of the kernel.
        of_replicas: Gives the statistics `(K, chains)` of the results of the kernel within.
    """
    found = {name: value[0] for name, value in of_replicas(results.pre_swap_replica_results).items()}
    after = results.post_swap_replica_results.inner_results.accepted_results.target_log_prob
    accepted = tf.cast(results.is_swap_accepted_adjacent, tf.float32)
    return {
        **found,
        "log_posterior": after[0],
        EXCHANGES: tf.where(results.is_swap_proposed_adjacent, accepted, np.nan),
    }


def exchange_rates(exchanges: npt.NDArray[np.float32], thin: int) -> npt.NDArray[np.float32]:
    """The share of the offered exchanges that were accepted in the last steps of each state that is kept.

    Args:
        exchanges: `EXCHANGES` of all steps, `(states * thin, K - 1, chains)`.
        thin: Number of steps from one kept state to the next.

    Returns:
        An array `(states, chains)`. It is of `thin` steps, or of one more where `thin` is odd: in an even number, all
        pairs of neighbours have as many offers. The step before the first is not known.
    """
    before = np.full_like(exchanges[: thin % 2], np.nan)
    steps = np.lib.stride_tricks.sliding_window_view(np.concatenate([before, exchanges]), thin + thin % 2, axis=0)
    of_states = steps[::thin]
    return (np.nansum(of_states, axis=(1, 3)) / (~np.isnan(of_states)).sum(axis=(1, 3))).astype(np.float32)


def warn_of_gaps(exchanges: npt.NDArray[np.float32]) -> None:
    """Warns of neighbours that hardly exchange their states.

    Args:
        exchanges: `EXCHANGES` of several steps, `(steps, K - 1, chains)`.
    """
    offers = (~np.isnan(exchanges)).sum(axis=(0, 2))
    rates = np.nansum(exchanges, axis=(0, 2))[offers >= _ENOUGH_OFFERS] / offers[offers >= _ENOUGH_OFFERS]
    least = rates.min(initial=1.0)
    if least < _LEAST_RATE:
        warnings.warn(
            f"Replicas at neighbouring temperatures exchanged their states in only {least:.0%} of the offers, so the "
            f"prior hardly carries the chains from mode to mode. Use more than {len(offers) + 1} temperatures "
            "(`num_temperatures`), or a longer `burn_in`.",
            stacklevel=4,
        )

"""Hamiltonian Monte Carlo and the No-U-Turn sampler: chains whose states are draws of the exact posterior."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_bnn.core.arguments import require_integer, require_positive
from tfp_bnn.core.checks import invalid_arguments_as_value_errors
from tfp_bnn.core.noise import Noise, number_of
from tfp_bnn.inference.chains import Chains
from tfp_bnn.inference.log_posterior import LogPosterior, initial_vectors, require_finite, require_memory
from tfp_bnn.inference.replica_exchange import (
    EXCHANGES,
    exchange_rates,
    replica_exchange,
    statistics_of_exchange,
    warn_of_gaps,
)
from tfp_bnn.models.variational_mixin import VariationalMixin
from tfp_bnn.priors import Prior

# Fewer steps at once trace as fast, but more of them show the progress less often.
_MOST_STEPS_AT_ONCE = 50
# As in Stan: an error of the energy, in nats, that no step size can explain but one that is unstable.
_DIVERGENT = 1000.0
# The most rows that all chains send through the network for one gradient.
_MOST_ROWS = 10**6
_LEAST_ACCEPTANCE = 0.1


def hmc(
    model: VariationalMixin,
    x: Any,
    y: Any = None,
    *,
    num_samples: int = 500,
    burn_in: int = 500,
    num_chains: int = 4,
    thin: int = 1,
    step_size: float = 0.01,
    num_leapfrog_steps: int = 20,
    num_temperatures: int = 1,
    target_acceptance: float = 0.75,
    start: str = "prior",
    plain_prior: str | Mapping[str, Any] | Prior | None = None,
    likelihood_spread: float = 1.0,
    seed: int = 0,
    jit_compile: bool = False,
    verbose: int = 1,
) -> Chains:
    """Samples the posterior of all weights of a network by Hamiltonian Monte Carlo.

        p(w | data) ~ prod_n p(y_n | x_n, w) p(w)

    Unlike variational inference it makes no assumption about the form of the posterior: with enough samples its
    predictions are those of Bayes' rule. It costs `num_leapfrog_steps` gradients of the whole training set for each
    state, so it is for small networks and data sets. All chains run in parallel. The step size is adapted in the first
    four fifths of `burn_in`. See `LogPosterior` for the priors of biases and learned noise. A weight whose layer has
    `trainable = False` keeps its value. Keras' Dropout is off, as in prediction.

    Args:
        model: A built model with Bayesian layers, trained or not. It is not changed.
        x: Inputs as arrays, or a stream of batches `(x, y)` or `(x, y, sample_weight)`, which is read into memory.
        y: Targets of arrays.
        num_samples: Number of states to keep of each chain.
        burn_in: Number of first states of each chain that are thrown away.
        num_chains: Number of chains. R-hat needs several.
        thin: Keeps every `thin`-th state. It saves memory and costs `thin` times as many steps.
        step_size: Step size, in units of the weights; the one to start with if there is a `burn_in`. With several
            temperatures, in units of the spread of the prior of each weight.
        num_leapfrog_steps: Mean number L of leapfrog steps per state. Each step draws it from 1, 2, ..., 2 L - 1: a
            trajectory of fixed length can be a whole period of the posterior, and end where it began.
        num_temperatures: Number K of temperatures: with more than one, each chain is K replicas of replica exchange,
            also called parallel tempering, which is for posteriors with separate modes. Replica k = 0, ..., K - 1 has
            the density p(data | w)^b p(w) with b = (1 - k / (K - 1))^3: the first that of the posterior, the last that
            of the prior, which moves freely. After each step neighbours are offered to exchange their states. Only the
            states of the first are kept. It costs K times as much; each replica has a step size of its own.
        target_acceptance: Acceptance rate to which the step size is adapted.
        start: `"prior"`: chains start at draws of the prior, far apart, so R-hat can find a chain that is stuck. Or
            `"model"`: at draws of the posterior of `model`, with a shorter burn-in if it is trained.
        plain_prior: Prior of the weights without a distribution, such as biases by default: a name, a config or an
            object of `tfp_bnn.priors`. Default: None, which refuses such weights.
        likelihood_spread: Prior standard deviation of the learned parameters of the likelihood, such as the logarithm
            of a noise scale, around their initial values.
        seed: Integer that determines start and chains. On one machine equal seeds give equal bits.
        jit_compile: Whether to compile with XLA: slower to start, then up to four times faster for `nuts`.
        verbose: 1 for a progress bar, 0 for none.

    Returns:
        `Chains`, whose `statistics` are `log_posterior` (nats, up to a constant), `acceptance_rate`, `diverging`,
        `step_size` and `n_steps`; and with several temperatures `exchange_rate`, the share of the offered exchanges
        that were accepted in the `thin` steps up to the state, or in one more if `thin` is odd: in two steps, each pair
        of neighbours has one offer.

    Raises:
        TypeError: If the model has no `VariationalMixin`.
        ValueError: If an argument is out of range or data do not fit; if the states need more than 1 GiB, or all chains
            and temperatures more than 1,000,000 rows at once; if the model has `MCDropout`, batch normalization, half
            precision, pruned weights, regularizers, weights without a prior, or priors that are improper or learned; or
            if the log posterior is not finite at the start.

    Example:
        >>> import keras, numpy as np, tfp_bnn
        >>> layer = tfp_bnn.layers.DenseFlipout(1, use_bias=False)
        >>> model = tfp_bnn.VariationalSequential([keras.Input((2,)), layer], likelihood={"name": "normal", "scale": 1})
        >>> chains = tfp_bnn.inference.hmc(
        ...     model, np.ones((3, 2)), np.ones(3), num_samples=10, burn_in=10, num_leapfrog_steps=3, verbose=0
        ... )
        >>> chains.posterior_predictive(np.ones((1, 2)), num_samples=100).num_samples
        40

    References:
        Neal 2011, MCMC using Hamiltonian dynamics, https://arxiv.org/abs/1206.1901; Izmailov et al. 2021, What Are
        Bayesian Neural Network Posteriors Really Like?, https://arxiv.org/abs/2104.14421; of replica exchange, Syed et
        al. 2022, Non-reversible parallel tempering, https://arxiv.org/abs/1905.02939
    """
    require_integer("num_leapfrog_steps", num_leapfrog_steps, 1)
    require_integer("num_temperatures", num_temperatures, 1)

    def kernel(log_posterior: Any, step_size: tf.Tensor) -> Any:
        return _RandomLengths(log_posterior, step_size, num_leapfrog_steps)

    def statistics(results: Any) -> dict[str, tf.Tensor]:
        energy_error = -results.log_accept_ratio
        return {
            "log_posterior": results.accepted_results.target_log_prob,
            "diverging": ~(energy_error < _DIVERGENT),
            "n_steps": tf.fill(tf.shape(energy_error), results.proposed_results.num_leapfrog_steps),
        }

    posterior = LogPosterior(model, x, y, plain_prior, likelihood_spread, "hmc")
    return _sampled(
        posterior, "hmc", kernel, statistics, num_samples, burn_in, num_chains, thin, step_size, target_acceptance,
        start, seed, jit_compile, verbose, num_temperatures,
    )  # fmt: skip


class _RandomLengths(tfp.mcmc.HamiltonianMonteCarlo):
    """HMC whose number of leapfrog steps is drawn for each step, with the mean `num_leapfrog_steps`."""

    def one_step(self, current_state: Any, previous_kernel_results: Any, seed: Any = None) -> Any:
        seed, of_length = tf.unstack(tfp.random.split_seed(seed, 2))
        length = tf.random.stateless_uniform((), of_length, 1, 2 * self.num_leapfrog_steps, tf.int32)
        results = previous_kernel_results.accepted_results._replace(num_leapfrog_steps=length)
        return super().one_step(current_state, previous_kernel_results._replace(accepted_results=results), seed)


def nuts(
    model: VariationalMixin,
    x: Any,
    y: Any = None,
    *,
    num_samples: int = 500,
    burn_in: int = 500,
    num_chains: int = 4,
    thin: int = 1,
    step_size: float = 0.01,
    max_tree_depth: int = 8,
    target_acceptance: float = 0.75,
    start: str = "prior",
    plain_prior: str | Mapping[str, Any] | Prior | None = None,
    likelihood_spread: float = 1.0,
    seed: int = 0,
    jit_compile: bool = False,
    verbose: int = 1,
) -> Chains:
    """Samples the posterior of all weights by the No-U-Turn sampler, which chooses the number of leapfrog steps itself.

    A trajectory ends when it turns back. Chains run in parallel, so each step takes as long as the longest trajectory.
    Everything else is as in `hmc`.

    Args:
        model: See `hmc`.
        x: See `hmc`.
        y: See `hmc`.
        num_samples: See `hmc`.
        burn_in: See `hmc`.
        num_chains: See `hmc`.
        thin: See `hmc`.
        step_size: See `hmc`.
        max_tree_depth: Depth d of the tree: a trajectory has at most 2^d - 1 leapfrog steps.
        target_acceptance: See `hmc`.
        start: See `hmc`.
        plain_prior: See `hmc`.
        likelihood_spread: See `hmc`.
        seed: See `hmc`.
        jit_compile: See `hmc`.
        verbose: See `hmc`.

    Returns:
        `Chains`, with the `statistics` of `hmc` and `reached_max_treedepth`.

    Raises:
        TypeError: As `hmc`.
        ValueError: As `hmc`.

    References:
        Hoffman and Gelman 2014, The No-U-Turn Sampler, https://arxiv.org/abs/1111.4246
    """
    require_integer("max_tree_depth", max_tree_depth, 1)

    def kernel(log_posterior: Any, step_size: tf.Tensor) -> Any:
        return tfp.mcmc.NoUTurnSampler(log_posterior, step_size, max_tree_depth, max_energy_diff=_DIVERGENT)

    def statistics(results: Any) -> dict[str, tf.Tensor]:
        return {
            "log_posterior": results.target_log_prob,
            "diverging": results.has_divergence,
            "n_steps": results.leapfrogs_taken,
            "reached_max_treedepth": results.reach_max_depth,
        }

    posterior = LogPosterior(model, x, y, plain_prior, likelihood_spread, "nuts")
    return _sampled(
        posterior, "nuts", kernel, statistics, num_samples, burn_in, num_chains, thin, step_size, target_acceptance,
        start, seed, jit_compile, verbose,
    )  # fmt: skip


def _sampled(
    posterior: LogPosterior,
    way: str,
    make_kernel: Callable[[Any, tf.Tensor], Any],
    statistics_of: Callable[[Any], dict[str, tf.Tensor]],
    num_samples: int,
    burn_in: int,
    num_chains: int,
    thin: int,
    step_size: float,
    target_acceptance: float,
    start: str,
    seed: int,
    jit_compile: bool,
    verbose: int,
    num_temperatures: int = 1,
) -> Chains:
    for name, value, least in (
        ("num_samples", num_samples, 1),
        ("burn_in", burn_in, 0),
        ("num_chains", num_chains, 1),
        ("thin", thin, 1),
        ("seed", seed, 0),
    ):
        require_integer(name, value, least)
    require_positive(f"`{way}`", "step_size", step_size)
    if not 0 < target_acceptance < 1:
        raise ValueError(f"`target_acceptance` must lie between 0 and 1, but got {target_acceptance!r}.")
    require_memory(posterior, num_chains, num_samples)
    replicas = num_chains * num_temperatures
    rows = replicas * posterior.num_examples
    if rows > _MOST_ROWS:
        raise ValueError(
            f"Each gradient would send {replicas} x {posterior.num_examples} = {rows} rows through the network at "
            f"once; at most {_MOST_ROWS} fit. Use fewer chains or examples, or `sgld`, which takes small batches."
        )
    # Near the prior, weights move as far as their prior is wide.
    scale = 1.0 if num_temperatures == 1 else posterior.spread_of_prior(seed)
    vectors = initial_vectors(posterior, start, num_chains, seed)

    def adapted(log_posterior: Any, step_size: tf.Tensor) -> Any:
        return tfp.mcmc.DualAveragingStepSizeAdaptation(
            make_kernel(log_posterior, step_size),
            num_adaptation_steps=burn_in * 4 // 5,
            target_accept_prob=target_acceptance,
        )

    total = burn_in + num_samples * thin
    at_once = _largest_divisor(math.gcd(burn_in, num_samples * thin), _MOST_STEPS_AT_ONCE)

    def of_adapted(results: Any) -> dict[str, tf.Tensor]:
        ratio = results.inner_results.log_accept_ratio
        # That of a divergent trajectory can be NaN.
        acceptance = tf.where(tf.math.is_nan(ratio), 0.0, tf.exp(tf.minimum(ratio, 0.0)))
        # One step size, or one of each replica.
        sizes = tf.broadcast_to(tf.reshape(results.new_step_size, [-1, *[1] * (ratio.shape.rank - 1)]), tf.shape(ratio))
        return {"acceptance_rate": acceptance, "step_size": sizes, **statistics_of(results.inner_results)}

    if num_temperatures == 1:
        kernel, trace = adapted(posterior, tf.constant(step_size, tf.float32)), of_adapted
    else:
        kernel = replica_exchange(posterior, scale, adapted, step_size, num_temperatures)
        trace = functools.partial(statistics_of_exchange, of_replicas=of_adapted)

    @tf.function(autograph=False, jit_compile=jit_compile)
    def steps(states: tf.Tensor, results: Any, seed: tf.Tensor) -> Any:
        return tfp.mcmc.sample_chain(
            at_once,
            states,
            results,
            kernel,
            trace_fn=lambda _, found: trace(found),
            return_final_kernel_results=True,
            seed=seed,
        )

    with invalid_arguments_as_value_errors():
        states = vectors / scale
        results = kernel.bootstrap_results(states)
        require_finite(posterior(vectors).numpy(), "at the start")
        noise = Noise(tf.constant([seed, 0], tf.int64)).fold_in(number_of(way))
        progress = keras.utils.Progbar(total, verbose=verbose, unit_name="step")
        kept, traces, exchanges = [], [], []
        for begin in range(0, total, at_once):
            found = steps(states, results, tf.cast(noise.fold_in(begin).seed % 2**31, tf.int32))
            states, results = found.all_states[-1], found.final_kernel_results
            if num_temperatures > 1:
                # Of all steps: each pair of neighbours is offered an exchange in every second one.
                exchanges.append(found.trace.pop(EXCHANGES).numpy()[max(0, burn_in - begin) :])
            # Absolute numbers decide which states to keep, however the steps are cut.
            chosen = [k for k in range(at_once) if begin + k >= burn_in and (begin + k - burn_in) % thin == thin - 1]
            kept.append((found.all_states * scale).numpy()[chosen])
            traces.append({name: value.numpy()[chosen] for name, value in found.trace.items()})
            of_block = {name: float(found.trace[name].numpy().mean()) for name in ("acceptance_rate", "step_size")}
            progress.update(begin + at_once, values=[(name, value) for name, value in of_block.items()])
    statistics = {name: np.concatenate([of_block[name] for of_block in traces]) for name in traces[0]}
    if num_temperatures > 1:
        of_all_steps = np.concatenate(exchanges)
        statistics["exchange_rate"] = exchange_rates(of_all_steps, thin)
        warn_of_gaps(of_all_steps)
    return chains_of(posterior, np.concatenate(kept), statistics, way)


def chains_of(
    posterior: LogPosterior, vectors: npt.NDArray[np.float32], statistics: Mapping[str, npt.NDArray[Any]], way: str
) -> Chains:
    """The chains of vectors `(samples, chains, D)` and statistics `(samples, chains)`. Warns of what went wrong."""
    by_chain = np.swapaxes(vectors, 0, 1)
    statistics = {name: np.swapaxes(array, 0, 1) for name, array in statistics.items()}
    if "acceptance_rate" in statistics:
        _warn_of_trouble(statistics)
    states = {name: value.numpy() for name, value in posterior.split(tf.constant(by_chain)).items()}
    return Chains(posterior.network, states, statistics, way)


def _warn_of_trouble(statistics: Mapping[str, npt.NDArray[Any]]) -> None:
    acceptance, diverging = statistics["acceptance_rate"], statistics["diverging"]
    stuck = int((acceptance.mean(axis=1) < _LEAST_ACCEPTANCE).sum())
    if stuck:
        warnings.warn(
            f"{stuck} of {len(acceptance)} chains accepted less than {_LEAST_ACCEPTANCE:.0%} of their steps, so they "
            "hardly moved. Use a longer `burn_in`, which adapts the step size, or a smaller `step_size`.",
            stacklevel=5,
        )
    if diverging.any():
        warnings.warn(
            f"{int(diverging.sum())} of {diverging.size} trajectories diverged: the step size is too large for parts "
            "of the posterior, which the chains do not enter. Raise `target_acceptance`, or lower `step_size`.",
            stacklevel=5,
        )


def _largest_divisor(number: int, most: int) -> int:
    return next(divisor for divisor in range(min(number, most), 0, -1) if number % divisor == 0)

"""Stochastic gradient Langevin dynamics: chains that need only minibatches, with a decreasing or a cyclical rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfp_bnn.core.arguments import is_number, require_integer, require_positive
from tfp_bnn.core.checks import invalid_arguments_as_value_errors
from tfp_bnn.core.noise import Noise, number_of
from tfp_bnn.inference.chains import Chains
from tfp_bnn.inference.log_posterior import LogPosterior, initial_vectors, require_memory
from tfp_bnn.models.variational_mixin import VariationalMixin
from tfp_bnn.priors import Prior

_WAY = "sgld"
# The exponent of Welling and Teh's decreasing rate, the smallest of their range but .5 itself.
_DECAY = 0.55
_BLOCKS = 50


@dataclass(frozen=True)
class _Plan:
    """What each step does.

    Attributes:
        rates: Step size of each step.
        noisy: 1 where noise is added, 0 where the chain only climbs.
        kept: Numbers of the steps after which the states are kept.
    """

    rates: npt.NDArray[np.float32]
    noisy: npt.NDArray[np.float32]
    kept: list[int]


def sgld(
    model: VariationalMixin,
    x: Any,
    y: Any = None,
    *,
    num_samples: int = 100,
    num_steps: int = 10_000,
    num_chains: int = 4,
    batch_size: int = 64,
    step_size: float = 1e-3,
    final_step_size: float | None = None,
    cycles: int | None = None,
    exploration: float = 0.5,
    start: str = "prior",
    plain_prior: str | Mapping[str, Any] | Prior | None = None,
    likelihood_spread: float = 1.0,
    seed: int = 0,
    verbose: int = 1,
) -> Chains:
    """Samples the posterior of all weights with noisy gradient steps on minibatches of B of the N examples.

        w <- w + step_size / 2 * gradient + sqrt(step_size) * noise,   noise ~ N(0, 1)
        gradient = N / B * sum of grad log p(y_n | x_n, w) over a batch + grad log p(w)

    No step is rejected, so the states are draws of the posterior only in the limit of small steps; the error of the
    step size and the noise of the batches widen it. Use `hmc` where it fits. A chain of its own batches, drawn with
    replacement, costs one gradient of B rows per step.

    The rate falls from `step_size` to `final_step_size` as (b + t)^-0.55, and states are kept at equal distances after
    the fraction `exploration` of the steps. With `cycles`, it falls from `step_size` to 0 as a cosine in each cycle.
    The first part of a cycle, `exploration`, climbs without noise to another mode; the rest samples around it.

    Args:
        model: See `hmc`.
        x: See `hmc`.
        y: See `hmc`.
        num_samples: Number of states to keep of each chain; with `cycles`, a multiple of their number.
        num_steps: Number of steps.
        num_chains: Number of chains, which run in parallel.
        batch_size: B, at most N.
        step_size: First step size, in squared units of the weights.
        final_step_size: Last step size. Default: a tenth of `step_size`. Only without `cycles`.
        cycles: Number of cycles, or None for one decreasing rate.
        exploration: Fraction of the steps, or of each cycle, from which no state is kept. From 0 to below 1.
        start: See `hmc`.
        plain_prior: See `hmc`.
        likelihood_spread: See `hmc`.
        seed: Integer that determines start, batches and noise. On one machine equal seeds give equal bits.
        verbose: 1 for a progress bar, 0 for none.

    Returns:
        `Chains`, whose `statistics` are `step_size` and, with `cycles`, `cycle`.

    Raises:
        TypeError: If the model has no `VariationalMixin`.
        ValueError: If an argument is out of range, as `hmc` for what the model has, or if a chain leaves the finite
            numbers: the message says at which step.

    Example:
        >>> import keras, numpy as np, tfp_bnn
        >>> layer = tfp_bnn.layers.DenseFlipout(2, use_bias=False)
        >>> model = tfp_bnn.VariationalSequential([keras.Input((2,)), layer])
        >>> x, y = np.ones((6, 2)), np.zeros(6)
        >>> chains = tfp_bnn.inference.sgld(model, x, y, num_samples=5, num_steps=20, batch_size=3, verbose=0)
        >>> chains.num_chains, chains.num_samples
        (4, 5)

    References:
        Welling and Teh 2011, Bayesian Learning via Stochastic Gradient Langevin Dynamics; Zhang et al. 2020, Cyclical
        Stochastic Gradient MCMC for Bayesian Deep Learning, https://arxiv.org/abs/1902.03932
    """
    for name, value, least in (("num_chains", num_chains, 1), ("batch_size", batch_size, 1), ("seed", seed, 0)):
        require_integer(name, value, least)
    plan = _plan(num_samples, num_steps, step_size, final_step_size, cycles, exploration)
    posterior = LogPosterior(model, x, y, plain_prior, likelihood_spread, _WAY)
    if batch_size > posterior.num_examples:
        raise ValueError(f"`batch_size` is {batch_size}, but there are only {posterior.num_examples} examples.")
    require_memory(posterior, num_chains, num_samples)
    vectors = initial_vectors(posterior, start, num_chains, seed)
    noise = Noise(tf.constant([seed, 0], tf.int64)).fold_in(number_of(_WAY))
    walk = _walk(posterior, batch_size)
    progress = keras.utils.Progbar(num_steps, verbose=verbose, unit_name="step")
    states, begin = [], 0
    with invalid_arguments_as_value_errors():
        for end in sorted({*plan.kept, *range(0, num_steps, -(-num_steps // _BLOCKS)), num_steps - 1}):
            steps = slice(begin, end + 1)
            vectors = walk(vectors, plan.rates[steps], plan.noisy[steps], tf.constant(begin), noise.seed)
            _require_finite_vectors(vectors, end)
            if end in plan.kept:
                states.append(vectors)
            begin = end + 1
            progress.update(begin)
    by_chain = tf.stack(states, axis=1)
    each = np.broadcast_to(np.arange(num_samples), (num_chains, num_samples))
    statistics: dict[str, npt.NDArray[Any]] = {"step_size": plan.rates[plan.kept][each]}
    if cycles is not None:
        statistics["cycle"] = each * cycles // num_samples
    values = {name: value.numpy() for name, value in posterior.split(by_chain).items()}
    return Chains(posterior.network, values, statistics, _WAY)


def _plan(
    num_samples: int,
    num_steps: int,
    step_size: float,
    final_step_size: float | None,
    cycles: int | None,
    exploration: float,
) -> _Plan:
    require_integer("num_samples", num_samples, 1)
    require_integer("num_steps", num_steps, num_samples)
    require_positive(f"`{_WAY}`", "step_size", step_size)
    if not is_number(exploration) or not 0 <= exploration < 1:
        raise ValueError(f"`exploration` must be a number from 0 to below 1, but got {exploration!r}.")
    if cycles is None:
        last = step_size / 10 if final_step_size is None else final_step_size
        require_positive(f"`{_WAY}`", "final_step_size", last)
        if last > step_size:
            raise ValueError(f"`final_step_size` is {last}, above `step_size`, {step_size}. The rate must not grow.")
        time = np.linspace(0.0, 1.0, num_steps)
        rates = step_size * (1 + time * ((step_size / last) ** (1 / _DECAY) - 1)) ** -_DECAY
        return _Plan(
            rates.astype(np.float32),
            np.ones(num_steps, np.float32),
            _spread(num_samples, int(num_steps * exploration), num_steps),
        )
    if final_step_size is not None:
        raise ValueError(
            "Got `final_step_size` with `cycles`, in each of which the rate falls to 0. Remove one of them."
        )
    require_integer("cycles", cycles, 1)
    if num_samples % cycles or num_steps % cycles:
        raise ValueError(
            f"`num_samples` and `num_steps` must be multiples of cycles={cycles}, but are {num_samples} and "
            f"{num_steps}."
        )
    length = num_steps // cycles
    time = np.arange(length) / length
    rates = step_size / 2 * (np.cos(np.pi * time) + 1)
    kept = _spread(num_samples // cycles, int(length * exploration), length)
    return _Plan(
        np.tile(rates, cycles).astype(np.float32),
        np.tile(time >= exploration, cycles).astype(np.float32),
        [cycle * length + step for cycle in range(cycles) for step in kept],
    )


def _spread(number: int, first: int, end: int) -> list[int]:
    """Numbers of steps at equal distances, the last one at `end - 1`."""
    if number > end - first:
        raise ValueError(
            f"{number} states cannot be kept of {end - first} steps. Raise `num_steps`, or lower `exploration` or "
            "`num_samples`."
        )
    return [first + (k + 1) * (end - first) // number - 1 for k in range(number)]


def _walk(posterior: LogPosterior, batch_size: int) -> Any:
    """The function that takes some steps, compiled for any number of them."""
    number = posterior.num_examples

    def estimate(vector_and_rows: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        vector, rows = vector_and_rows
        batch = keras.tree.map_structure(lambda array: tf.gather(array, rows), posterior.data)
        return number / batch_size * posterior.log_likelihood(vector, *batch)

    @tf.function(autograph=False, reduce_retracing=True)
    def gradient(vectors: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(vectors)
            total = tf.reduce_sum(tf.vectorized_map(estimate, (vectors, rows)) + posterior.log_prior(vectors))
        return tape.gradient(total, vectors)

    @tf.function(autograph=False, reduce_retracing=True)
    def walk(vectors: tf.Tensor, rates: tf.Tensor, noisy: tf.Tensor, begin: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        def step(k: tf.Tensor, vectors: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            noise = Noise(seed).fold_in(begin + k)
            shape = (tf.shape(vectors)[0], batch_size)
            rows = tf.random.stateless_uniform(
                shape, noise.fold_in(number_of("rows")).seed, 0, number, tf.int32, alg="philox"
            )
            pushed = noisy[k] * tf.sqrt(rates[k]) * noise.normal("weights", tf.shape(vectors))
            return k + 1, vectors + rates[k] / 2 * gradient(vectors, rows) + pushed

        return tf.while_loop(lambda k, _: k < tf.shape(rates)[0], step, (0, vectors), parallel_iterations=1)[1]

    return walk


def _require_finite_vectors(vectors: tf.Tensor, step: int) -> None:
    bad = int((~np.isfinite(vectors.numpy()).all(axis=1)).sum())
    if bad:
        raise ValueError(
            f"{bad} of {len(vectors)} chains were NaN or infinite after step {step}. Lower `step_size`, standardize "
            "the data, or pass start='model'."
        )

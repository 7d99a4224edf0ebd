"""A normal posterior over all weights of a small network together, fitted by maximizing the evidence lower bound."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfp_bnn.core.arguments import require_integer, require_positive
from tfp_bnn.core.checks import invalid_arguments_as_value_errors
from tfp_bnn.core.compiled import compiled
from tfp_bnn.core.noise import Noise, NoiseSource, number_of
from tfp_bnn.inference.function_of_weights import FunctionOfWeights, chosen_by_name
from tfp_bnn.inference.log_posterior import LogPosterior, likelihood_names
from tfp_bnn.inference.point_weights import require_point_model
from tfp_bnn.inference.stored_posterior import Arrays, require_arrays
from tfp_bnn.inference.weight_posterior import WeightPosterior, noise_of_draw
from tfp_bnn.models.variational_mixin import VariationalMixin
from tfp_bnn.models.weight_record import trainable_values
from tfp_bnn.priors import Prior

_NO_BOUNDS = np.zeros(0, np.float32)
_LOG_2_PI = math.log(2 * math.pi)
# As for the full curvature of `laplace`.
_MOST_WEIGHTS = 4096
# As for all chains of `hmc`: the most rows that one step sends through the network.
_MOST_ROWS = 10**6
# More blocks would show the progress more often.
_BLOCKS = 20
_INITIAL_SCALE = 0.05


class VariationalNormal(WeightPosterior):
    """A normal posterior over all trainable weights of a network; see `full_rank` and `mean_field`.

    Learned parameters of the likelihood are among the weights, in the coordinate in which they are trained, so every
    draw has its own noise.

    Args:
        network: The network as a function of all its trainable weights.
        mean: Means, `(d,)`, float32.
        factor: Standard deviations, `(d,)`, or the Cholesky factor of the covariance, `(d, d)`; float32.
        way: Name of the inference method.
        name: Name of the model.
        bounds: Estimate of the bound at each step of the training, in nats. Empty for one that was loaded.
        posterior: Log posterior of the weights; None for one that was loaded or copied.
    """

    def __init__(
        self,
        network: FunctionOfWeights,
        mean: npt.NDArray[np.float32],
        factor: npt.NDArray[np.float32],
        way: str,
        name: str,
        bounds: npt.NDArray[np.float32] = _NO_BOUNDS,
        posterior: LogPosterior | None = None,
    ) -> None:
        super().__init__(network, name)
        self.way = way
        self.bounds = bounds
        self._posterior = posterior
        self._mean = mean
        self._factor = tf.constant(factor)
        # The noise of a likelihood, unless it is known or frozen.
        self._roles = likelihood_names(self.network, network.variables)
        if self._roles:
            self._learned_of_draw = compiled(self._learned_with_noise)

    def __getstate__(self) -> dict[str, Any]:
        """The bounds, too, are kept in a copy."""
        return {**super().__getstate__(), "bounds": self.bounds}

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Means, and standard deviations or the Cholesky factor, float32."""
        return {"mean": self._mean, "factor": self._factor.numpy()}

    @classmethod
    def from_arrays(
        cls, networks: Sequence[Any], way: str, settings: Mapping[str, Any], arrays: Arrays, name: str
    ) -> VariationalNormal:
        """Rebuilds a posterior; see `StoredPosterior.from_arrays`."""
        (model,) = networks
        require_point_model(model, way)
        variables = trainable_values(model)
        network = FunctionOfWeights(model, chosen_by_name(variables, settings.get("weights", [*variables])))
        size = (network.num_weights,)
        shape = size * 2 if way == "full_rank" else size
        require_arrays(arrays, {"mean": (size, np.float32), "factor": (shape, np.float32)})
        factor = arrays["factor"]
        if ((factor if factor.ndim == 1 else np.diagonal(factor)) <= 0).any():
            raise ValueError("The array 'factor' has standard deviations, on its diagonal, that are not above 0.")
        return cls(network, arrays["mean"], np.tril(factor) if factor.ndim == 2 else factor, way, name)

    @property
    def mean_weights(self) -> np.ndarray:
        """The posterior mean of the weights, `(d,)`, float32."""
        return self._mean

    def perturbation(self, noise: NoiseSource) -> tf.Tensor:
        """A draw of the weights minus their mean, `(d,)`, float32."""
        return _product(self._factor, noise.normal("weights", [self.num_weights]))

    def covariance(self) -> np.ndarray:
        """The posterior covariance of the weights, `(d, d)`, float32."""
        factor = self._factor.numpy()
        return np.diag(factor**2) if factor.ndim == 1 else factor @ factor.T

    def elbo(self, num_draws: int = 200, seed: int = 0) -> float:
        """The evidence lower bound of all examples, in nats: E_q[log p(y | w) + log p(w) - log q(w)].

        Args:
            num_draws: Number of draws over which it is averaged.
            seed: Integer. Equal seeds give equal draws.

        Raises:
            ValueError: If an argument is not an integer, or `num_draws` is below 1, or the posterior was loaded or
                copied: its data are not stored.
        """
        if self._posterior is None:
            raise ValueError("The bound needs the data of the training, which are not stored. Fit the posterior again.")
        shape = (require_integer("num_draws", num_draws, 1), self.num_weights)
        noise = Noise(tf.constant([require_integer("seed", seed), 0], tf.int64)).normal("elbo", shape)
        draws = self._mean + _product(self._factor, noise)
        log_joint = self._posterior.in_blocks(draws, _MOST_ROWS)
        return float(tf.reduce_mean(log_joint - _log_density(self._factor, noise)))

    def __repr__(self) -> str:
        return f"VariationalNormal({self.name!r}, way={self.way!r}, weights={self.num_weights:,})"

    def _likelihood_values(self) -> dict[str, np.ndarray]:
        learned = self._learned(tf.constant(self._mean))
        return super()._likelihood_values() | {role: value.numpy() for role, value in learned.items()}

    def _learned_with_noise(self, root: tf.Tensor, index: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._learned(self._mean + self.perturbation(noise_of_draw(root, index)))

    def _learned(self, vector: tf.Tensor) -> dict[str, tf.Tensor]:
        values = self._network.split(vector)
        return {role: values[name] for role, name in self._roles.items()}


def full_rank(
    model: VariationalMixin,
    x: Any,
    y: Any = None,
    *,
    num_steps: int = 2000,
    num_draws: int = 16,
    learning_rate: float = 0.02,
    batch_size: int | None = None,
    plain_prior: str | Mapping[str, Any] | Prior | None = None,
    likelihood_spread: float = 1.0,
    seed: int = 0,
    verbose: int = 1,
) -> VariationalNormal:
    """A normal posterior with a covariance between all weights of a small network, by variational inference.

        w ~ N(m, L L'),   m and L maximize E_q[log p(y | w) + log p(w) - log q(w)]

    The posteriors that `fit` trains hold no covariance between weights of different tensors; this one does. It is exact
    for a linear model with normal noise. Each step sends all examples through the network once per draw. Draws come in
    pairs, m + L e and m - L e, and the gradient leaves out the score of q, whose mean is 0: where q is the posterior,
    the gradient has no noise. Adam's rate decays to 0 along a cosine. For larger
    networks, use `fit`, whose posteriors are factorized, or `low_rank_normal`.

    Args:
        model: A built model with Bayesian layers, trained or not. The means start at its posterior means. It is not
            changed. The posteriors of its layers do not matter otherwise.
        x: Inputs as arrays, or a stream of batches `(x, y)` or `(x, y, sample_weight)`, which is read into memory.
        y: Targets of arrays.
        num_steps: Number of steps.
        num_draws: Number of draws of the weights per step, even.
        learning_rate: Rate of Adam in the first step.
        batch_size: Number B of examples per step, drawn with replacement, whose log-likelihood counts N / B times; at
            most N. Default: all examples in each step.
        plain_prior: Prior of the weights without a distribution, as in `hmc`.
        likelihood_spread: Prior standard deviation of the learned parameters of the likelihood, as in `hmc`.
        seed: Integer that determines the draws. On one machine equal seeds give equal bits.
        verbose: 1 for a progress bar, 0 for none.

    Returns:
        A `VariationalNormal`: a model that predicts by unlimited draws, with its `mean_weights`, `covariance`, `elbo`
        and the `bounds` of all steps.

    Raises:
        TypeError: If the model has no `VariationalMixin`.
        ValueError: As for `hmc`; if the network has more than 4,096 weights; if a step would send more than 1,000,000
            rows through it; or if the bound becomes NaN or infinite.

    Example:
        >>> import keras, numpy as np, tfp_bnn
        >>> layer = tfp_bnn.layers.DenseFlipout(1, use_bias=False)
        >>> model = tfp_bnn.VariationalSequential([keras.Input((2,)), layer], likelihood={"name": "normal", "scale": 1})
        >>> x, y = np.array([[1.0, 0.9], [0.8, 1.0]]), np.ones(2)
        >>> posterior = tfp_bnn.inference.full_rank(model, x, y, num_steps=20, verbose=0)
        >>> posterior.covariance().shape, posterior.posterior_predictive(x, num_samples=10).samples.shape
        ((2, 2), (10, 2, 1))

    References:
        Kucukelbir et al. 2017, Automatic Differentiation Variational Inference, https://arxiv.org/abs/1603.00788;
        Roeder, Wu and Duvenaud 2017, Sticking the Landing, https://arxiv.org/abs/1703.09194
    """
    posterior = LogPosterior(model, x, y, plain_prior, likelihood_spread, "full_rank")
    if posterior.num_weights > _MOST_WEIGHTS:
        raise ValueError(
            f"The covariance of {posterior.num_weights:,} weights does not fit: `full_rank` takes at most "
            f"{_MOST_WEIGHTS:,}. Use `mean_field`, or the posterior 'low_rank_normal' and `fit`."
        )
    return _fitted(posterior, "full_rank", num_steps, num_draws, learning_rate, batch_size, seed, verbose)


def mean_field(
    model: VariationalMixin,
    x: Any,
    y: Any = None,
    *,
    num_steps: int = 2000,
    num_draws: int = 16,
    learning_rate: float = 0.02,
    batch_size: int | None = None,
    plain_prior: str | Mapping[str, Any] | Prior | None = None,
    likelihood_spread: float = 1.0,
    seed: int = 0,
    verbose: int = 1,
) -> VariationalNormal:
    """A normal posterior of independent weights, fitted like `full_rank`: by all examples, and to convergence.

        w_i ~ N(m_i, s_i^2),   m and s maximize E_q[log p(y | w) + log p(w) - log q(w)]

    It is what `fit` approaches with the posterior `mean_field_normal` for all weights. Biases without a distribution
    and learned noise have a posterior here too. It is there to compare the two families on small networks and data.

    Args:
        model: See `full_rank`.
        x: See `full_rank`.
        y: See `full_rank`.
        num_steps: See `full_rank`.
        num_draws: See `full_rank`.
        learning_rate: See `full_rank`.
        batch_size: See `full_rank`.
        plain_prior: See `full_rank`.
        likelihood_spread: See `full_rank`.
        seed: See `full_rank`.
        verbose: See `full_rank`.

    Returns:
        A `VariationalNormal`.

    Raises:
        TypeError: As `full_rank`.
        ValueError: As `full_rank`, for any number of weights.
    """
    posterior = LogPosterior(model, x, y, plain_prior, likelihood_spread, "mean_field")
    return _fitted(posterior, "mean_field", num_steps, num_draws, learning_rate, batch_size, seed, verbose)


def _fitted(
    posterior: LogPosterior,
    way: str,
    num_steps: int,
    num_draws: int,
    learning_rate: float,
    batch_size: int | None,
    seed: int,
    verbose: int,
) -> VariationalNormal:
    for name, value, least in (("num_steps", num_steps, 1), ("num_draws", num_draws, 2), ("seed", seed, 0)):
        require_integer(name, value, least)
    require_positive(f"`{way}`", "learning_rate", learning_rate)
    if num_draws % 2:
        raise ValueError(f"`num_draws` must be even, because draws come in pairs, but got {num_draws}.")
    examples = posterior.num_examples
    if batch_size is not None and require_integer("batch_size", batch_size, 1) > examples:
        raise ValueError(f"`batch_size` is {batch_size}, but there are only {examples} examples.")
    of_step = batch_size or examples
    if num_draws * of_step > _MOST_ROWS:
        raise ValueError(
            f"Each step would send {num_draws} x {of_step} = {num_draws * of_step} rows through the network at once; "
            f"at most {_MOST_ROWS} fit. Use fewer draws, or a smaller `batch_size`."
        )
    number = posterior.num_weights
    mean = keras.Variable(FunctionOfWeights(posterior.network, posterior.variables).values(), name="mean")
    log_scale = keras.Variable(np.full(number, math.log(_INITIAL_SCALE), np.float32), name="log_scale")
    variables = [mean, log_scale]
    if way == "full_rank":
        # In units of the scale of its row, so that one learning rate suits all of them.
        variables.append(keras.Variable(np.zeros((number, number), np.float32), name="below"))

    def factor() -> tf.Tensor:
        scale = tf.exp(log_scale)
        if way == "mean_field":
            return scale
        below = tf.linalg.band_part(variables[-1], -1, 0)
        return scale[:, tf.newaxis] * tf.linalg.set_diag(below, tf.ones(number))

    log_joint = _log_joint(posterior, batch_size)
    walk = _walk(log_joint, posterior.num_weights, mean, factor, variables, num_steps, num_draws, learning_rate, way)
    progress = keras.utils.Progbar(num_steps, verbose=verbose, unit_name="step")
    bounds: list[npt.NDArray[np.float32]] = []
    with invalid_arguments_as_value_errors():
        for steps in np.array_split(np.arange(num_steps, dtype=np.int32), min(_BLOCKS, num_steps)):
            bounds.append(walk(tf.constant(steps), tf.constant([seed, 0], tf.int64)).numpy())
            if not np.isfinite(bounds[-1]).all():
                raise ValueError(
                    f"The bound was NaN or infinite in {int((~np.isfinite(bounds[-1])).sum())} of {len(steps)} steps "
                    f"from step {steps[0]}. Standardize inputs and targets, or lower `learning_rate`."
                )
            progress.update(int(steps[-1]) + 1, values=[("elbo", float(bounds[-1].mean()))])
    return VariationalNormal(
        FunctionOfWeights(posterior.network, posterior.variables),
        np.asarray(mean),
        factor().numpy(),
        way,
        f"{way}_of_{posterior.network.name}",
        np.concatenate(bounds),
        posterior,
    )


def _log_joint(posterior: LogPosterior, batch_size: int | None) -> Callable[[tf.Tensor, Noise], tf.Tensor]:
    """Log p(y | w) + log p(w) in nats for vectors `(draws, d)`, or an estimate without bias from a random batch."""
    if batch_size is None:
        return lambda vectors, noise: posterior(vectors)
    number = posterior.num_examples

    def estimate(vectors: tf.Tensor, noise: Noise) -> tf.Tensor:
        seed = noise.fold_in(number_of("rows")).seed
        rows = tf.random.stateless_uniform((batch_size,), seed, 0, number, tf.int32, alg="philox")
        batch = keras.tree.map_structure(lambda array: tf.gather(array, rows), posterior.data)
        of_batch = tf.vectorized_map(lambda vector: posterior.log_likelihood(vector, *batch), vectors)
        return number / batch_size * of_batch + posterior.log_prior(vectors)

    return estimate


def _walk(
    log_joint: Callable[[tf.Tensor, Noise], tf.Tensor],
    num_weights: int,
    mean: keras.Variable,
    factor: Callable[[], tf.Tensor],
    variables: list[keras.Variable],
    num_steps: int,
    num_draws: int,
    learning_rate: float,
    way: str,
) -> Any:
    """The function that takes some steps, given their numbers, and returns the bound at each; compiled."""
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(learning_rate, num_steps))
    optimizer.build(variables)

    def step(stream: Noise) -> tf.Tensor:
        noise = stream.normal("weights", (num_draws // 2, num_weights))
        noise = tf.concat([noise, -noise], axis=0)
        with tf.GradientTape() as tape:
            spread, centre = factor(), tf.convert_to_tensor(mean)
            draws = centre + _product(spread, noise)
            # Of the draws only, not of the parameters of q: the score has the mean 0.
            fixed = tf.stop_gradient(spread)
            standardized = _quotient(fixed, draws - tf.stop_gradient(centre))
            bound = tf.reduce_mean(log_joint(draws, stream) - _log_density(fixed, standardized))
            loss = -bound
        optimizer.apply(tape.gradient(loss, variables), variables)
        return bound

    @tf.function(autograph=False, reduce_retracing=True)
    def walk(numbers: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        stream = Noise(seed).fold_in(number_of(way))
        return tf.map_fn(
            lambda k: step(stream.fold_in(k)),
            numbers,
            fn_output_signature=tf.float32,
            parallel_iterations=1,
        )

    return walk


def _product(factor: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
    """L e for noise `(..., d)`; L is given by its diagonal `(d,)`, or as a matrix `(d, d)`."""
    return factor * noise if len(factor.shape) == 1 else tf.linalg.matvec(factor, noise)


def _quotient(factor: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
    """The inverse of `_product`, for vectors `(draws, d)`."""
    if len(factor.shape) == 1:
        return vectors / factor
    return tf.transpose(tf.linalg.triangular_solve(factor, tf.transpose(vectors)))


def _log_density(factor: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
    """Log q(m + L e), in nats, for noise `(draws, d)`."""
    diagonal = factor if len(factor.shape) == 1 else tf.linalg.diag_part(factor)
    return -0.5 * tf.reduce_sum(noise**2 + _LOG_2_PI, axis=-1) - tf.reduce_sum(tf.math.log(diagonal))

"""The log posterior of all weights of a network, as a function of one vector, and the network as a function of them."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.core.arguments import require_positive
from tfp_bnn.core.batches import dense, num_rows, read_examples
from tfp_bnn.core.layer_tree import sublayers
from tfp_bnn.core.noise import Noise, NoNoise, number_of
from tfp_bnn.inference.point_weights import require_built_model, require_no_dropout, with_point_weights
from tfp_bnn.likelihoods.targets import probe_weights
from tfp_bnn.models.variational_mixin import VariationalMixin
from tfp_bnn.models.weight_record import bayesian_weights, layers_by_name, trainable_values
from tfp_bnn.priors import PRIORS, Prior

MOST_BYTES = 2**30
"""Memory limit of a stream of examples, and of the states of all chains."""

Values = Mapping[str, Any]
"""Tensors or arrays by the name of their weight."""


class LogPosterior:
    """log p(w | data) up to a constant, in nats, and its parts; w are all trainable weights of a network of points.

        log p(w | data) = sum_n log p(y_n | x_n, w) + log p(w) + constant

    Sample weights of a stream are factors of the terms of the sum, as in `fit`.
    A weight with a distribution has the prior of its layer. A weight without one, such as a bias by default, has
    `plain_prior`. A learned parameter of the likelihood is sampled in the coordinate v in which it is trained, such as
    the logarithm of a scale, and v ~ N(v at initialization, likelihood_spread^2), so a scale is log-normal around its
    `initial_scale`. These are densities of what is sampled, so no further Jacobian is needed.

    The network runs as in prediction, in float32. Vectors concatenate the weights in the order of `variables`.

    Args:
        model: Built model. It is not changed.
        x: Inputs as arrays, or a stream of batches `(x, y)` or `(x, y, sample_weight)`, which is read into memory.
        y: Targets of arrays.
        plain_prior: Prior of the weights without a distribution: a name, a config or an object; None to refuse them.
        likelihood_spread: Prior standard deviation of the learned parameters of the likelihood.
        function: Name of the calling function for messages, such as `"hmc"`.

    Raises:
        TypeError: If the model has no `VariationalMixin`.
        ValueError: If the data do not fit, or a layer or prior does not: the message names it and says why.
    """

    def __init__(
        self,
        model: VariationalMixin,
        x: Any,
        y: Any,
        plain_prior: str | Mapping[str, Any] | Prior | None,
        likelihood_spread: float,
        function: str,
    ) -> None:
        require_built_model(model, function)
        _require_posterior(model, function)
        data = dense(read_examples(x, y, MOST_BYTES, with_weights=True), MOST_BYTES)
        x, y = data[:2]
        model._check_examples(x, y)
        self.network = with_point_weights(model)
        self.num_examples = num_rows(x)
        self.network.num_examples = self.num_examples
        self.data = keras.tree.map_structure(tf.convert_to_tensor, data)
        self.variables = trainable_values(self.network)
        self.likelihood_spread = require_positive(f"`{function}`", "likelihood_spread", likelihood_spread)
        self._model = model
        self._sizes = [math.prod(variable.shape) for variable in self.variables.values()]
        roles = {id(variable): role for role, variable in self.network.likelihood_weights.items()}
        self._bayesian = {
            id(weight.variables[0]): (layer.name, name, weight)
            for layer in layers_by_name(self.network).values()
            for name, weight in bayesian_weights(layer).items()
        }
        self._priors = self._priors_of_points(plain_prior, roles, function)

    @property
    def num_weights(self) -> int:
        """D, the length of a vector."""
        return sum(self._sizes)

    def __call__(self, vectors: tf.Tensor) -> tf.Tensor:
        """Log posterior up to a constant, in nats, for vectors `(chains, D)`: a float32 tensor `(chains,)`."""
        return self._compiled(vectors)

    def in_blocks(self, vectors: tf.Tensor, most_rows: int) -> tf.Tensor:
        """As `__call__`, with at most so many rows at once in the network: some vectors, or a part of the data."""
        at_once = max(1, most_rows // self.num_examples)
        blocks = [vectors[start : start + at_once] for start in range(0, len(vectors), at_once)]
        parts = -(-self.num_examples // most_rows)
        if parts == 1:
            return tf.concat([self(block) for block in blocks], axis=0)

        def of_block(block: tf.Tensor, part: int) -> tf.Tensor:
            # Rows from all over the data, so that parts are alike.
            rows = keras.tree.map_structure(lambda array: array[part::parts], self.data)
            return tf.vectorized_map(lambda vector: self.log_likelihood(vector, *rows), block)

        of_parts = [tf.concat([of_block(block, part) for block in blocks], axis=0) for part in range(parts)]
        return tf.add_n([self.log_prior(vectors), *of_parts])

    def log_likelihood_of_data(self, vectors: tf.Tensor) -> tf.Tensor:
        """The sum of log p(y_n | x_n, w) over all examples, in nats, for vectors `(..., D)`; float32 `(...,)`."""
        return tf.reshape(self._compiled_likelihood(tf.reshape(vectors, [-1, self.num_weights])), vectors.shape[:-1])

    def log_likelihood(self, vector: tf.Tensor, x: Any, y: Any, sample_weight: Any = None) -> tf.Tensor:
        """The sum of log p(y_n | x_n, w) over the given examples, in nats, for one vector `(D,)`; float32 scalar."""
        values = self.split(vector)
        outputs = outputs_at(self.network, values, x)
        learned = {role: values[name] for role, name in likelihood_names(self.network, values).items()}
        weights = {**self.network.likelihood_weights, **learned}
        return tf.reduce_sum(self.network.likelihood.log_likelihood(y, outputs, weights, sample_weight))

    def log_prior(self, vectors: tf.Tensor) -> tf.Tensor:
        """Log p(w) in nats, for vectors `(..., D)`: a float32 tensor `(...,)`."""
        values = self.split(vectors)
        return tf.add_n([prior.log_prob(values[name]) for name, prior in self._priors.items()])

    def split(self, vectors: Any) -> dict[str, Any]:
        """The weights in vectors `(..., D)` by name, each `(..., *shape)`."""
        leading = vectors.shape[:-1]
        parts = tf.split(vectors, self._sizes, axis=-1)
        named = zip(self.variables.items(), parts, strict=True)
        return {name: tf.reshape(part, [*leading, *variable.shape]) for (name, variable), part in named}

    def join(self, values: Values) -> tf.Tensor:
        """The vectors `(chains, D)` of weights `(chains, *shape)`: the inverse of `split`."""
        return tf.concat([tf.reshape(values[name], [values[name].shape[0], -1]) for name in self.variables], axis=-1)

    def draw_of_prior(self, number: int, seed: int) -> tf.Tensor:
        """Independent draws of the prior, `(number, D)`."""
        noise = Noise(tf.constant([seed, 0], tf.int64))
        values = {
            name: prior.sample(number, seed=tf.cast(noise.fold_in(number_of(name)).seed % 2**31, tf.int32))
            for name, prior in self._priors.items()
        }
        return self.join(values)

    def spread_of_prior(self, seed: int, number: int = 200) -> tf.Tensor:
        """The scale of the prior of each weight, `(D,)`: the median distance of `number` draws from their median.

        Unlike a standard deviation, every prior has one.
        """
        draws = self.draw_of_prior(number, seed).numpy()
        return tf.constant(np.median(np.abs(draws - np.median(draws, axis=0)), axis=0))

    def draw_of_model(self, number: int, seed: int) -> tf.Tensor:
        """Draws of the posterior that the model has, `(number, D)`; points, such as learned noise, are as they are."""
        noise = Noise(tf.constant([seed, 0], tf.int64))
        of_model = {name: bayesian_weights(layer) for name, layer in layers_by_name(self._model).items()}

        def draws(variable: keras.Variable, noise: Noise) -> tf.Tensor:
            place = self._bayesian.get(id(variable))
            if place is None:
                return tf.stack([tf.cast(tf.convert_to_tensor(variable), tf.float32)] * number)
            layer, name, _ = place
            return tf.stack([of_model[layer][name].sample(noise.fold_in(k)) for k in range(number)])

        return self.join(
            {name: draws(variable, noise.fold_in(number_of(name))) for name, variable in self.variables.items()}
        )

    @functools.cached_property
    def _compiled(self) -> Any:
        # Compiled once, however often a kernel uses it: gradients within nested loops are slow to trace.
        @tf.function(autograph=False)
        def log_posterior(vectors: tf.Tensor) -> tf.Tensor:
            return self._of_all_data(vectors) + self.log_prior(vectors)

        return log_posterior

    @functools.cached_property
    def _compiled_likelihood(self) -> Any:
        return tf.function(self._of_all_data, autograph=False)

    def _of_all_data(self, vectors: tf.Tensor) -> tf.Tensor:
        return tf.vectorized_map(lambda vector: self.log_likelihood(vector, *self.data), vectors)

    def _priors_of_points(
        self, plain_prior: str | Mapping[str, Any] | Prior | None, roles: Mapping[int, str], function: str
    ) -> dict[str, tfd.Distribution]:
        plain = None if plain_prior is None else PRIORS.get(plain_prior)
        start = probe_weights(self.network.likelihood.add_weights)
        priors: dict[str, tfd.Distribution] = {}
        plain_names = []
        for name, variable in self.variables.items():
            if id(variable) in self._bayesian:
                priors[name] = self._bayesian[id(variable)][-1].prior
            elif id(variable) in roles:
                centre = start[roles[id(variable)]]
                priors[name] = tfd.Independent(
                    tfd.Normal(centre, self.likelihood_spread), reinterpreted_batch_ndims=len(variable.shape)
                )
            else:
                plain_names.append(name)
        if plain is None and plain_names:
            number = sum(math.prod(self.variables[name].shape) for name in plain_names)
            raise ValueError(
                f"{number} weights have no prior, so they have no posterior: {', '.join(plain_names)}. Give them a "
                "distribution, such as bias_posterior='mean_field_normal'; pass one prior for all of them to "
                f"`{function}`, such as plain_prior={{'name': 'normal', 'scale': 1.0}}; or set `trainable = False` for "
                "their layers."
            )
        improper = [f"{layer}/{name}" for layer, name, w in self._bayesian.values() if w.prior_spec.improper]
        improper += plain_names if plain is not None and plain.improper else []
        if improper:
            raise ValueError(
                f"The priors of {', '.join(improper)} are improper: the posterior need not be a distribution, and a "
                "chain would drift away. Use a prior such as 'normal'."
            )
        of_plain = {name: plain.distribution(tuple(self.variables[name].shape), {}) for name in plain_names if plain}
        return {**priors, **of_plain}


def outputs_at(network: Any, values: Values, x: Any) -> Any:
    """The raw outputs of a network of points whose weights have the given values; its own do not change."""
    variables = trainable_values(network)
    mapping = [(variables[name], tf.convert_to_tensor(value)) for name, value in values.items()]
    with keras.StatelessScope(state_mapping=mapping):
        return network.call_with_noise(x, NoNoise())


def likelihood_names(network: Any, names: Sequence[str] | Values) -> dict[str, str]:
    """The names of the learned parameters of the likelihood among those of weights, by role."""
    roles = {id(variable): role for role, variable in network.likelihood_weights.items()}
    variables = trainable_values(network)
    return {roles[id(variables[name])]: name for name in names if id(variables[name]) in roles}


def initial_vectors(posterior: LogPosterior, start: str, num_chains: int, seed: int) -> tf.Tensor:
    """Where chains start, `(num_chains, D)`: draws of the prior, or of the posterior that the model has.

    Raises:
        ValueError: If `start` is neither `"prior"` nor `"model"`.
    """
    if start not in ("prior", "model"):
        raise ValueError(
            f"`start` must be 'prior', for draws of the prior, or 'model', for draws of the model, but got {start!r}."
        )
    draw = posterior.draw_of_prior if start == "prior" else posterior.draw_of_model
    return draw(num_chains, seed)


def require_memory(posterior: LogPosterior, num_chains: int, num_samples: int) -> None:
    """Refuses states of more than 1 GiB. The ValueError gives their size and how it comes about."""
    size = 4 * num_chains * num_samples * posterior.num_weights
    if size > MOST_BYTES:
        raise ValueError(
            f"The states of {num_chains} chains x {num_samples} samples x {posterior.num_weights} weights take "
            f"{size / 2**30:.1f} GiB; at most {MOST_BYTES / 2**30:g} GiB are kept. Use fewer samples or chains, or "
            "thin them; for a large network, another method, such as variational inference or an ensemble."
        )


def require_finite(log_posteriors: npt.NDArray[Any], what: str) -> None:
    """Refuses chains without a finite log posterior. The ValueError counts them."""
    bad = ~np.isfinite(log_posteriors)
    if bad.any():
        raise ValueError(
            f"The log posterior is NaN or infinite {what} in {int(bad.sum())} of {bad.size} chains. Standardize inputs "
            "and targets, use narrower priors, pass start='model', or lower the step size."
        )


def _require_posterior(model: Any, function: str) -> None:
    """Refuses models whose weights have no posterior that a chain could sample."""
    require_no_dropout(model)
    normalized = [layer.name for layer in sublayers(model) if isinstance(layer, keras.layers.BatchNormalization)]
    if normalized:
        raise ValueError(
            f"The layers {', '.join(normalized)} normalize by the statistics of a batch, so the likelihood is not a "
            "function of the weights. Use GroupNormalization or LayerNormalization, or remove them."
        )
    half = [layer.name for layer in sublayers(model) if layer.compute_dtype in ("float16", "bfloat16")]
    if half:
        raise ValueError(
            f"The layers {', '.join(half)} compute in half precision, too coarse for differences of log posteriors. "
            "Build the model with dtype='float32'."
        )
    bounded = [v.path for v in model.trainable_variables if getattr(v, "constraint", None) is not None]
    if bounded:
        raise ValueError(
            f"The weights {', '.join(bounded)} have constraints, which `{function}` would not keep. Remove them: "
            "restrict the weights by a prior instead, or the outputs by an activation."
        )
    if model.losses:
        raise ValueError(
            f"The model adds {len(model.losses)} losses of its own, such as regularizers, which are not part of a "
            "posterior. Use priors instead."
        )
    # They are among the losses only after a call.
    penalized = [layer.name for layer in sublayers(model) if layer.activity_regularizer is not None]
    if penalized:
        raise ValueError(
            f"The layers {', '.join(penalized)} have activity regularizers, which are not part of a posterior. Use "
            "priors instead."
        )
    for layer in model.variational_layers:
        for weight in layer.variational_weights.values():
            if weight.posterior_spec.pruned:
                raise ValueError(
                    f"Weights of {layer.name}/{weight.name} are pruned, and `{function}` would move them although "
                    "they have no effect. Sample the network that is not pruned."
                )
            if weight.prior_spec.is_learned:
                raise ValueError(
                    f"The prior of {layer.name}/{weight.name}, {weight.prior_spec!r}, is learned. `{function}` samples "
                    "the weights under a fixed prior: remove empirical_bayes, learn_loc or the hyperprior."
                )

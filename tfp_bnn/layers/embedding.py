"""A Bayesian embedding."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfp_bnn.core.checks import require
from tfp_bnn.core.noise import NoiseSource
from tfp_bnn.layers.base import VariationalLayer
from tfp_bnn.layers.estimators import Estimator, Reparameterization
from tfp_bnn.layers.operations import LinearOperation, Lookup


@keras.saving.register_keras_serializable(package="tfp_bnn")
class EmbeddingReparameterization(VariationalLayer, keras.layers.Embedding):
    """Bayesian embedding: a table of random vectors, one for each id, trained with the reparameterization estimator.

    embeddings ~ q(embeddings);   outputs = embeddings[ids]

    The whole batch shares one draw of the table, so an id has the same vector wherever it occurs. Costs a lookup and as
    many random numbers as the table has entries, however few rows are looked up. The gradient noise does not decrease
    with the batch size.

    `kl()` is KL(q || prior) in nats, summed over all rows and not scaled. A `VariationalModel` divides it by N. The row
    of an id that never occurs, such as a masked 0, converges to the prior.

    Args:
        input_dim: Positive integer, the number of ids: 0 to `input_dim - 1`.
        output_dim: Positive integer, the length of a vector.
        embeddings_initializer: Initializer of the posterior mean. Default: `"uniform"`.
        embeddings_regularizer: Regularizer of the posterior mean, in addition to the prior. Default: none.
        embeddings_constraint: Constraint on the posterior mean. Default: none.
        mask_zero: Whether the id 0 is padding, to be masked in the following layers. Default: False.
        weights: Initial posterior mean, an array of shape `(input_dim, output_dim)`. Default: from the initializer.
        embeddings_prior: Prior of the table: a name, config or object of `tfp_bnn.priors`. Default: `"normal"`.
        embeddings_posterior: Posterior family of the table: a name, config or object of `tfp_bnn.posteriors`. Default:
            `"mean_field_normal"`.
        seed: Integer seed of the layer's noise outside a `VariationalModel`. Default: drawn from Keras' global seed.
        kl_weight: Weight of the KL, only for a plain `keras.Model`; see `VariationalLayer`. Default: None.

    Raises:
        ValueError: On call, if an id is not in the vocabulary. Inside a compiled function the error is an
            `InvalidArgumentError` with the same text, which `fit` and `evaluate` turn into a ValueError, under
            XLA as well. Other calls that XLA compiles cannot raise an error, and use the nearest id.

    Input shape: any, `(batch, ...)`, of integer ids. Other numbers are cast to int32, as in Keras.
    Output shape: that of the inputs followed by `output_dim`, in the compute dtype; variational parameters, the draw
    and KL are float32 under any dtype policy.

    Noise is counter-based. In a `VariationalModel` it comes from the model's seed, step and layer; elsewhere from two
    counters of the layer, one for training and one for evaluation, which are saved with it.

    Example:
        >>> import numpy as np, tfp_bnn
        >>> layer = tfp_bnn.layers.EmbeddingReparameterization(10, 3, seed=0)
        >>> layer(np.array([[4, 9], [9, 0]])).shape
        TensorShape([2, 2, 3])
        >>> layer.embeddings_posterior.event_shape
        TensorShape([10, 3])

    References:
        Blundell et al. 2015, Weight Uncertainty in Neural Networks, https://arxiv.org/abs/1505.05424
        Fortunato et al. 2017, Bayesian Recurrent Neural Networks, https://arxiv.org/abs/1704.02798
    """

    estimator = Reparameterization()
    bayesian_weights = {"embeddings": "embeddings"}  # noqa: RUF012
    optional_weights = frozenset()

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        embeddings_initializer: Any = "uniform",
        embeddings_regularizer: Any = None,
        embeddings_constraint: Any = None,
        mask_zero: bool = False,
        weights: Any = None,
        *,
        embeddings_prior: Any = "normal",
        embeddings_posterior: Any = "mean_field_normal",
        seed: int | None = None,
        kl_weight: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            input_dim,
            output_dim,
            embeddings_initializer=embeddings_initializer,
            embeddings_regularizer=embeddings_regularizer,
            embeddings_constraint=embeddings_constraint,
            mask_zero=mask_zero,
            embeddings_prior=embeddings_prior,
            embeddings_posterior=embeddings_posterior,
            seed=seed,
            kl_weight=kl_weight,
            **kwargs,
        )
        # The twin would assign them before the layer has its distributions.
        if weights is not None:
            self.build()
            self.embeddings.assign(weights[0] if isinstance(weights, list) and len(weights) == 1 else weights)

    @property
    def operation(self) -> LinearOperation:
        """The table lookup, with outputs in the compute dtype."""
        return Lookup(self.compute_dtype)

    def transform(self, estimator: Estimator, inputs: tf.Tensor, noise: NoiseSource) -> tf.Tensor:
        """Looks up the vectors of the ids under one draw of the table."""
        ids = inputs if inputs.dtype in (tf.int32, tf.int64) else tf.cast(inputs, tf.int32)
        with tf.control_dependencies(self._require_known(ids)):
            # A step that is refused for an id ends too, and a lookup must find something.
            ids = tf.clip_by_value(ids, 0, self.input_dim - 1)
        return estimator(self.operation, ids, self.variational_weights["embeddings"], None, noise)

    def compute_output_spec(self, inputs: keras.KerasTensor, training: bool | None = None) -> keras.KerasTensor:
        """Returns shape and dtype of the outputs, as a `keras.KerasTensor`."""
        # The twin's method has no `training` argument.
        return super().compute_output_spec(inputs)

    def _require_known(self, ids: tf.Tensor) -> list[Any]:
        """Refuses ids without a row: a lookup would read -1 as the last one. Returns the operations to depend on."""
        lowest, highest = tf.reduce_min(ids), tf.reduce_max(ids)
        too_high = highest >= self.input_dim
        return require(
            tf.logical_not(tf.logical_or(too_high, lowest < 0)),
            "The id",
            tf.where(too_high, highest, lowest),
            f"is not in the vocabulary of the layer {self.name}, which has input_dim={self.input_dim} ids, 0 to "
            f"{self.input_dim - 1}. Raise input_dim, or reserve an id for unknown entries.",
        )

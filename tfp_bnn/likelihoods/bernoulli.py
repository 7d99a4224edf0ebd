"""Labels that are true or false, one or several for each example."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.likelihoods.base import LIKELIHOODS, Discrete, Weights
from tfp_bnn.likelihoods.targets import check_shape, checked, like_outputs


@LIKELIHOODS.register("bernoulli")
class Bernoulli(Discrete):
    """y_i ~ Bernoulli(sigmoid(outputs_i)), independent given the weights; targets in [0, 1].

    Targets have the shape `(batch,)` for one output, or that of the outputs. Entropies are sums over the outputs.
    """

    def distribution(self, outputs: tf.Tensor, weights: Weights) -> tfd.Distribution:
        return tfd.Independent(tfd.Bernoulli(logits=outputs, dtype=tf.float32), reinterpreted_batch_ndims=1)

    def targets(self, y: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        targets = like_outputs(y, outputs.shape[-1])
        message = "Labels out of range: the likelihood 'bernoulli' expects values in [0, 1], but a batch has others."
        return checked(targets, tf.reduce_all((targets >= 0) & (targets <= 1)), message)

    def mean(self, outputs: tf.Tensor) -> tf.Tensor:
        """Probabilities of 1, float32."""
        return tf.sigmoid(tf.cast(outputs, tf.float32))

    def check_targets(self, y: np.ndarray, num_outputs: int) -> None:
        check_shape(y, num_outputs)
        if (y < 0).any() or (y > 1).any():
            raise ValueError(
                "Labels out of range: the likelihood 'bernoulli' expects values in [0, 1], but got values from "
                f"{y.min()} to {y.max()}. Encode the two classes as 0 and 1, or use likelihood='categorical' for more "
                "than two."
            )

    def _entropy(self, probabilities: tf.Tensor) -> tf.Tensor:
        complement = 1.0 - probabilities
        terms = tf.math.xlogy(probabilities, probabilities) + tf.math.xlogy(complement, complement)
        return -tf.reduce_sum(terms, axis=-1)

"""The Bernoulli likelihood: one or several binary labels per example."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.likelihoods.base import LIKELIHOODS, TargetKind, Weights
from tfp_bnn.likelihoods.discrete import Discrete
from tfp_bnn.likelihoods.normal_outputs import LogitOutputs
from tfp_bnn.likelihoods.targets import MARKED_ADVICE, check_shape, checked, like_outputs


@LIKELIHOODS.register("bernoulli")
class Bernoulli(LogitOutputs, Discrete):
    """y_i ~ Bernoulli(sigmoid(outputs_i)), independent given the weights; targets in [0, 1].

    Targets have the shape `(batch,)` for one output, or the shape of the outputs. Entropies are sums over the outputs.
    """

    calibrator = "temperature"
    output_activation = "sigmoid"

    def distribution(self, outputs: tf.Tensor, weights: Weights) -> tfd.Distribution:
        """Batch shape `(..., batch)`, event shape `(outputs,)`."""
        return tfd.Independent(tfd.Bernoulli(logits=outputs, dtype=tf.float32), reinterpreted_batch_ndims=1)

    def target_kind(self, num_outputs: int | None) -> TargetKind:
        """`"class"` (one of two) for one output, `"labels"` for several."""
        return "class" if num_outputs == 1 else "labels"

    def num_classes(self, num_outputs: int) -> int:
        """Two classes for one output, else one name per label."""
        return max(2, num_outputs)

    def num_targets(self, num_outputs: int) -> int:
        """One label per output."""
        return num_outputs

    def num_outputs_for(self, y: npt.NDArray[Any], num_classes: int | None = None) -> int:
        """One output per label."""
        return y.reshape(len(y), -1).shape[1]

    def check_outputs(self, num_outputs: int) -> None:
        """Accepts any number of outputs."""

    def chance_nll(self, num_outputs: int) -> float | None:
        """The NLL of equal probabilities, log(2) nats per label."""
        return num_outputs * math.log(2)

    def training_metrics(self, num_outputs: int) -> list[Any]:
        """Accuracy; for several labels, the share of labels predicted correctly."""
        return [self.keras_metric("accuracy", num_outputs)]

    def keras_metric(self, given: Any, num_outputs: int) -> Any:
        """`"accuracy"` is the share of correct labels."""
        # For several columns, Keras takes it to mean that of the argmax.
        if num_outputs > 1 and isinstance(given, str) and given.lower() in ("accuracy", "acc"):
            return keras.metrics.BinaryAccuracy(name=given)
        return given

    def targets(self, y: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """Labels of shape `(batch, outputs)`, float32."""
        targets = like_outputs(y, outputs.shape[-1])
        message = "Labels out of range: the likelihood 'bernoulli' expects values in [0, 1], but a batch has others."
        return checked(targets, tf.reduce_all((targets >= 0) & (targets <= 1)), message)

    def expected_log_prob(self, y: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor, weights: Weights) -> tf.Tensor:
        """A lower bound by Jensen's inequality: E[log(1 + exp f)] <= log(1 + exp(mean + variance / 2))."""
        return tf.reduce_sum(self.targets(y, mean) * mean - tf.nn.softplus(mean + 0.5 * variance), axis=-1)

    def mean(self, outputs: tf.Tensor, weights: Weights | None = None) -> tf.Tensor:
        """Probabilities of 1, `(..., batch, outputs)`, float32."""
        return tf.sigmoid(tf.cast(outputs, tf.float32))

    def check_targets(self, y: np.ndarray, num_outputs: int) -> None:
        """Refuses wrong shapes and labels outside [0, 1]."""
        check_shape(y, num_outputs)
        if (y < 0).any() or (y > 1).any():
            raise ValueError(
                "Labels out of range: the likelihood 'bernoulli' expects values in [0, 1], but got values from "
                f"{y.min()} to {y.max()}. Encode the two classes as 0 and 1, or use likelihood='categorical' for more "
                f"than two. {MARKED_ADVICE}"
            )

    def _entropy(self, probabilities: tf.Tensor) -> tf.Tensor:
        complement = 1.0 - probabilities
        terms = tf.math.xlogy(probabilities, probabilities) + tf.math.xlogy(complement, complement)
        return -tf.reduce_sum(terms, axis=-1)

"""The categorical likelihood: one class of several."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.likelihoods.base import LIKELIHOODS, Weights
from tfp_bnn.likelihoods.discrete import ClassLikelihood
from tfp_bnn.likelihoods.normal_outputs import LogitOutputs
from tfp_bnn.likelihoods.targets import check_rank_is_known, checked

_TOO_FEW_CLASSES = (
    "The likelihood 'categorical' needs the logits of at least 2 classes, but the model has {} output. Use "
    "likelihood='bernoulli' for one logit."
)


@LIKELIHOODS.register("categorical")
class Categorical(LogitOutputs, ClassLikelihood):
    """y ~ Categorical(softmax(outputs)), where the outputs are the logits of at least two classes.

    Labels are integers of shape `(batch,)` or `(batch, 1)`, or one-hot (or soft) rows of shape `(batch, classes)`.
    """

    calibrator = "temperature"
    output_activation = "softmax"

    def distribution(self, outputs: tf.Tensor, weights: Weights) -> tfd.Distribution:
        """Batch shape `(..., batch)`, event shape `()`."""
        return tfd.Categorical(logits=outputs)

    def check_outputs(self, num_outputs: int) -> None:
        """Refuses fewer than two outputs."""
        if num_outputs < 2:
            raise ValueError(_TOO_FEW_CLASSES.format(num_outputs))

    def targets(self, y: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """Labels as rows of probabilities, `(batch, classes)`, float32."""
        classes = outputs.shape[-1]
        self.check_outputs(classes)
        check_rank_is_known(y)
        if len(y.shape) == 2 and y.shape[-1] == classes:
            rows = tf.cast(y, tf.float32)
            sums_to_one = tf.abs(tf.reduce_sum(rows, axis=-1) - 1.0) < 1e-3
            message = (
                "One-hot (or soft) labels must be >= 0 and sum to 1 in each row, but a batch has rows that do not."
            )
            return checked(rows, tf.reduce_all(rows >= 0) & tf.reduce_all(sums_to_one), message)
        if len(y.shape) == 2 and y.shape[-1] == 1:
            y = y[:, 0]
        if len(y.shape) != 1:
            raise ValueError(self._shape_message(tuple(y.shape), classes))
        y = tf.convert_to_tensor(y)
        labels = tf.cast(y, tf.int32)
        parts = (
            f"Labels out of range: expected integers from 0 to {classes - 1}, because the model has {classes} outputs, "
            "but a batch has labels from",
            tf.reduce_min(labels),
            "to",
            tf.reduce_max(labels),
            "in it. Number the classes from 0, or build the model with more outputs.",
        )
        whole = tf.reduce_all(tf.cast(labels, y.dtype) == y)
        in_range = tf.reduce_all((labels >= 0) & (labels < classes))
        return tf.one_hot(checked(labels, in_range & whole, *parts), classes)

    def log_prob(self, y: tf.Tensor, outputs: tf.Tensor, weights: Weights) -> tf.Tensor:
        """Log p(y | outputs), in nats, of shape `(..., batch)`, float32; for soft labels its expectation."""
        # The cross-entropy also takes soft labels, and its gradient is one fused kernel.
        outputs = tf.cast(outputs, tf.float32)
        labels = tf.broadcast_to(self.targets(y, outputs), tf.shape(outputs))
        return -tf.nn.softmax_cross_entropy_with_logits(labels, outputs)

    def expected_log_prob(self, y: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor, weights: Weights) -> tf.Tensor:
        """A lower bound by Jensen's inequality: E[log sum exp f] <= log sum exp(mean + variance / 2)."""
        bound = tf.reduce_logsumexp(mean + 0.5 * variance, axis=-1)
        # Rows of labels sum to 1.
        return tf.reduce_sum(self.targets(y, mean) * mean, axis=-1) - bound

    def mean(self, outputs: tf.Tensor, weights: Weights | None = None) -> tf.Tensor:
        """Class probabilities, `(..., batch, classes)`, float32."""
        return tf.nn.softmax(tf.cast(outputs, tf.float32))

    def check_targets(self, y: np.ndarray, num_outputs: int) -> None:
        """Refuses labels out of range, and rows that are not probabilities."""
        self.check_outputs(num_outputs)
        if y.ndim == 2 and y.shape[1] == num_outputs:
            if (y < 0).any() or not np.allclose(y.sum(axis=1), 1.0, atol=1e-3):
                raise ValueError(
                    "One-hot (or soft) labels must be >= 0 and sum to 1 in each row, but rows sum to "
                    f"{y.sum(axis=1).min():.4g} to {y.sum(axis=1).max():.4g} and the least value is {y.min():.4g}. "
                    "Pass integer labels of shape (batch,), or normalize the rows."
                )
            return
        if y.ndim > 2 or (y.ndim == 2 and y.shape[1] != 1):
            raise ValueError(self._shape_message(y.shape, num_outputs))
        self._check_range(y, num_outputs, f"the model has {num_outputs} outputs")

    def _shape_message(self, shape: Sequence[int | None], classes: int) -> str:
        return (
            f"Labels of shape {tuple(shape)} do not fit a model with {classes} outputs: expected integers of shape "
            f"(batch,), or one-hot labels of shape (batch, {classes})."
        )

"""Keras metrics that are means over rows: proper scores of class probabilities, and their uncertainty in nats.

`y_pred` is `(n, classes)`, or `(samples, n, classes)`, which is averaged over samples first; never logits. Of a single
class, as the likelihood "bernoulli" gives it, it is the probability of the second of two. In `model.compile(metrics=
[...])` of a variational model it is that of one draw of the weights, so that the results tell of single draws, not of
the predictive distribution: its entropy is then the expected entropy. `y_true` are integers, `(n,)` or `(n, 1)`, or
one-hot; metrics that need no labels take None. `sample_weight`, `(n,)`, weights rows; rows of weight 0 may hold
anything.

Values are computed in float64; what is summed up is kept in float32, unless `dtype="float64"`. The result before any
row is 0, as of other Keras metrics.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfp_bnn.metrics.classification import PROBABILITY_FLOOR
from tfp_bnn.metrics.keras_metrics.rows import ClassRows, state_dtype
from tfp_bnn.metrics.keras_metrics.scores import uncertainty


class RowMean(keras.metrics.Mean):
    """The weighted mean over rows of a value of each. Abstract.

    Args:
        name: of the metric in logs.
        dtype: of its state: float32 unless float64 is asked for.
    """

    def __init__(self, name: str, dtype: Any = None) -> None:
        super().__init__(name=name, dtype=state_dtype(dtype))

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds a batch.

        Args:
            y_true: labels, or None where the metric needs none.
            y_pred: `(n, classes)` or `(samples, n, classes)`.
            sample_weight: `(n,)`, or None.

        Raises:
            ValueError: for shapes that do not fit, labels out of range, or values that are not probabilities.
        """
        rows = ClassRows.of(y_pred, sample_weight)
        super().update_state(self._values(y_true, rows), rows.weights)

    def _values(self, y_true: Any, rows: ClassRows) -> tf.Tensor:
        """One number per row, `(n,)`."""
        raise NotImplementedError


@keras.saving.register_keras_serializable(package="tfp_bnn")
class NegativeLogLikelihood(RowMean):
    """The negative log-likelihood, -mean(log p(label)), in nats per row; `tfp_bnn.metrics.nll` batch by batch.

    A probability below 1.2e-38 counts as that number. Of samples it is that of the predictive distribution.

    Args:
        name: of the metric in logs.
        dtype: of its state: float32 unless float64 is asked for.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.NegativeLogLikelihood()
        >>> metric.update_state([0, 1], [[0.9, 0.1], [0.6, 0.4]])
        >>> round(float(metric.result()), 4)
        0.5108
    """

    _direction = "down"

    def __init__(self, name: str = "negative_log_likelihood", dtype: Any = None) -> None:
        super().__init__(name, dtype)

    def _values(self, y_true: Any, rows: ClassRows) -> tf.Tensor:
        at_label = tf.cast(tf.gather(rows.mean, rows.labels(y_true), batch_dims=1), tf.float64)
        return -tf.math.log(tf.clip_by_value(at_label, PROBABILITY_FLOOR, 1.0))


@keras.saving.register_keras_serializable(package="tfp_bnn")
class BrierScore(RowMean):
    """The Brier score, mean over rows of sum over classes of (p - one_hot(label))^2, from 0 to 2.

    `tfp_bnn.metrics.brier_score` batch by batch.

    Args:
        name: of the metric in logs.
        dtype: of its state: float32 unless float64 is asked for.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.BrierScore()
        >>> metric.update_state([0, 1], [[0.9, 0.1], [0.6, 0.4]])
        >>> round(float(metric.result()), 4)
        0.37
    """

    _direction = "down"

    def __init__(self, name: str = "brier_score", dtype: Any = None) -> None:
        super().__init__(name, dtype)

    def _values(self, y_true: Any, rows: ClassRows) -> tf.Tensor:
        mean = tf.cast(rows.mean, tf.float64)
        one_hot = tf.one_hot(rows.labels(y_true), mean.shape[-1], dtype=tf.float64)
        return tf.reduce_sum(tf.square(mean - one_hot), axis=-1)


class UncertaintyMean(RowMean):
    """The mean over rows of one of the scores of `uncertainty`. Abstract. Labels are not looked at."""

    _score: str

    def _values(self, y_true: Any, rows: ClassRows) -> tf.Tensor:
        return uncertainty(rows, self._score)


@keras.saving.register_keras_serializable(package="tfp_bnn")
class PredictiveEntropy(UncertaintyMean):
    """The mean entropy of the (averaged) predictions, in nats: their total uncertainty.

    `tfp_bnn.metrics.predictive_entropy`, averaged over rows. Of one draw it is an estimate of the expected entropy.

    Args:
        name: of the metric in logs.
        dtype: of its state: float32 unless float64 is asked for.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.PredictiveEntropy()
        >>> metric.update_state(None, [[0.5, 0.5], [1.0, 0.0]])
        >>> round(float(metric.result()), 4)
        0.3466
    """

    _score = "entropy"

    def __init__(self, name: str = "predictive_entropy", dtype: Any = None) -> None:
        super().__init__(name, dtype)


@keras.saving.register_keras_serializable(package="tfp_bnn")
class ExpectedEntropy(UncertaintyMean):
    """The mean entropy of the samples, in nats: the aleatoric part of the uncertainty.

    `tfp_bnn.metrics.expected_entropy`, averaged over rows.

    Args:
        name: of the metric in logs.
        dtype: of its state: float32 unless float64 is asked for.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.ExpectedEntropy()
        >>> metric.update_state(None, [[[0.5, 0.5]], [[1.0, 0.0]]])
        >>> round(float(metric.result()), 4)
        0.3466
    """

    _score = "expected_entropy"

    def __init__(self, name: str = "expected_entropy", dtype: Any = None) -> None:
        super().__init__(name, dtype)


@keras.saving.register_keras_serializable(package="tfp_bnn")
class MutualInformation(UncertaintyMean):
    """The mean mutual information of label and weights, in nats: the epistemic part of the uncertainty.

    `tfp_bnn.metrics.mutual_information`, averaged over rows. It needs samples, `(samples, n, classes)`: a compiled
    model gives its metrics one draw only, which has none, and is refused.

    Args:
        name: of the metric in logs.
        dtype: of its state: float32 unless float64 is asked for.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.MutualInformation()
        >>> metric.update_state(None, [[[1.0, 0.0]], [[0.0, 1.0]]])
        >>> round(float(metric.result()), 4)
        0.6931
    """

    _score = "mutual_information"

    def __init__(self, name: str = "mutual_information", dtype: Any = None) -> None:
        super().__init__(name, dtype)


@keras.saving.register_keras_serializable(package="tfp_bnn")
class ClassVariance(UncertaintyMean):
    """The mean variance of the class probabilities over the samples, summed over classes.

    `tfp_bnn.metrics.class_variance`, averaged over rows. It needs samples, `(samples, n, classes)`.

    Args:
        name: of the metric in logs.
        dtype: of its state: float32 unless float64 is asked for.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.ClassVariance()
        >>> metric.update_state(None, [[[1.0, 0.0]], [[0.0, 1.0]]])
        >>> float(metric.result())
        0.5
    """

    _score = "variance"

    def __init__(self, name: str = "class_variance", dtype: Any = None) -> None:
        super().__init__(name, dtype)


@keras.saving.register_keras_serializable(package="tfp_bnn")
class ExpectedErrorRate(UncertaintyMean):
    """The error rate that the predictions themselves expect, mean(1 - max p).

    `tfp_bnn.metrics.expected_error_rate` batch by batch.

    Args:
        name: of the metric in logs.
        dtype: of its state: float32 unless float64 is asked for.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.ExpectedErrorRate()
        >>> metric.update_state(None, [[0.9, 0.1], [0.6, 0.4]])
        >>> round(float(metric.result()), 4)
        0.25
    """

    _score = "expected_error"

    def __init__(self, name: str = "expected_error_rate", dtype: Any = None) -> None:
        super().__init__(name, dtype)

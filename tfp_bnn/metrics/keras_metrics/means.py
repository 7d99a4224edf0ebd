"""Keras metrics that are means over rows: proper scores of class probabilities, and their uncertainty in nats.

`y_pred` is `(n, classes)`, or `(samples, n, classes)`, which is averaged over samples first; never logits. A single
column, as for the likelihood "bernoulli", is the probability of the second of two classes. In
`model.compile(metrics=[...])` of a variational model, predictions come from one draw of the weights. The results are
then those of single draws, not of the predictive distribution: the entropy, for example, estimates the expected
entropy. `y_true` holds integers, `(n,)` or `(n, 1)`, or one-hot rows; metrics that need no labels take None.
`sample_weight`, `(n,)`, weights rows; rows of weight 0 may hold anything.

Values are computed in float64. Their sums are kept in float32, or in float64 with `dtype="float64"`. The result before
any row is 0, as for other Keras metrics.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfp_bnn.core.layer_tree import better
from tfp_bnn.metrics.arrays import Array
from tfp_bnn.metrics.classification import brier_of_rows, nll_of_rows
from tfp_bnn.metrics.keras_metrics.rows import ClassRows
from tfp_bnn.metrics.keras_metrics.shells import RowMean


class LabelMean(RowMean):
    """The mean over rows of a core of labels and averaged probabilities. Abstract."""

    _core: Callable[[Array, Array], Array]

    def _values(self, y_true: Any, y_pred: Any, sample_weight: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """The values and the weights of the rows, both `(n,)`, float64."""
        rows = ClassRows.of(y_pred, sample_weight)
        return type(self)._core(rows.labels(y_true), rows.mean), rows.weights


class UncertaintyMean(RowMean):
    """The mean over rows of one of `tfp_bnn.metrics.uncertainty.SCORES`. Abstract. Labels are ignored."""

    _score: str

    def _values(self, y_true: Any, y_pred: Any, sample_weight: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """The values and the weights of the rows, both `(n,)`, float64."""
        rows = ClassRows.of(y_pred, sample_weight)
        return rows.uncertainty(self._score), rows.weights


@keras.saving.register_keras_serializable(package="tfp_bnn")
@better("down")
class NegativeLogLikelihood(LabelMean):
    """The negative log-likelihood, -mean(log p(label)), in nats per row; `tfp_bnn.metrics.nll` batch by batch.

    A probability below 1.2e-38 counts as that number. Given samples, it is the NLL of the predictive distribution.

    Args:
        name: Name of the metric in logs, "negative_log_likelihood" by default.
        dtype: Dtype of the state: float32 unless `"float64"` is given.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.NegativeLogLikelihood()
        >>> metric.update_state([0, 1], [[0.9, 0.1], [0.6, 0.4]])
        >>> round(float(metric.result()), 4)
        0.5108
    """

    _core = staticmethod(nll_of_rows)


@keras.saving.register_keras_serializable(package="tfp_bnn")
@better("down")
class BrierScore(LabelMean):
    """The Brier score, mean over rows of sum over classes of (p - one_hot(label))^2, from 0 to 2.

    `tfp_bnn.metrics.brier_score` batch by batch.

    Args:
        name: Name of the metric in logs, "brier_score" by default.
        dtype: Dtype of the state: float32 unless `"float64"` is given.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.BrierScore()
        >>> metric.update_state([0, 1], [[0.9, 0.1], [0.6, 0.4]])
        >>> round(float(metric.result()), 4)
        0.37
    """

    _core = staticmethod(brier_of_rows)


@keras.saving.register_keras_serializable(package="tfp_bnn")
class PredictiveEntropy(UncertaintyMean):
    """The mean entropy of the (averaged) predictions, in nats: their total uncertainty.

    `tfp_bnn.metrics.predictive_entropy`, averaged over rows. With one draw it estimates the expected entropy.

    Args:
        name: Name of the metric in logs, "predictive_entropy" by default.
        dtype: Dtype of the state: float32 unless `"float64"` is given.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.PredictiveEntropy()
        >>> metric.update_state(None, [[0.5, 0.5], [1.0, 0.0]])
        >>> round(float(metric.result()), 4)
        0.3466
    """

    _score = "entropy"


@keras.saving.register_keras_serializable(package="tfp_bnn")
class ExpectedEntropy(UncertaintyMean):
    """The mean entropy of the samples, in nats: the aleatoric part of the uncertainty.

    `tfp_bnn.metrics.expected_entropy`, averaged over rows.

    Args:
        name: Name of the metric in logs, "expected_entropy" by default.
        dtype: Dtype of the state: float32 unless `"float64"` is given.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.ExpectedEntropy()
        >>> metric.update_state(None, [[[0.5, 0.5]], [[1.0, 0.0]]])
        >>> round(float(metric.result()), 4)
        0.3466
    """

    _score = "expected_entropy"


@keras.saving.register_keras_serializable(package="tfp_bnn")
class MutualInformation(UncertaintyMean):
    """The mean mutual information of label and weights, in nats: the epistemic part of the uncertainty.

    `tfp_bnn.metrics.mutual_information`, averaged over rows. It needs samples, `(samples, n, classes)`. A compiled
    model passes its metrics a single draw, which is refused.

    Args:
        name: Name of the metric in logs, "mutual_information" by default.
        dtype: Dtype of the state: float32 unless `"float64"` is given.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.MutualInformation()
        >>> metric.update_state(None, [[[1.0, 0.0]], [[0.0, 1.0]]])
        >>> round(float(metric.result()), 4)
        0.6931
    """

    _score = "mutual_information"


@keras.saving.register_keras_serializable(package="tfp_bnn")
class ClassVariance(UncertaintyMean):
    """The mean variance of the class probabilities over the samples, summed over classes.

    `tfp_bnn.metrics.class_variance`, averaged over rows. It needs samples, `(samples, n, classes)`.

    Args:
        name: Name of the metric in logs, "class_variance" by default.
        dtype: Dtype of the state: float32 unless `"float64"` is given.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.ClassVariance()
        >>> metric.update_state(None, [[[1.0, 0.0]], [[0.0, 1.0]]])
        >>> float(metric.result())
        0.5
    """

    _score = "variance"


@keras.saving.register_keras_serializable(package="tfp_bnn")
class ExpectedErrorRate(UncertaintyMean):
    """The error rate that the predictions themselves expect, mean(1 - max p).

    `tfp_bnn.metrics.expected_error_rate` batch by batch.

    Args:
        name: Name of the metric in logs, "expected_error_rate" by default.
        dtype: Dtype of the state: float32 unless `"float64"` is given.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.ExpectedErrorRate()
        >>> metric.update_state(None, [[0.9, 0.1], [0.6, 0.4]])
        >>> round(float(metric.result()), 4)
        0.25
    """

    _score = "expected_error"

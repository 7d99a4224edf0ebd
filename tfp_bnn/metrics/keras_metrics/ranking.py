"""Keras metrics of how well uncertainty detects errors and out-of-distribution inputs.

Exact areas would need all scores at once, sorted again after each batch. Instead, scores are counted in 8,193 bins, 64
KiB of float32: one for scores below 2^-28 = 3.7e-9 and 256 for each octave above, up to 16 nats. Scores in one bin
differ by less than 0.4 %. The results are exactly those of the functions of `tfp_bnn.metrics` for scores rounded to
their bins. Scores in one bin are ties: an AUROC is off by at most half the share of pairs of a positive and a negative
row that share a bin. The functions of `tfp_bnn.metrics` are exact.

`y_pred` and `sample_weight` are as in `means`; a row of weight w counts as w rows. `score` is one of
`tfp_bnn.metrics.uncertainty_scores`: `"entropy"`, `"expected_entropy"`, `"mutual_information"`, `"expected_error"` (1 -
the highest probability) or `"variance"`; the mutual information and the variance need samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfp_bnn.core.layer_tree import better
from tfp_bnn.metrics import ranking
from tfp_bnn.metrics.arrays import Array, segment_sum
from tfp_bnn.metrics.classification import is_correct
from tfp_bnn.metrics.keras_metrics.rows import ClassRows, check_rows, shape_of, whole_numbers
from tfp_bnn.metrics.keras_metrics.shells import Shell
from tfp_bnn.metrics.uncertainty import known_score
from tfp_bnn.metrics.validation import share

NUM_BINS = 8193
# The bits of a positive float32 count up with its value: the exponent, then the mantissa, of which 8 bits are kept.
_DROPPED_BITS = 15
_FIRST_BIN = int(np.float32(2.0**-28).view(np.int32)) >> _DROPPED_BITS


class ScoreHistogram(Shell):
    """A metric computed from the numbers of positive and negative rows by score. Errors are positive. Abstract.

    Args:
        score: Name of the uncertainty score.
        name: Name of the metric in logs.
        dtype: Dtype of the state: float32 unless `"float64"` is given.
    """

    _arguments: tuple[str, ...] = ("score",)
    _core: Callable[..., Array]

    def __init__(self, score: str = "entropy", name: str | None = None, dtype: Any = None) -> None:
        super().__init__(name, dtype)
        self.score = known_score(score)
        self.positives = self.add_variable((NUM_BINS,), "zeros", dtype=self.dtype, name="positives")
        self.negatives = self.add_variable((NUM_BINS,), "zeros", dtype=self.dtype, name="negatives")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds a batch.

        Args:
            y_true: Labels, integers or one-hot rows; for the detection of out-of-distribution inputs, 1 for these and 0
                for others.
            y_pred: Class probabilities `(n, classes)` or `(samples, n, classes)`.
            sample_weight: Weights of the rows `(n,)`, or None. A row with a whole weight counts as so many rows; other
                weights may have any scale.

        Raises:
            ValueError: If shapes do not match, labels are out of range, predictions are not probabilities, or the score
                needs samples and there are none.
        """
        rows = ClassRows.of(y_pred, sample_weight)
        scores = tf.cast(rows.uncertainty(self.score), tf.float32)
        bins = tf.bitwise.right_shift(tf.bitcast(scores, tf.int32), _DROPPED_BITS) - _FIRST_BIN + 1
        bins = tf.clip_by_value(bins, 0, NUM_BINS - 1)
        positive = tf.cast(self._positive(y_true, rows), tf.float64)
        # A NaN has a bin but no rank among the scores, so it makes the counts NaN.
        weights = tf.where(tf.math.is_nan(scores), tf.cast(math.nan, tf.float64), rows.weights)
        for variable, counted in ((self.positives, positive), (self.negatives, 1.0 - positive)):
            variable.assign_add(tf.cast(segment_sum(weights * counted, bins, NUM_BINS), self.dtype))

    def result(self) -> tf.Tensor:
        """The metric of all rows so far."""
        counts = [tf.cast(tf.convert_to_tensor(variable), tf.float64) for variable in (self.positives, self.negatives)]
        # The share that some cores need.
        arguments = {name: getattr(self, name) for name in self._arguments if name != "score"}
        return tf.cast(type(self)._core(*counts, **arguments), self.dtype)

    def _positive(self, y_true: Any, rows: ClassRows) -> tf.Tensor:
        """Which rows are positive, `(n,)`, booleans or 0 and 1."""
        return ~is_correct(rows.labels(y_true), rows.mean)


class OutOfDistributionHistogram(ScoreHistogram):
    """A metric computed from the numbers of rows out of distribution (positive) and in it, by score. Abstract."""

    def _positive(self, y_true: Any, rows: ClassRows) -> tf.Tensor:
        """Which rows are out of distribution, `(n,)`, 0 and 1."""
        y = tf.convert_to_tensor(y_true)
        if y.shape.rank == 2 and y.shape[-1] == 1:
            y = y[:, 0]
        if y.shape.rank != 1:
            raise ValueError(
                "Labels must be 1 for out-of-distribution inputs and 0 for others, of shape (n,), but got "
                f"{shape_of(y)}."
            )
        check_rows(y, rows.samples.shape[1])
        return whole_numbers(y, rows.weights > 0, 2)


@keras.saving.register_keras_serializable(package="tfp_bnn")
@better("up")
class MisclassificationAUROC(ScoreHistogram):
    """The area under the ROC curve of detecting errors; NaN until there are both errors and correct predictions.

    `tfp_bnn.metrics.misclassification_auroc` batch by batch, with scores rounded to 0.4 %.

    Args:
        score: Name of the uncertainty score.
        name: Name of the metric in logs, "misclassification_auroc" by default.
        dtype: Dtype of the state: float32 unless `"float64"` is given.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.MisclassificationAUROC()
        >>> metric.update_state([0, 1, 1], [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
        >>> float(metric.result())
        1.0
    """

    _core = staticmethod(ranking.auroc_of_counts)


@keras.saving.register_keras_serializable(package="tfp_bnn")
@better("up")
class MisclassificationAUPR(ScoreHistogram):
    """The average precision of detecting errors by uncertainty; 0 without errors.

    `tfp_bnn.metrics.misclassification_aupr` batch by batch, with scores rounded to 0.4 %.

    Args:
        score: Name of the uncertainty score.
        name: Name of the metric in logs, "misclassification_aupr" by default.
        dtype: Dtype of the state: float32 unless `"float64"` is given.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.MisclassificationAUPR()
        >>> metric.update_state([1, 0, 1], [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
        >>> round(float(metric.result()), 4)
        0.3333
    """

    _core = staticmethod(ranking.average_precision_of_counts)


@keras.saving.register_keras_serializable(package="tfp_bnn")
@better("down")
class AreaUnderRiskCoverage(ScoreHistogram):
    """The area under the risk-coverage curve: the error rate among the k most certain rows, averaged over k.

    `tfp_bnn.metrics.area_under_risk_coverage` batch by batch, with scores rounded to 0.4 %.

    Args:
        score: Name of the uncertainty score.
        name: Name of the metric in logs, "area_under_risk_coverage" by default.
        dtype: Dtype of the state: float32 unless `"float64"` is given.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.AreaUnderRiskCoverage()
        >>> metric.update_state([0, 1], [[0.9, 0.1], [0.6, 0.4]])
        >>> float(metric.result())
        0.25
    """

    _core = staticmethod(ranking.area_under_risk_coverage_of_counts)


@keras.saving.register_keras_serializable(package="tfp_bnn")
@better("down")
class RiskAtCoverage(ScoreHistogram):
    """The error rate among the most certain rows, as many as make up at least a share `coverage` of all.

    `tfp_bnn.metrics.risk_at_coverage` batch by batch, with scores rounded to 0.4 %.

    Args:
        coverage: Share of rows that are answered, above 0 and up to 1.
        score: Name of the uncertainty score.
        name: Name of the metric in logs, "risk_at_coverage" by default.
        dtype: Dtype of the state: float32 unless `"float64"` is given.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.RiskAtCoverage(coverage=0.5)
        >>> metric.update_state([0, 1], [[0.9, 0.1], [0.6, 0.4]])
        >>> float(metric.result())
        0.0
    """

    _arguments: tuple[str, ...] = ("coverage", "score")
    _core = staticmethod(ranking.risk_at_coverage_of_counts)

    def __init__(
        self, coverage: float = 0.9, score: str = "entropy", name: str | None = None, dtype: Any = None
    ) -> None:
        super().__init__(score, name, dtype)
        self.coverage = share("coverage", coverage)


@keras.saving.register_keras_serializable(package="tfp_bnn")
@better("up")
class OutOfDistributionAUROC(OutOfDistributionHistogram):
    """The area under the ROC curve of detecting out-of-distribution inputs; NaN until there are both kinds.

    `tfp_bnn.metrics.out_of_distribution_auroc` batch by batch, with scores rounded to 0.4 %.

    Args:
        score: Name of the uncertainty score.
        name: Name of the metric in logs, "out_of_distribution_auroc" by default.
        dtype: Dtype of the state: float32 unless `"float64"` is given.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.OutOfDistributionAUROC()
        >>> metric.update_state([0, 1], [[0.9, 0.1], [0.6, 0.4]])
        >>> float(metric.result())
        1.0
    """

    _core = staticmethod(ranking.auroc_of_counts)


@keras.saving.register_keras_serializable(package="tfp_bnn")
@better("up")
class OutOfDistributionAUPR(OutOfDistributionHistogram):
    """The average precision of detecting out-of-distribution inputs; 0 without any.

    `tfp_bnn.metrics.out_of_distribution_aupr` batch by batch, with scores rounded to 0.4 %.

    Args:
        score: Name of the uncertainty score.
        name: Name of the metric in logs, "out_of_distribution_aupr" by default.
        dtype: Dtype of the state: float32 unless `"float64"` is given.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.OutOfDistributionAUPR()
        >>> metric.update_state([1, 0], [[0.9, 0.1], [0.6, 0.4]])
        >>> float(metric.result())
        0.5
    """

    _core = staticmethod(ranking.average_precision_of_counts)


@keras.saving.register_keras_serializable(package="tfp_bnn")
@better("down")
class OutOfDistributionFPR(OutOfDistributionHistogram):
    """The share of in-distribution inputs rejected where 95 % of the others are; NaN until there are both kinds.

    `tfp_bnn.metrics.out_of_distribution_fpr` batch by batch, with scores rounded to 0.4 %.

    Args:
        recall: Share of out-of-distribution inputs to detect, above 0 and up to 1.
        score: Name of the uncertainty score.
        name: Name of the metric in logs, "out_of_distribution_fpr" by default.
        dtype: Dtype of the state: float32 unless `"float64"` is given.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.OutOfDistributionFPR()
        >>> metric.update_state([1, 0], [[0.9, 0.1], [0.6, 0.4]])
        >>> float(metric.result())
        1.0
    """

    _arguments: tuple[str, ...] = ("recall", "score")
    _core = staticmethod(ranking.false_positive_rate_of_counts)

    def __init__(
        self, recall: float = 0.95, score: str = "entropy", name: str | None = None, dtype: Any = None
    ) -> None:
        super().__init__(score, name, dtype)
        self.recall = share("recall", recall)

"""Keras metrics of how well uncertainty finds errors and out-of-distribution inputs.

Exact areas would need all scores at once, sorted anew after each batch. Here scores are counted in 8,193 bins, 64 KiB
of float32: one for scores below 2^-28 = 3.7e-9 and 256 for each octave above, up to 16 nats, so that scores in one bin
differ by less than 0.4 %. The results are exactly those of the functions of `tfp_bnn.metrics` for scores rounded to
their bins. Scores in one bin are ties, so that an AUROC is off by half the share of pairs of a positive and a negative
row that have a bin in common, at the most. The functions of `tfp_bnn.metrics` are exact.

`y_pred` and `sample_weight` are as in `means`; a weight counts as so many rows. `score` is one of
`tfp_bnn.metrics.uncertainty_scores`: `"entropy"`, `"expected_entropy"`, `"mutual_information"`, `"expected_error"` (1 -
the highest probability) or `"variance"`; the mutual information and the variance need samples.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfp_bnn.metrics.keras_metrics.rows import ClassRows, check_rows, state_dtype, whole_numbers
from tfp_bnn.metrics.keras_metrics.scores import check_score, uncertainty
from tfp_bnn.metrics.validation import share

NUM_BINS = 8193
# The bits of a positive float32 count up with its value: the exponent, then the mantissa, of which 8 bits are kept.
_DROPPED_BITS = 15
_FIRST_BIN = int(np.float32(2.0**-28).view(np.int32)) >> _DROPPED_BITS


class ScoreHistogram(keras.metrics.Metric):
    """Counts positive and negative rows by their score. Abstract.

    Args:
        score: of the uncertainty of a row.
        name: of the metric in logs.
        dtype: of its state: float32 unless float64 is asked for.
    """

    def __init__(self, score: str, name: str, dtype: Any = None) -> None:
        super().__init__(name=name, dtype=state_dtype(dtype))
        self.score = check_score(score)
        self.positives = self.add_variable((NUM_BINS,), "zeros", dtype=self.dtype, name="positives")
        self.negatives = self.add_variable((NUM_BINS,), "zeros", dtype=self.dtype, name="negatives")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds a batch.

        Args:
            y_true: labels, integers or one-hot; for the detection of out-of-distribution inputs 1 for such inputs, 0
                for others.
            y_pred: `(n, classes)` or `(samples, n, classes)`.
            sample_weight: `(n,)`, or None.

        Raises:
            ValueError: for shapes that do not fit, labels out of range, values that are not probabilities, or a score
                that needs samples where there are none.
        """
        rows = ClassRows.of(y_pred, sample_weight)
        scores = tf.cast(uncertainty(rows, self.score), tf.float32)
        bins = tf.bitwise.right_shift(tf.bitcast(scores, tf.int32), _DROPPED_BITS) - _FIRST_BIN + 1
        bins = tf.clip_by_value(bins, 0, NUM_BINS - 1)
        positive = tf.cast(self._positive(y_true, rows), tf.float64)
        # A NaN has a bin, but no place among the scores: it makes the counts NaN.
        weights = tf.where(tf.math.is_nan(scores), tf.cast(math.nan, tf.float64), rows.weights)
        for variable, counted in ((self.positives, positive), (self.negatives, 1.0 - positive)):
            sums = tf.math.unsorted_segment_sum(weights * counted, bins, NUM_BINS)
            variable.assign_add(tf.cast(sums, self.dtype))

    def result(self) -> tf.Tensor:
        """The metric of all rows so far."""
        counts = (tf.cast(tf.convert_to_tensor(variable), tf.float64) for variable in (self.positives, self.negatives))
        return tf.cast(self._of_counts(*counts), self.dtype)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "score": self.score}

    def _positive(self, y_true: Any, rows: ClassRows) -> tf.Tensor:
        """Which rows are positive, `(n,)`: errors, here."""
        labels = rows.labels(y_true)
        return tf.argmax(rows.mean, axis=-1, output_type=labels.dtype) != labels

    def _of_counts(self, positives: tf.Tensor, negatives: tf.Tensor) -> tf.Tensor:
        """The metric, given the numbers of rows in bins of ascending score, float64."""
        raise NotImplementedError


class OutOfDistributionHistogram(ScoreHistogram):
    """Counts rows out of distribution (positive) and in distribution by their score. Abstract."""

    def _positive(self, y_true: Any, rows: ClassRows) -> tf.Tensor:
        y = tf.convert_to_tensor(y_true)
        if y.shape.rank == 2 and y.shape[-1] == 1:
            y = y[:, 0]
        if y.shape.rank != 1:
            raise ValueError(
                f"Labels must be 1 for out-of-distribution inputs and 0 for others, of shape (n,), but got "
                f"{tuple(y.shape) if y.shape.rank is not None else 'an unknown shape'}."
            )
        check_rows(y, rows.samples.shape[1])
        return whole_numbers(y, rows.weights > 0, 2)


def _auroc(positives: tf.Tensor, negatives: tf.Tensor) -> tf.Tensor:
    below = tf.cumsum(negatives) - negatives
    pairs = tf.reduce_sum(positives) * tf.reduce_sum(negatives)
    # 0 / 0 without pairs: NaN, as the function gives.
    return tf.reduce_sum(positives * (below + 0.5 * negatives)) / pairs


def _average_precision(positives: tf.Tensor, negatives: tf.Tensor) -> tf.Tensor:
    at_or_above = tf.cumsum(positives, reverse=True)
    precision = tf.math.divide_no_nan(at_or_above, at_or_above + tf.cumsum(negatives, reverse=True))
    return tf.math.divide_no_nan(tf.reduce_sum(positives * precision), at_or_above[0])


@keras.saving.register_keras_serializable(package="tfp_bnn")
class MisclassificationAUROC(ScoreHistogram):
    """The area under the ROC curve of finding errors by uncertainty; NaN until there are errors and right answers.

    `tfp_bnn.metrics.misclassification_auroc` batch by batch, with scores rounded to 0.4 %.

    Args:
        score: of the uncertainty of a row.
        name: of the metric in logs.
        dtype: of its state: float32 unless float64 is asked for.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.MisclassificationAUROC()
        >>> metric.update_state([0, 1, 1], [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
        >>> float(metric.result())
        1.0
    """

    _direction = "up"

    def __init__(self, score: str = "entropy", name: str = "misclassification_auroc", dtype: Any = None) -> None:
        super().__init__(score, name, dtype)

    def _of_counts(self, positives: tf.Tensor, negatives: tf.Tensor) -> tf.Tensor:
        return _auroc(positives, negatives)


@keras.saving.register_keras_serializable(package="tfp_bnn")
class MisclassificationAUPR(ScoreHistogram):
    """The average precision of finding errors by uncertainty; 0 without errors.

    `tfp_bnn.metrics.misclassification_aupr` batch by batch, with scores rounded to 0.4 %.

    Args:
        score: of the uncertainty of a row.
        name: of the metric in logs.
        dtype: of its state: float32 unless float64 is asked for.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.MisclassificationAUPR()
        >>> metric.update_state([1, 0, 1], [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
        >>> round(float(metric.result()), 4)
        0.3333
    """

    _direction = "up"

    def __init__(self, score: str = "entropy", name: str = "misclassification_aupr", dtype: Any = None) -> None:
        super().__init__(score, name, dtype)

    def _of_counts(self, positives: tf.Tensor, negatives: tf.Tensor) -> tf.Tensor:
        return _average_precision(positives, negatives)


@keras.saving.register_keras_serializable(package="tfp_bnn")
class AreaUnderRiskCoverage(ScoreHistogram):
    """The area under the risk-coverage curve: the error rate among the k most certain rows, averaged over k.

    `tfp_bnn.metrics.area_under_risk_coverage` batch by batch, with scores rounded to 0.4 %.

    Args:
        score: of the uncertainty of a row.
        name: of the metric in logs.
        dtype: of its state: float32 unless float64 is asked for.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.AreaUnderRiskCoverage()
        >>> metric.update_state([0, 1], [[0.9, 0.1], [0.6, 0.4]])
        >>> float(metric.result())
        0.25
    """

    _direction = "down"

    def __init__(self, score: str = "entropy", name: str = "area_under_risk_coverage", dtype: Any = None) -> None:
        super().__init__(score, name, dtype)

    def _of_counts(self, positives: tf.Tensor, negatives: tf.Tensor) -> tf.Tensor:
        counts = positives + negatives
        share_of_errors = tf.math.divide_no_nan(positives, counts)
        rows_before, errors_before = tf.cumsum(counts) - counts, tf.cumsum(positives) - positives
        # The sum over j = 1..count of (errors_before + j * share) / (rows_before + j), by a difference of harmonic
        # numbers, that is, of digamma functions.
        harmonic = tf.math.digamma(rows_before + counts + 1.0) - tf.math.digamma(rows_before + 1.0)
        risks = counts * share_of_errors + (errors_before - share_of_errors * rows_before) * harmonic
        return tf.math.divide_no_nan(tf.reduce_sum(risks), tf.reduce_sum(counts))


@keras.saving.register_keras_serializable(package="tfp_bnn")
class RiskAtCoverage(ScoreHistogram):
    """The error rate among the most certain rows, as many as are at least a share `coverage` of all.

    `tfp_bnn.metrics.risk_at_coverage` batch by batch, with scores rounded to 0.4 %.

    Args:
        coverage: above 0 and up to 1.
        score: of the uncertainty of a row.
        name: of the metric in logs.
        dtype: of its state: float32 unless float64 is asked for.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.RiskAtCoverage(coverage=0.5)
        >>> metric.update_state([0, 1], [[0.9, 0.1], [0.6, 0.4]])
        >>> float(metric.result())
        0.0
    """

    _direction = "down"

    def __init__(
        self, coverage: float = 0.9, score: str = "entropy", name: str = "risk_at_coverage", dtype: Any = None
    ) -> None:
        super().__init__(score, name, dtype)
        self.coverage = share("coverage", coverage)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "coverage": self.coverage}

    def _of_counts(self, positives: tf.Tensor, negatives: tf.Tensor) -> tf.Tensor:
        counts = positives + negatives
        rows = tf.cumsum(counts)
        # A product of a share and a number that rounds to just above an integer must not count as the next one.
        answered = tf.math.ceil(self.coverage * rows[-1] * (1.0 - 1e-12))
        last = tf.argmax(rows >= answered)
        share_of_errors = tf.math.divide_no_nan(positives[last], counts[last])
        errors_before, rows_before = tf.cumsum(positives)[last] - positives[last], rows[last] - counts[last]
        return tf.math.divide_no_nan(errors_before + share_of_errors * (answered - rows_before), answered)


@keras.saving.register_keras_serializable(package="tfp_bnn")
class OutOfDistributionAUROC(OutOfDistributionHistogram):
    """The area under the ROC curve of finding out-of-distribution inputs; NaN until there are both kinds.

    `tfp_bnn.metrics.out_of_distribution_auroc` batch by batch, with scores rounded to 0.4 %.

    Args:
        score: of the uncertainty of a row.
        name: of the metric in logs.
        dtype: of its state: float32 unless float64 is asked for.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.OutOfDistributionAUROC()
        >>> metric.update_state([0, 1], [[0.9, 0.1], [0.6, 0.4]])
        >>> float(metric.result())
        1.0
    """

    _direction = "up"

    def __init__(self, score: str = "entropy", name: str = "out_of_distribution_auroc", dtype: Any = None) -> None:
        super().__init__(score, name, dtype)

    def _of_counts(self, positives: tf.Tensor, negatives: tf.Tensor) -> tf.Tensor:
        return _auroc(positives, negatives)


@keras.saving.register_keras_serializable(package="tfp_bnn")
class OutOfDistributionAUPR(OutOfDistributionHistogram):
    """The average precision of finding out-of-distribution inputs; 0 without any.

    `tfp_bnn.metrics.out_of_distribution_aupr` batch by batch, with scores rounded to 0.4 %.

    Args:
        score: of the uncertainty of a row.
        name: of the metric in logs.
        dtype: of its state: float32 unless float64 is asked for.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.OutOfDistributionAUPR()
        >>> metric.update_state([1, 0], [[0.9, 0.1], [0.6, 0.4]])
        >>> float(metric.result())
        0.5
    """

    _direction = "up"

    def __init__(self, score: str = "entropy", name: str = "out_of_distribution_aupr", dtype: Any = None) -> None:
        super().__init__(score, name, dtype)

    def _of_counts(self, positives: tf.Tensor, negatives: tf.Tensor) -> tf.Tensor:
        return _average_precision(positives, negatives)


@keras.saving.register_keras_serializable(package="tfp_bnn")
class OutOfDistributionFPR(OutOfDistributionHistogram):
    """The share of in-distribution inputs rejected where 95 % of the others are; NaN until there are both kinds.

    `tfp_bnn.metrics.out_of_distribution_fpr` batch by batch, with scores rounded to 0.4 %.

    Args:
        recall: the share of out-of-distribution inputs to be found, above 0 and up to 1.
        score: of the uncertainty of a row.
        name: of the metric in logs.
        dtype: of its state: float32 unless float64 is asked for.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.OutOfDistributionFPR()
        >>> metric.update_state([1, 0], [[0.9, 0.1], [0.6, 0.4]])
        >>> float(metric.result())
        1.0
    """

    _direction = "down"

    def __init__(
        self, recall: float = 0.95, score: str = "entropy", name: str = "out_of_distribution_fpr", dtype: Any = None
    ) -> None:
        super().__init__(score, name, dtype)
        self.recall = share("recall", recall)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "recall": self.recall}

    def _of_counts(self, positives: tf.Tensor, negatives: tf.Tensor) -> tf.Tensor:
        found, rejected = tf.cumsum(positives, reverse=True), tf.cumsum(negatives, reverse=True)
        # The highest bin at or above which there are enough of them; without any, 0 / 0 in its place.
        threshold = tf.reduce_sum(tf.cast(found / found[0] >= self.recall, tf.int32)) - 1
        return tf.where(found[0] > 0, rejected[tf.maximum(threshold, 0)] / rejected[0], math.nan)

"""Keras metrics of the predictive distribution of numbers, from draws of the target.

`y_pred` is `(samples, n, outputs)`: draws of the target including its noise, as from
`predictive.distribution().sample(S)`. A compiled model passes its metrics a single draw of the means, which is refused:
these metrics are for callbacks and evaluation loops. `y_true` is `(n, outputs)`, or `(n,)` for one output.
`sample_weight`, `(n,)`, weights rows; rows of weight 0 may hold anything.

Values are computed in float64. Their sums are kept in float32, or in float64 with `dtype="float64"`. The result before
any row is 0. (`keras.metrics.RootMeanSquaredError` takes the predictive means.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfp_bnn.core.checks import require
from tfp_bnn.core.layer_tree import better
from tfp_bnn.metrics.arrays import ratio
from tfp_bnn.metrics.intervals import is_below, is_inside, mean_deviation, width_of
from tfp_bnn.metrics.keras_metrics.rows import target_rows
from tfp_bnn.metrics.keras_metrics.shells import RowMean, Shell
from tfp_bnn.metrics.regression import crps_of_entries
from tfp_bnn.metrics.validation import share


class TargetMean(RowMean):
    """The mean of a core of targets and their samples over rows and outputs. Abstract."""

    def _values(self, y_true: Any, y_pred: Any, sample_weight: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """The values, averaged over outputs, and the weights of the rows, both `(n,)`, float64."""
        targets, samples, weights = target_rows(y_true, y_pred, sample_weight)
        return tf.reduce_mean(self._entries(targets, samples), axis=-1), weights

    def _entries(self, targets: tf.Tensor, samples: tf.Tensor) -> tf.Tensor:
        """One number per row and output, `(n, outputs)`, float64."""
        raise NotImplementedError


class CentralInterval(TargetMean):
    """A score of the central interval between two quantiles of the samples. Abstract.

    Args:
        level: Probability of the interval, above 0 and up to 1.
        name: Name of the metric in logs.
        dtype: Dtype of the state: float32 unless `"float64"` is given.
    """

    _arguments: tuple[str, ...] = ("level",)

    def __init__(self, level: float = 0.9, name: str | None = None, dtype: Any = None) -> None:
        super().__init__(name, dtype)
        self.level = share("level", level)

    def _ends(self, samples: tf.Tensor) -> list[tf.Tensor]:
        """The lower and the upper ends of the intervals, `(n, outputs)`."""
        tail = (1.0 - self.level) / 2.0
        return list(tf.unstack(_quantiles(samples, [tail, 1.0 - tail])))


@keras.saving.register_keras_serializable(package="tfp_bnn")
class IntervalCoverage(CentralInterval):
    """The fraction of targets in the central interval of their samples, ends included.

    `tfp_bnn.metrics.interval_coverage` batch by batch, with quantiles interpolated as by `np.quantile`.

    Args:
        level: Probability of the interval, above 0 and up to 1.
        name: Name of the metric in logs, "interval_coverage" by default.
        dtype: Dtype of the state: float32 unless `"float64"` is given.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.IntervalCoverage(level=0.5)
        >>> metric.update_state([1.5, 9.0], [[[0.0], [0.0]], [[1.0], [1.0]], [[2.0], [2.0]]])
        >>> float(metric.result())
        0.5
    """

    def _entries(self, targets: tf.Tensor, samples: tf.Tensor) -> tf.Tensor:
        """Whether each target is in its interval, `(n, outputs)`."""
        return is_inside(targets, *self._ends(samples))


@keras.saving.register_keras_serializable(package="tfp_bnn")
class IntervalWidth(CentralInterval):
    """The mean width of the central interval of the samples, in the units of the targets.

    `tfp_bnn.metrics.interval_width` batch by batch, with quantiles interpolated as by `np.quantile`.

    Args:
        level: Probability of the interval, above 0 and up to 1.
        name: Name of the metric in logs, "interval_width" by default.
        dtype: Dtype of the state: float32 unless `"float64"` is given.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.IntervalWidth(level=0.5)
        >>> metric.update_state([1.5], [[[0.0]], [[1.0]], [[2.0]]])
        >>> float(metric.result())
        1.0
    """

    def _entries(self, targets: tf.Tensor, samples: tf.Tensor) -> tf.Tensor:
        """The width of each interval, `(n, outputs)`."""
        return width_of(*self._ends(samples))


@keras.saving.register_keras_serializable(package="tfp_bnn")
@better("down")
class ContinuousRankedProbabilityScore(TargetMean):
    """The continuous ranked probability score (CRPS) of samples, mean |x_i - y| - mean |x_i - x_j| / 2.

    `tfp_bnn.metrics.crps` batch by batch, in the units of the targets.

    Args:
        fair: Whether the score is unbiased in the number of samples, which needs at least two.
        name: Name of the metric in logs, "continuous_ranked_probability_score" by default.
        dtype: Dtype of the state: float32 unless `"float64"` is given.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.ContinuousRankedProbabilityScore(fair=False)
        >>> metric.update_state([1.0], [[[0.0]], [[2.0]]])
        >>> float(metric.result())
        0.5
    """

    _arguments: tuple[str, ...] = ("fair",)

    def __init__(self, fair: bool = True, name: str | None = None, dtype: Any = None) -> None:
        super().__init__(name, dtype)
        self.fair = bool(fair)

    def _entries(self, targets: tf.Tensor, samples: tf.Tensor) -> tf.Tensor:
        """The score of each target, `(n, outputs)`."""
        if self.fair:
            enough = tf.shape(samples)[0] > 1
            require(enough, "A fair CRPS needs at least 2 samples, but got 1. Draw more, or pass `fair=False`.")
        return crps_of_entries(targets, samples, self.fair)


@keras.saving.register_keras_serializable(package="tfp_bnn")
@better("down")
class QuantileCalibrationError(Shell):
    """The calibration error of quantiles, mean over levels of |share of targets at or below the quantile - level|.

    `tfp_bnn.metrics.quantile_calibration_error` batch by batch, with quantiles interpolated as by `np.quantile`.

    Args:
        levels: Levels of the quantiles, each above 0 and below 1; 0.05, 0.15, ..., 0.95 by default.
        name: Name of the metric in logs, "quantile_calibration_error" by default.
        dtype: Dtype of the state: float32 unless `"float64"` is given.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.QuantileCalibrationError(levels=[0.5])
        >>> metric.update_state([0.5, 9.0, 9.0, 9.0], [[[0.0]] * 4, [[1.0]] * 4, [[2.0]] * 4])
        >>> float(metric.result())
        0.25
    """

    _arguments: tuple[str, ...] = ("levels",)

    def __init__(
        self,
        levels: Sequence[float] = (0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95),
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(name, dtype)
        self.levels = [share("levels", level) for level in levels]
        if not self.levels or max(self.levels) == 1:
            raise ValueError(f"`levels` must be one or more numbers above 0 and below 1, but got {levels!r}.")
        self.below = self.add_variable((len(self.levels),), "zeros", dtype=self.dtype, name="below")
        self.count = self.add_variable((), "zeros", dtype=self.dtype, name="count")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds a batch.

        Args:
            y_true: Targets `(n, outputs)`, or `(n,)` for one output.
            y_pred: Draws of the targets `(samples, n, outputs)`.
            sample_weight: Weights of the rows `(n,)`, or None.

        Raises:
            ValueError: If shapes do not match.
        """
        targets, samples, weights = target_rows(y_true, y_pred, sample_weight)
        below = tf.reduce_mean(is_below(targets, _quantiles(samples, self.levels)), axis=-1)
        self.below.assign_add(tf.cast(tf.linalg.matvec(below, weights), self.dtype))
        self.count.assign_add(tf.cast(tf.reduce_sum(weights), self.dtype))

    def result(self) -> tf.Tensor:
        """The error of all rows so far."""
        below, count = tf.convert_to_tensor(self.below), tf.convert_to_tensor(self.count)
        error = mean_deviation(ratio(below, count), tf.constant(self.levels, below.dtype))
        return tf.where(count == 0, tf.zeros_like(error), error)


def _quantiles(samples: tf.Tensor, levels: Sequence[float]) -> tf.Tensor:
    """Quantiles over the samples, interpolated linearly, `(levels, n, outputs)`."""
    return keras.ops.quantile(samples, tf.constant(levels, tf.float64), axis=0)

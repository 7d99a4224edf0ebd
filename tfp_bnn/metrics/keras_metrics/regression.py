"""Keras metrics of the predictive distribution of numbers, from draws of the target.

`y_pred` is `(samples, n, outputs)`: draws of the target with its noise, as from `predictive.distribution().sample(S)`.
A compiled model gives its metrics one draw of the means only, which is refused: these metrics are for callbacks and
evaluation loops. `y_true` is `(n, outputs)`, or `(n,)` for one output. `sample_weight`, `(n,)`, weights rows; rows of
weight 0 may hold anything.

Values are computed in float64; what is summed up is kept in float32, unless `dtype="float64"`. The result before any
row is 0. (`keras.metrics.RootMeanSquaredError` takes the predictive means.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfp_bnn.metrics.keras_metrics.rows import require, state_dtype, target_rows
from tfp_bnn.metrics.validation import share


class TargetMean(keras.metrics.Mean):
    """The weighted mean over rows and outputs of a value of each. Abstract.

    Args:
        name: of the metric in logs.
        dtype: of its state: float32 unless float64 is asked for.
    """

    def __init__(self, name: str, dtype: Any = None) -> None:
        super().__init__(name=name, dtype=state_dtype(dtype))

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds a batch.

        Args:
            y_true: `(n, outputs)`, or `(n,)` for one output.
            y_pred: `(samples, n, outputs)`.
            sample_weight: `(n,)`, or None.

        Raises:
            ValueError: for shapes that do not fit.
        """
        targets, samples, weights = target_rows(y_true, y_pred, sample_weight)
        super().update_state(tf.reduce_mean(self._values(targets, samples), axis=-1), weights)

    def _values(self, targets: tf.Tensor, samples: tf.Tensor) -> tf.Tensor:
        """One number per row and output, `(n, outputs)`, float64."""
        raise NotImplementedError


class CentralInterval(TargetMean):
    """A score of the central interval between two quantiles of the samples. Abstract.

    Args:
        level: the share of the distribution that the interval holds, above 0 and below 1.
        name: of the metric in logs.
        dtype: of its state: float32 unless float64 is asked for.
    """

    def __init__(self, level: float, name: str, dtype: Any = None) -> None:
        super().__init__(name, dtype)
        self.level = share("level", level)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "level": self.level}

    def _ends(self, samples: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        tail = (1.0 - self.level) / 2.0
        lower, upper = tf.unstack(_quantiles(samples, [tail, 1.0 - tail]))
        return lower, upper


@keras.saving.register_keras_serializable(package="tfp_bnn")
class IntervalCoverage(CentralInterval):
    """The fraction of targets in the central interval of their samples, ends included.

    `tfp_bnn.metrics.interval_coverage` batch by batch, of the quantiles that `np.quantile` interpolates.

    Args:
        level: the share of the distribution that the interval holds, up to 1.
        name: of the metric in logs.
        dtype: of its state: float32 unless float64 is asked for.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.IntervalCoverage(level=0.5)
        >>> metric.update_state([1.5, 9.0], [[[0.0], [0.0]], [[1.0], [1.0]], [[2.0], [2.0]]])
        >>> float(metric.result())
        0.5
    """

    def __init__(self, level: float = 0.9, name: str = "interval_coverage", dtype: Any = None) -> None:
        super().__init__(level, name, dtype)

    def _values(self, targets: tf.Tensor, samples: tf.Tensor) -> tf.Tensor:
        lower, upper = self._ends(samples)
        return tf.cast((lower <= targets) & (targets <= upper), tf.float64)


@keras.saving.register_keras_serializable(package="tfp_bnn")
class IntervalWidth(CentralInterval):
    """The mean width of the central interval of the samples, in the units of the targets.

    `tfp_bnn.metrics.interval_width` batch by batch, of the quantiles that `np.quantile` interpolates.

    Args:
        level: the share of the distribution that the interval holds, up to 1.
        name: of the metric in logs.
        dtype: of its state: float32 unless float64 is asked for.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.IntervalWidth(level=0.5)
        >>> metric.update_state([1.5], [[[0.0]], [[1.0]], [[2.0]]])
        >>> float(metric.result())
        1.0
    """

    def __init__(self, level: float = 0.9, name: str = "interval_width", dtype: Any = None) -> None:
        super().__init__(level, name, dtype)

    def _values(self, targets: tf.Tensor, samples: tf.Tensor) -> tf.Tensor:
        lower, upper = self._ends(samples)
        return upper - lower


@keras.saving.register_keras_serializable(package="tfp_bnn")
class ContinuousRankedProbabilityScore(TargetMean):
    """The continuous ranked probability score (CRPS) of samples, mean |x_i - y| - mean |x_i - x_j| / 2.

    `tfp_bnn.metrics.crps` batch by batch, in the units of the targets.

    Args:
        fair: whether the score is to be unbiased in the number of samples; needs two of them.
        name: of the metric in logs.
        dtype: of its state: float32 unless float64 is asked for.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.ContinuousRankedProbabilityScore(fair=False)
        >>> metric.update_state([1.0], [[[0.0]], [[2.0]]])
        >>> float(metric.result())
        0.5
    """

    _direction = "down"

    def __init__(self, fair: bool = True, name: str = "continuous_ranked_probability_score", dtype: Any = None) -> None:
        super().__init__(name, dtype)
        self.fair = bool(fair)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "fair": self.fair}

    def _values(self, targets: tf.Tensor, samples: tf.Tensor) -> tf.Tensor:
        number = tf.shape(samples)[0]
        if self.fair:
            require(number > 1, "A fair CRPS needs at least 2 samples, but got 1. Draw more, or pass `fair=False`.")
        errors = tf.sort(samples - targets, axis=0)
        count = tf.cast(number, tf.float64)
        ranks = 2.0 * tf.range(count, dtype=tf.float64) - count + 1.0
        spread = tf.einsum("s,sno->no", ranks, errors) / (count * (count - 1.0 if self.fair else count))
        return tf.reduce_mean(tf.abs(errors), axis=0) - spread


@keras.saving.register_keras_serializable(package="tfp_bnn")
class QuantileCalibrationError(keras.metrics.Metric):
    """The calibration error of quantiles, mean over levels of |share of targets at or below the quantile - level|.

    `tfp_bnn.metrics.quantile_calibration_error` batch by batch, of the quantiles that `np.quantile` interpolates.

    Args:
        levels: of the quantiles, each above 0 and below 1; 0.05, 0.15, ..., 0.95 by default.
        name: of the metric in logs.
        dtype: of its state: float32 unless float64 is asked for.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.QuantileCalibrationError(levels=[0.5])
        >>> metric.update_state([0.5, 9.0, 9.0, 9.0], [[[0.0]] * 4, [[1.0]] * 4, [[2.0]] * 4])
        >>> float(metric.result())
        0.25
    """

    _direction = "down"

    def __init__(
        self,
        levels: Sequence[float] = (0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95),
        name: str = "quantile_calibration_error",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, dtype=state_dtype(dtype))
        self.levels = [share("levels", level) for level in levels]
        if not self.levels or max(self.levels) == 1:
            raise ValueError(f"`levels` must be one or more numbers above 0 and below 1, but got {levels!r}.")
        self.below = self.add_variable((len(self.levels),), "zeros", dtype=self.dtype, name="below")
        self.count = self.add_variable((), "zeros", dtype=self.dtype, name="count")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds a batch.

        Args:
            y_true: `(n, outputs)`, or `(n,)` for one output.
            y_pred: `(samples, n, outputs)`.
            sample_weight: `(n,)`, or None.

        Raises:
            ValueError: for shapes that do not fit.
        """
        targets, samples, weights = target_rows(y_true, y_pred, sample_weight)
        below = tf.reduce_mean(tf.cast(targets <= _quantiles(samples, self.levels), tf.float64), axis=-1)
        self.below.assign_add(tf.cast(tf.linalg.matvec(below, weights), self.dtype))
        self.count.assign_add(tf.cast(tf.reduce_sum(weights), self.dtype))

    def result(self) -> tf.Tensor:
        """The error of all rows so far."""
        shares = tf.convert_to_tensor(self.below) / self.count
        error = tf.reduce_mean(tf.abs(shares - tf.constant(self.levels, shares.dtype)))
        return tf.where(self.count == 0, tf.zeros_like(error), error)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "levels": list(self.levels)}


def _quantiles(samples: tf.Tensor, levels: Sequence[float]) -> tf.Tensor:
    """Quantiles over the samples, interpolated linearly, `(levels, n, outputs)`."""
    return keras.ops.quantile(samples, tf.constant(levels, tf.float64), axis=0)

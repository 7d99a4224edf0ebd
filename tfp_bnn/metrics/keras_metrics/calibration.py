"""Keras metrics of calibration. Exact: what a bin holds is summed up batch by batch.

`y_true`, `y_pred` and `sample_weight` are as in `means`. Bins have equal width; bins of equal mass need all rows at
once, which only the functions of `tfp_bnn.metrics` see. The result before any row is 0.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfp_bnn.core.arguments import is_integer
from tfp_bnn.metrics.keras_metrics.rows import ClassRows, state_dtype
from tfp_bnn.metrics.validation import number_of_bins


class BinnedGaps(keras.metrics.Metric):
    """By bins of a probability, how far what happened is above it. Abstract.

    Args:
        num_bins: bins of equal width from 0 to 1.
        num_groups: that are binned each for itself.
        name: of the metric in logs.
        dtype: of its state: float32 unless float64 is asked for.
    """

    _direction = "down"

    def __init__(self, num_bins: int, num_groups: int, name: str, dtype: Any = None) -> None:
        super().__init__(name=name, dtype=state_dtype(dtype))
        self.num_bins = number_of_bins(num_bins)
        self._num_groups = num_groups
        shape = (num_groups, self.num_bins)
        self.gaps = self.add_variable(shape, "zeros", dtype=self.dtype, name="gaps")
        self.counts = self.add_variable(shape, "zeros", dtype=self.dtype, name="counts")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds a batch.

        Args:
            y_true: labels, integers or one-hot.
            y_pred: `(n, classes)` or `(samples, n, classes)`.
            sample_weight: `(n,)`, or None.

        Raises:
            ValueError: for shapes that do not fit, labels out of range, or values that are not probabilities.
        """
        rows = ClassRows.of(y_pred, sample_weight)
        probabilities, happened = self._binned(rows.mean, rows.labels(y_true))
        # In the dtype of the predictions, so that what is on an edge as a decimal number is so as a float32 too.
        edges = (np.arange(1, self.num_bins) / self.num_bins).astype(probabilities.dtype.as_numpy_dtype)
        bins = tf.reshape(tf.searchsorted(edges, tf.reshape(probabilities, [-1]), side="left"), tf.shape(probabilities))
        cells = bins + tf.range(self._num_groups) * self.num_bins
        weights = tf.broadcast_to(rows.weights[:, tf.newaxis], tf.shape(probabilities))
        gaps = weights * (tf.cast(happened, tf.float64) - tf.cast(probabilities, tf.float64))
        for variable, values in ((self.gaps, gaps), (self.counts, weights)):
            sums = tf.math.unsorted_segment_sum(values, cells, self._num_groups * self.num_bins)
            variable.assign_add(tf.cast(tf.reshape(sums, variable.shape), self.dtype))

    def result(self) -> tf.Tensor:
        """The expected calibration error of all rows so far, averaged over groups."""
        gaps, counts = (tf.convert_to_tensor(variable) for variable in (self.gaps, self.counts))
        return tf.math.divide_no_nan(tf.reduce_sum(tf.abs(gaps)), tf.reduce_sum(counts))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "num_bins": self.num_bins}

    def _binned(self, mean: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Probabilities, and whether that which they are for happened, both `(n, groups)`. Of the top one here."""
        right = tf.argmax(mean, axis=-1, output_type=labels.dtype) == labels
        return tf.reduce_max(mean, axis=-1, keepdims=True), right[:, tf.newaxis]


@keras.saving.register_keras_serializable(package="tfp_bnn")
class ExpectedCalibrationError(BinnedGaps):
    """The expected calibration error of the top probability, sum_b n_b / n * |accuracy_b - confidence_b|.

    `tfp_bnn.metrics.expected_calibration_error` with `binning="width"`, batch by batch.

    Args:
        num_bins: the number of bins, at least 1.
        name: of the metric in logs.
        dtype: of its state: float32 unless float64 is asked for.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.ExpectedCalibrationError()
        >>> metric.update_state([0, 1], [[0.9, 0.1], [0.6, 0.4]])
        >>> round(float(metric.result()), 4)
        0.35
    """

    def __init__(self, num_bins: int = 15, name: str = "expected_calibration_error", dtype: Any = None) -> None:
        super().__init__(num_bins, 1, name, dtype)


@keras.saving.register_keras_serializable(package="tfp_bnn")
class MaximumCalibrationError(BinnedGaps):
    """The maximum calibration error of the top probability, max_b |accuracy_b - confidence_b| over bins with rows.

    `tfp_bnn.metrics.maximum_calibration_error` with `binning="width"`, batch by batch.

    Args:
        num_bins: the number of bins, at least 1.
        name: of the metric in logs.
        dtype: of its state: float32 unless float64 is asked for.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.MaximumCalibrationError()
        >>> metric.update_state([0, 1], [[0.9, 0.1], [0.6, 0.4]])
        >>> round(float(metric.result()), 4)
        0.6
    """

    def __init__(self, num_bins: int = 15, name: str = "maximum_calibration_error", dtype: Any = None) -> None:
        super().__init__(num_bins, 1, name, dtype)

    def result(self) -> tf.Tensor:
        """The largest gap of all bins so far."""
        gaps, counts = (tf.convert_to_tensor(variable) for variable in (self.gaps, self.counts))
        return tf.reduce_max(tf.math.divide_no_nan(tf.abs(gaps), counts))


@keras.saving.register_keras_serializable(package="tfp_bnn")
class ClasswiseCalibrationError(BinnedGaps):
    """The expected calibration error of the probability of each class, averaged over the classes.

    `tfp_bnn.metrics.classwise_calibration_error` with `binning="width"`, batch by batch.

    Args:
        num_classes: the number of classes, 2 for a single probability.
        num_bins: the number of bins, at least 1.
        name: of the metric in logs.
        dtype: of its state: float32 unless float64 is asked for.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.ClasswiseCalibrationError(num_classes=2)
        >>> metric.update_state([0, 1], [[0.9, 0.1], [0.6, 0.4]])
        >>> round(float(metric.result()), 4)
        0.35
    """

    def __init__(
        self, num_classes: int, num_bins: int = 15, name: str = "classwise_calibration_error", dtype: Any = None
    ) -> None:
        if not is_integer(num_classes) or num_classes < 2:
            raise ValueError(f"`num_classes` must be an integer of at least 2, but got {num_classes!r}.")
        super().__init__(num_bins, int(num_classes), name, dtype)
        self.num_classes = int(num_classes)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "num_classes": self.num_classes}

    def _binned(self, mean: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        if mean.shape[-1] != self.num_classes:
            raise ValueError(
                f"{self.name!r} was made with num_classes={self.num_classes}, but the predictions have "
                f"{mean.shape[-1]} classes."
            )
        return mean, tf.one_hot(labels, self.num_classes)

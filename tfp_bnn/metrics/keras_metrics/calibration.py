"""Keras metrics of calibration. They are exact, because the sums of each bin add up over batches.

`y_true`, `y_pred` and `sample_weight` are as in `means`. Bins have equal width. Bins of equal mass need all rows at
once, so only the functions of `tfp_bnn.metrics` offer them. The result before any row is 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfp_bnn.core.arguments import is_integer
from tfp_bnn.core.layer_tree import better
from tfp_bnn.metrics.arrays import Array
from tfp_bnn.metrics.calibration import each_class, largest_gap, mean_gap, sums_of_bins, top_class
from tfp_bnn.metrics.keras_metrics.rows import ClassRows
from tfp_bnn.metrics.keras_metrics.shells import Shell
from tfp_bnn.metrics.validation import number_of_bins


@better("down")
class BinnedGaps(Shell):
    """An error computed from the gaps between events and their probabilities in each bin. Abstract.

    Args:
        num_bins: Number of bins of equal width from 0 to 1.
        name: Name of the metric in logs.
        dtype: Dtype of the state: float32 unless `"float64"` is given.
        num_groups: Number of probabilities per row that have separate bins.
    """

    _arguments: tuple[str, ...] = ("num_bins",)
    _binned: Callable[[Array, Array], tuple[Array, Array]] = staticmethod(top_class)
    _error: Callable[[Array, Array], Array] = staticmethod(mean_gap)

    def __init__(self, num_bins: int = 15, name: str | None = None, dtype: Any = None, *, num_groups: int = 1) -> None:
        super().__init__(name, dtype)
        self.num_bins = number_of_bins(num_bins)
        shape = (num_groups, self.num_bins)
        self.gaps = self.add_variable(shape, "zeros", dtype=self.dtype, name="gaps")
        self.counts = self.add_variable(shape, "zeros", dtype=self.dtype, name="counts")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds a batch.

        Args:
            y_true: Labels, integers or one-hot rows.
            y_pred: Class probabilities `(n, classes)` or `(samples, n, classes)`.
            sample_weight: Weights of the rows `(n,)`, or None.

        Raises:
            ValueError: If shapes do not match, labels are out of range, or predictions are not probabilities.
        """
        rows = ClassRows.of(y_pred, sample_weight)
        probabilities, happened = type(self)._binned(rows.labels(y_true), self._checked(rows.mean))
        sums = sums_of_bins(probabilities, happened, rows.weights, self.num_bins)
        for variable, of_batch in zip((self.gaps, self.counts), sums, strict=True):
            variable.assign_add(tf.cast(of_batch, self.dtype))

    def result(self) -> tf.Tensor:
        """The error of all rows so far."""
        return type(self)._error(*(tf.convert_to_tensor(variable) for variable in (self.gaps, self.counts)))

    def _checked(self, probabilities: tf.Tensor) -> tf.Tensor:
        """Returns the probabilities `(n, classes)`. Raises a ValueError if they do not fit the metric."""
        return probabilities


@keras.saving.register_keras_serializable(package="tfp_bnn")
class ExpectedCalibrationError(BinnedGaps):
    """The expected calibration error of the top probability, sum_b n_b / n * |accuracy_b - confidence_b|.

    `tfp_bnn.metrics.expected_calibration_error` with `binning="width"`, batch by batch.

    Args:
        num_bins: Number of bins, at least 1.
        name: Name of the metric in logs, "expected_calibration_error" by default.
        dtype: Dtype of the state: float32 unless `"float64"` is given.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.ExpectedCalibrationError()
        >>> metric.update_state([0, 1], [[0.9, 0.1], [0.6, 0.4]])
        >>> round(float(metric.result()), 4)
        0.35
    """


@keras.saving.register_keras_serializable(package="tfp_bnn")
class MaximumCalibrationError(BinnedGaps):
    """The maximum calibration error of the top probability, max_b |accuracy_b - confidence_b| over bins with rows.

    `tfp_bnn.metrics.maximum_calibration_error` with `binning="width"`, batch by batch.

    Args:
        num_bins: Number of bins, at least 1.
        name: Name of the metric in logs, "maximum_calibration_error" by default.
        dtype: Dtype of the state: float32 unless `"float64"` is given.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.MaximumCalibrationError()
        >>> metric.update_state([0, 1], [[0.9, 0.1], [0.6, 0.4]])
        >>> round(float(metric.result()), 4)
        0.6
    """

    _error = staticmethod(largest_gap)


@keras.saving.register_keras_serializable(package="tfp_bnn")
class ClasswiseCalibrationError(BinnedGaps):
    """The expected calibration error of the probability of each class, averaged over the classes.

    `tfp_bnn.metrics.classwise_calibration_error` with `binning="width"`, batch by batch.

    Args:
        num_classes: Number of classes, 2 for a single probability.
        num_bins: Number of bins, at least 1.
        name: Name of the metric in logs, "classwise_calibration_error" by default.
        dtype: Dtype of the state: float32 unless `"float64"` is given.

    Example:
        >>> import tfp_bnn
        >>> metric = tfp_bnn.metrics.ClasswiseCalibrationError(num_classes=2)
        >>> metric.update_state([0, 1], [[0.9, 0.1], [0.6, 0.4]])
        >>> round(float(metric.result()), 4)
        0.35
    """

    _arguments: tuple[str, ...] = ("num_classes", "num_bins")
    _binned = staticmethod(each_class)

    def __init__(self, num_classes: int, num_bins: int = 15, name: str | None = None, dtype: Any = None) -> None:
        if not is_integer(num_classes) or num_classes < 2:
            raise ValueError(f"`num_classes` must be an integer of at least 2, but got {num_classes!r}.")
        super().__init__(num_bins, name, dtype, num_groups=int(num_classes))
        self.num_classes = int(num_classes)

    def _checked(self, probabilities: tf.Tensor) -> tf.Tensor:
        """Returns the probabilities `(n, classes)`. Raises a ValueError for another number of classes."""
        if probabilities.shape[-1] != self.num_classes:
            raise ValueError(
                f"{self.name!r} was made with num_classes={self.num_classes}, but the predictions have "
                f"{probabilities.shape[-1]} classes."
            )
        return probabilities

"""The base of all Keras metrics: a name, a precise state and a config. Each metric is a shell around a core.

The cores are the pure functions of `tfp_bnn.metrics`. A shell passes them the rows of a batch and adds up the results,
weighted by row.
"""

from __future__ import annotations

import re
from typing import Any

import keras
import tensorflow as tf

from tfp_bnn.metrics.keras_metrics.rows import state_dtype


class Shell(keras.metrics.Metric):
    """A metric of the rows seen so far. Abstract.

    Subclasses are registered with Keras under "tfp_bnn". `_arguments` lists the names of the constructor's arguments,
    and each is an attribute.

    Args:
        name: Name of the metric in logs. Default: the name of the class in snake case.
        dtype: Dtype of the state: float32 unless `"float64"` is given.
    """

    _arguments: tuple[str, ...] = ()

    def __init__(self, name: str | None = None, dtype: Any = None) -> None:
        # Keras' default name counts the metrics of the process, so the key in logs would depend on it.
        super().__init__(name=name or _snake_case(type(self).__name__), dtype=state_dtype(dtype))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, JSON-serializable."""
        return {**super().get_config(), **{name: getattr(self, name) for name in self._arguments}}


class RowMean(Shell, keras.metrics.Mean):
    """The weighted mean over rows of a value per row. Abstract."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds a batch.

        Args:
            y_true: Labels or targets of n rows, or None for a metric that needs none.
            y_pred: Predictions for the rows, with or without a sample axis in front.
            sample_weight: Weights of the rows `(n,)`, or None. Rows of weight 0 may hold anything.

        Raises:
            ValueError: If shapes do not match, or labels or predictions are invalid.
        """
        values, weights = self._values(y_true, y_pred, sample_weight)
        super().update_state(values, weights)

    def _values(self, y_true: Any, y_pred: Any, sample_weight: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """The values and the weights of the rows, both `(n,)`, float64."""
        raise NotImplementedError


def _snake_case(name: str) -> str:
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower()

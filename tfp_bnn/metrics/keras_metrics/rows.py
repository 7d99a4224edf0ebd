"""Validation of the arguments of Keras metrics: batches of predictions and targets, compiled or not.

Rows of weight 0, such as the padding of a partial batch, may hold anything: they are replaced by harmless values. NaN
in other rows makes the result NaN. Other invalid values raise a ValueError, also in the compiled steps of `fit` and
`evaluate` of a variational model. In those of other models an assertion fails, which XLA leaves out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from tfp_bnn.core.checks import require
from tfp_bnn.core.layer_tree import mask_of
from tfp_bnn.metrics.uncertainty import SCORES, SCORES_OF_SEVERAL_SAMPLES, mean_of_samples
from tfp_bnn.metrics.validation import SUM_TOLERANCE


@dataclass(frozen=True, eq=False)
class ClassRows:
    """Class probabilities of n rows.

    Attributes:
        samples: Class probabilities `(samples, n, classes)`, float32 or float64; one sample if the predictions had no
            sample axis.
        weights: Weights of the rows `(n,)`, float64.
        one_draw: Whether the predictions had no sample axis.
    """

    samples: tf.Tensor
    weights: tf.Tensor
    one_draw: bool

    @classmethod
    def of(cls, y_pred: Any, sample_weight: Any = None) -> ClassRows:
        """Makes rows of `(n, classes)` or `(samples, n, classes)`; a single column is the second class of two."""
        p = floating(y_pred)
        if p.shape.rank not in (2, 3) or p.shape[-1] is None:
            raise ValueError(
                "Predictions must be probabilities of shape (n, classes) or (samples, n, classes), but got "
                f"{shape_of(p)}."
            )
        one_draw = p.shape.rank == 2
        samples = p[tf.newaxis] if one_draw else p
        if p.shape[-1] == 1:
            samples = tf.concat([1.0 - samples, samples], axis=-1)
        weights = row_weights(y_pred, sample_weight, tf.shape(samples)[1])
        uniform = tf.ones_like(samples) / samples.shape[-1]
        samples = tf.where((weights > 0)[:, tf.newaxis], samples, uniform)
        sums = tf.reduce_sum(tf.cast(samples, tf.float64), axis=-1)
        wrong = tf.reduce_any(samples < 0) | tf.reduce_any(tf.abs(sums - 1.0) > SUM_TOLERANCE)
        require(
            ~wrong,
            f"Predictions must be probabilities, >= 0 with a sum of 1 over the last axis to {SUM_TOLERANCE}, but a "
            "batch has others. If they are logits, apply a softmax first; several independent labels per row are not "
            "supported.",
        )
        # A step in which checks are collected goes on, and would fail at values out of range.
        return cls(tf.where(wrong, uniform, samples), weights, one_draw)

    @property
    def mean(self) -> tf.Tensor:
        """The probabilities averaged over samples, `(n, classes)`, in the dtype of the samples."""
        return tf.cast(mean_of_samples(self.samples), self.samples.dtype)

    def uncertainty(self, score: str) -> tf.Tensor:
        """One of `SCORES` for each row, `(n,)`, float64, never below 0.

        Raises:
            ValueError: If there is a single draw and the score is always 0 for a single draw.
        """
        if self.one_draw and score in SCORES_OF_SEVERAL_SAMPLES:
            raise ValueError(
                f"The {score.replace('_', ' ')} needs samples, predictions of shape (samples, n, classes), but got (n, "
                "classes): for a single draw it is 0. A compiled model gives its metrics one draw only; update this "
                "metric with the `samples` of `posterior_predictive` instead."
            )
        return SCORES[score](self.samples)

    def labels(self, y_true: Any) -> tf.Tensor:
        """The labels as int32 `(n,)`, given as integers or whole numbers `(n,)` or `(n, 1)`, or as one-hot rows."""
        number = self.samples.shape[-1]
        y = tf.convert_to_tensor(y_true)
        one_hot = y.shape.rank == 2 and y.shape[-1] == number
        if y.shape.rank == 2 and y.shape[-1] == 1:
            y = y[:, 0]
        if not one_hot and y.shape.rank != 1:
            raise ValueError(
                f"Labels must be integers of shape (n,) or (n, 1), or one-hot of shape (n, {number}), but got "
                f"{shape_of(y)}."
            )
        check_rows(y, self.samples.shape[1])
        counted = self.weights > 0
        if one_hot:
            y = tf.where(counted[:, tf.newaxis], tf.cast(y, tf.float32), tf.one_hot(0, number))
            require(
                tf.reduce_all((y == 0) | (y == 1)) & tf.reduce_all(tf.reduce_sum(y, axis=-1) == 1),
                "One-hot labels must hold a single 1 per row and 0 elsewhere, but a batch has rows that do not. Soft "
                "labels are not supported.",
            )
            return tf.argmax(y, axis=-1, output_type=tf.int32)
        return whole_numbers(y, counted, number)


def whole_numbers(y: tf.Tensor, counted: tf.Tensor, number: int) -> tf.Tensor:
    """The values as int32 where `counted`, 0 elsewhere. Refused unless from 0 to `number - 1`. Both `(n,)`."""
    y = tf.where(counted, tf.cast(y, tf.float64), 0.0)
    integers = tf.cast(y, tf.int32)
    require(
        tf.reduce_all((integers >= 0) & (integers < number) & (tf.cast(integers, tf.float64) == y)),
        f"Labels must be integers from 0 to {number - 1}, but a batch has others.",
    )
    return tf.clip_by_value(integers, 0, number - 1)


def target_rows(y_true: Any, y_pred: Any, sample_weight: Any) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Targets `(n, outputs)`, their samples `(samples, n, outputs)` and the weights of the rows `(n,)`, all float64.

    Raises:
        ValueError: If predictions have no sample axis, or targets do not match them.
    """
    samples = tf.cast(floating(y_pred), tf.float64)
    if samples.shape.rank != 3:
        raise ValueError(
            "Predictions must be draws of the target, of shape (samples, n, outputs), but got "
            f"{shape_of(samples)}. A compiled model gives "
            "its metrics one draw only: update this metric with draws of the predictive distribution instead."
        )
    y = tf.cast(tf.convert_to_tensor(y_true), tf.float64)
    if y.shape.rank == 1:
        y = y[:, tf.newaxis]
    if y.shape.rank != 2 or y.shape[-1] != samples.shape[-1]:
        raise ValueError(
            f"Targets of shape {shape_of(y)} do not fit predictions of shape {shape_of(samples)}: expected (n, "
            f"{samples.shape[-1]})."
        )
    check_rows(y, samples.shape[1])
    weights = row_weights(y_pred, sample_weight, tf.shape(samples)[1])
    counted = (weights > 0)[:, tf.newaxis]
    return tf.where(counted, y, 0.0), tf.where(counted, samples, 0.0), weights


def row_weights(y_pred: Any, sample_weight: Any, number: tf.Tensor) -> tf.Tensor:
    """The weight of each row, `(n,)`, float64: `sample_weight` of shape `(n,)` or `(n, 1)`, times the Keras mask."""
    weights = tf.ones([number], tf.float64)
    for factor in (sample_weight, mask_of(y_pred)):
        if factor is not None:
            weights *= tf.reshape(tf.cast(tf.convert_to_tensor(factor), tf.float64), [number])
    return weights


def floating(values: Any) -> tf.Tensor:
    """Converts values to a float32 tensor, or keeps float64."""
    tensor = tf.convert_to_tensor(values)
    return tensor if tensor.dtype in (tf.float32, tf.float64) else tf.cast(tensor, tf.float32)


def shape_of(tensor: tf.Tensor) -> str:
    """The static shape of a tensor, for messages."""
    return str(tuple(tensor.shape)) if tensor.shape.rank is not None else "an unknown shape"


def check_rows(targets: tf.Tensor, number: int | None) -> None:
    """Raises a ValueError if there are more or fewer targets than predictions; an unknown number passes."""
    if targets.shape[0] is not None and number is not None and targets.shape[0] != number:
        raise ValueError(f"There are {targets.shape[0]} targets for {number} predictions. Expected one for each.")


def state_dtype(dtype: Any) -> str:
    """The dtype of the state of a metric: float32 unless `"float64"` is given, for any precision of the model."""
    policy = keras.dtype_policies.get(dtype or keras.config.floatx())
    return "float64" if policy.compute_dtype == "float64" else "float32"

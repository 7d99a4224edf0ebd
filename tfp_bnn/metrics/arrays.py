"""Array operations that work on NumPy arrays and on tensors, used to write the cores of the metrics.

A core is one formula for both: a function calls it with all rows as NumPy arrays, a Keras metric with the tensors of a
batch, eagerly or in a compiled step. `keras.ops` uses NumPy's names, so `namespace(x)` returns one or the other.
Operations missing from either are defined here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import scipy.special
import tensorflow as tf

# A NumPy array or a tensor. Both backends type their results as `Any`.
Array = Any


def namespace(array: Array) -> Any:
    """`numpy` for a NumPy array or scalar, `keras.ops` for a tensor."""
    return np if _is_numpy(array) else keras.ops


def float64(array: Array) -> Array:
    """The array in float64."""
    return np.asarray(array, np.float64) if _is_numpy(array) else keras.ops.cast(array, "float64")


def ratio(numerator: Array, denominator: Array) -> Array:
    """Returns `numerator / denominator`, and 0 where the denominator is 0."""
    xp = namespace(denominator)
    empty = denominator == 0
    return xp.where(
        empty, xp.zeros_like(numerator), numerator / xp.where(empty, xp.ones_like(denominator), denominator)
    )


def segment_sum(values: Array, segments: Array, num_segments: int) -> Array:
    """Sums the values of each segment.

    Args:
        values: Float64 values of any shape.
        segments: Integers of the same shape, from 0 to `num_segments - 1`.
        num_segments: Number of segments.

    Returns:
        Float64 sums of shape `(num_segments,)`, 0 for a segment without values.
    """
    if _is_numpy(values):
        return np.bincount(segments.ravel(), weights=values.ravel(), minlength=num_segments)
    flat, ids = (keras.ops.reshape(array, (-1,)) for array in (values, segments))
    return keras.ops.segment_sum(flat, ids, num_segments)


def mean_over_samples(value: Callable[[Array], Array], samples: Array) -> Array:
    """Averages a function of each Monte Carlo sample over the samples, in float64.

    Args:
        value: Function of float64 samples `(..., n, classes)` that returns values of shape `(..., n)` or another shape.
        samples: Samples of shape `(samples, n, classes)` in any floating-point dtype.

    Returns:
        Means with the shape of the values without the sample axis, float64.
    """
    if not _is_numpy(samples):
        return keras.ops.mean(value(float64(samples)), axis=0)
    # One sample at a time: a float64 copy of all samples may not fit into memory.
    return sum(value(float64(sample)) for sample in samples) / len(samples)


def digamma(array: Array) -> Array:
    """The derivative of log(gamma). 1 / (m + 1) + ... + 1 / n is its value at n + 1 minus its value at m + 1."""
    return scipy.special.digamma(array) if _is_numpy(array) else tf.math.digamma(array)


def _is_numpy(array: Array) -> bool:
    return isinstance(array, np.ndarray | np.generic | float | int)

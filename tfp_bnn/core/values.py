"""Values of variables."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf


def values_of(variable: keras.Variable) -> np.ndarray:
    """Returns the values of a variable to read at once: they may be its own memory, since NumPy's way copies them."""
    value = variable.value
    if not isinstance(value, tf.Variable) or isinstance(value, tf.distribute.DistributedValues):
        return np.asarray(tf.convert_to_tensor(variable))
    # A quarter of the time of the line above, which matters for many small variables.
    return np.asarray(tf.raw_ops.ReadVariableOp(resource=value.handle, dtype=value.dtype))

"""Values of variables."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf


def values_of(variable: keras.Variable) -> np.ndarray:
    """Returns the values of a variable to read at once: they may be its own memory, since NumPy's way copies them."""
    return np.asarray(tf.convert_to_tensor(variable))

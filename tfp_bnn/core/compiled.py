"""Compilation of functions that are made for one object each, such as the forward pass of a model."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf


def compiled(function: Callable[..., Any]) -> Any:
    """Returns the function as a graph that is traced again for new shapes and dtypes.

    TensorFlow warns of functions that are traced often. It counts by their code, and so together for all models that
    share it: five models are enough for a warning. A partial function has no code and is counted on its own.

    Args:
        function: Function of tensors.
    """
    return tf.function(functools.partial(function), reduce_retracing=True, autograph=False)

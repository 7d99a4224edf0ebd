"""The update of Adam by one operation of TensorFlow, instead of a dozen passes over the weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from tfp_bnn.core.layer_tree import adam_moments


@contextlib.contextmanager
def fused_adam(optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """Context in which the update of `keras.optimizers.Adam` is one operation for each variable.

    The formula is the same, up to the rounding of 1 - beta, and so are its variables and what Keras does before and
    after it, such as clipping. An optimizer with another update is left as it is, and so are AMSGrad and sparse
    gradients.

    Args:
        optimizer: Built optimizer, or one that scales the loss for it. In the context its gradients are applied once.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    in_passes = optimizer.update_step
    if getattr(in_passes, "__func__", None) is not keras.optimizers.Adam.update_step or optimizer.amsgrad:
        yield
        return
    step = tf.cast(tf.convert_to_tensor(optimizer.iterations) + 1, tf.float32)
    beta1, beta2, epsilon = (
        tf.constant(number, tf.float32) for number in (optimizer.beta_1, optimizer.beta_2, optimizer.epsilon)
    )
    # What all variables share is made once.
    shared = {"beta1": beta1, "beta2": beta2, "beta1_power": beta1**step, "beta2_power": beta2**step}

    def update_step(gradient: Any, variable: tf.Variable, learning_rate: Any) -> None:
        if isinstance(gradient, tf.IndexedSlices):
            in_passes(gradient, variable, learning_rate)
            return
        momentum, velocity = adam_moments(optimizer, variable)
        numbers = {**shared, "epsilon": epsilon, "lr": learning_rate, "grad": gradient}
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=momentum.value.handle,
            v=velocity.value.handle,
            **{name: tf.cast(number, variable.dtype) for name, number in numbers.items()},
        )

    # Not as an attribute, which Keras would track.
    vars(optimizer)["update_step"] = update_step
    try:
        yield
    finally:
        del vars(optimizer)["update_step"]

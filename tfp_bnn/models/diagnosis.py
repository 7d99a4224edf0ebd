"""Finds where in a network values stopped being finite."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfp_bnn.core.layer_tree import calls_in_order
from tfp_bnn.core.noise import Noise, noise_scope
from tfp_bnn.core.values import values_of
from tfp_bnn.models.finite_weights import non_finite_weights
from tfp_bnn.models.variational_mixin import VariationalMixin

_SEED = (0, 0)


def non_finite_layer(model: VariationalMixin, x: Any) -> str | None:
    """The first layer with NaN or infinite values, and which of its values they are.

    Checks the weights first, then the KL of each Bayesian layer, then the outputs of each layer for `x` under one draw
    of the weights. The model does not change, including all counters and seeds of its noise: training that continues
    afterwards is bit-for-bit the same as without the check.

    Args:
        model: A built model.
        x: Inputs of shape `(n, ...)`.

    Returns:
        A phrase such as `"the weights of the layer 'conv1'"`, or None if everything is finite.
    """
    found = non_finite_weights(model)
    if found:
        return found
    with _undisturbed(model):
        for name, kl in model.kl_by_layer().items():
            if not _finite(kl):
                return f"the KL of the layer {name!r}"
        return _non_finite_outputs(model, x)


def has_finite_weights(model: VariationalMixin) -> bool:
    """Whether every trainable weight is finite."""
    return all(_finite(values_of(variable)) for variable in model.trainable_variables)  # type: ignore[attr-defined]


@contextlib.contextmanager
def _undisturbed(model: Any) -> Iterator[None]:
    """Draws from a fixed seed instead of from the counters of the model and its layers, and restores all other state.

    Other layers may change their state too: Keras' seed generators count up with each draw.
    """
    state = [(variable, np.asarray(variable).copy()) for variable in model.non_trainable_variables]
    try:
        with noise_scope(model._noise_of_layers(Noise(tf.constant(_SEED, tf.int64)))):
            yield
    finally:
        for variable, value in state:
            variable.assign(value)


def _non_finite_outputs(model: Any, x: Any) -> str | None:
    network = getattr(model, "network", None)
    if not isinstance(network, keras.Model) or not network.built:
        return None
    calls = calls_in_order(network)
    names = [name for name, outputs in calls for _ in outputs]
    inputs = network.inputs if len(network.inputs) > 1 else network.inputs[0]
    inner = keras.Model(inputs, [tensor for _, outputs in calls for tensor in outputs])
    for name, outputs in zip(names, keras.tree.flatten(inner(x, training=False)), strict=True):
        if not _finite(outputs):
            return f"the outputs of the layer {name!r}"
    return None


def _finite(value: Any) -> bool:
    return bool(np.isfinite(np.asarray(value)).all())

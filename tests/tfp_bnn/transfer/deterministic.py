"""Deterministic models with random weights, to be converted."""

from __future__ import annotations

import keras
import numpy as np

from tfp_bnn.core.noise import NoNoise

L = keras.layers


def images(*shape, rows=3):
    return np.random.default_rng(0).normal(size=(rows, *shape)).astype(np.float32)


def randomized(model):
    """Sets all weights to random values, so no moving mean and no bias is 0."""
    rng = np.random.default_rng(1)
    for variable in model.weights:
        value = rng.normal(size=variable.shape) / np.sqrt(max(1, np.prod(variable.shape[:-1])))
        variable.assign(np.abs(value) + 0.5 if "variance" in variable.name else value)
    return model


def stack(*layers):
    return randomized(keras.Sequential(layers, name="net"))


def plug_in(model, x):
    """What the likelihood makes of the outputs with all weights at their posterior means."""
    return np.asarray(model.likelihood.mean(model.call_with_noise(x, NoNoise())))


def mlp():
    head = L.Dense(3, activation="softmax", name="head")
    return stack(keras.Input((4,)), L.Dense(5, activation="tanh", name="hidden"), L.BatchNormalization(), head)


def nested_models():
    x = keras.Input((4,))
    inner = keras.Sequential([L.Dense(4, activation="tanh", name="dense"), L.BatchNormalization()], name="inner")
    a = keras.Input((4,))
    middle = keras.Model(a, inner(a) + L.Dense(4, name="dense_of_middle")(a), name="middle")
    h = middle(inner(x))
    return randomized(keras.Model(x, L.Dense(2, activation="softmax", name="dense")(middle(h)), name="net"))

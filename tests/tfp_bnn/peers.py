"""Small stacks of Bayesian layers, and the KL in closed form."""

from __future__ import annotations

import keras
import numpy as np

import tfp_bnn

N = 24
X = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 0)
# One weight of this is N(0, 1).
STANDARD = {
    "kernel_initializer": "zeros",
    "kernel_posterior": {"name": "mean_field_normal", "initial_scale": 1.0},
    "use_bias": False,
}


def stack(*layers, learning_rate=0.0, eagerly=True, **kwargs):
    """A compiled model of 4 inputs, which a learning rate of 0 leaves as it is."""
    model = tfp_bnn.VariationalSequential([keras.Input((4,)), *layers], seed=0, **kwargs)
    metrics = ["accuracy"] if model.likelihood.task == "classification" else []
    model.compile(keras.optimizers.SGD(learning_rate), metrics=metrics, run_eagerly=eagerly)
    return model


def train(model, batch_size=N):
    """The logs of an epoch."""
    history = model.fit(X, Y, batch_size=batch_size, verbose=0).history
    return {name: value for name, (value,) in history.items()}


def closed_form_kl(layer, prior_loc=0.0, prior_scale=1.0):
    """KL(N(loc, scale) || N(prior_loc, prior_scale)) of the weights of a layer, in nats, summed, in float64."""
    total = 0.0
    for weight in layer.variational_weights.values():
        loc, scale = (weight.parameters()[key].astype(np.float64) for key in ("loc", "scale"))
        squares = (scale**2 + (loc - prior_loc) ** 2) / np.float64(prior_scale) ** 2
        total += np.sum(np.log(prior_scale / scale) + squares / 2 - 0.5)
    return total

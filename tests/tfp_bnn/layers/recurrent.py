"""A Bayesian LSTM with random parameters, its noise, and its cell in NumPy."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfp_bnn.core.noise import Noise, noise_scope
from tfp_bnn.layers import LSTMFlipout

UNITS, STEPS, FEATURES = 3, 5, 2
BAYESIAN_BIAS = {"bias_posterior": "mean_field_normal"}
# All that can be trained: three posteriors, and a learned scale of each prior.
EVERYTHING = {
    **BAYESIAN_BIAS,
    **{f"{weight}_prior": {"name": "normal", "empirical_bayes": True} for weight in ("kernel", "recurrent", "bias")},
}


def inputs_of(batch=4, steps=STEPS):
    return np.random.default_rng(1).normal(size=(batch, steps, FEATURES)).astype(np.float32)


def make(scale=(0.2, 0.8), batch=None, **kwargs):
    """A built layer whose parameters all differ."""
    layer = LSTMFlipout(UNITS, **kwargs)
    layer.build((batch, STEPS if layer.unroll else None, FEATURES))
    rng = np.random.default_rng(0)
    for weight in layer.variational_weights.values():
        parameters = {"loc": rng.normal(size=weight.shape), "scale": rng.uniform(*scale, weight.shape)}
        weight.assign_parameters({**weight.parameters(), **parameters})
    if layer.bias is not None and "bias" not in layer.variational_weights:
        layer.bias.assign(rng.normal(size=layer.bias.shape))
    return layer


def noise_of(seed=0):
    return Noise(tf.constant([seed, 0], tf.int32))


def under(noise, layer, *args, training=False, **kwargs):
    with noise_scope({id(layer): noise}):
        return layer(*args, training=training, **kwargs)

"""Networks whose loss is known, and the check of its scale."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_bnn
from tfp_bnn.layers import DenseFlipout, DenseReparameterization

# Not a multiple of 48: the last batch is partial.
N = 100
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 0)
REL = 2e-5
# Keras says so at the end of the first epoch of any data whose length it cannot know.
RAN_OUT = "ignore:Your input ran out of data"


def network(compiled=True, learning_rate=0.01, **kwargs):
    x = keras.Input((4,))
    outputs = DenseFlipout(3, bias_posterior="mean_field_normal")(x)
    model = tfp_bnn.VariationalModel(x, outputs, **kwargs)
    model.compile(keras.optimizers.Adam(learning_rate), run_eagerly=not compiled)
    return model


def frozen_network(compiled=True, **kwargs):
    """A network whose weights are known to six digits and stay what they are: losses can be computed by hand."""
    posterior = {"name": "mean_field_normal", "initial_scale": 1e-6}
    layers = [keras.Input((4,)), DenseReparameterization(3, kernel_posterior=posterior)]
    model = tfp_bnn.VariationalSequential(layers, seed=0, **kwargs)
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=not compiled)
    return model


def pipeline(number=N, batch_size=48, **kwargs):
    return tf.data.Dataset.from_tensor_slices((X[:number], Y[:number])).batch(batch_size, **kwargs)


def generator_pipeline(batch_size=48):
    signature = (tf.TensorSpec((4,), tf.float32), tf.TensorSpec((), tf.int64))
    rows = tf.data.Dataset.from_generator(lambda: zip(X, Y, strict=True), output_signature=signature)
    return rows.batch(batch_size)


def check_scaling(logs, beta, number, prefix=""):
    """`loss - nll == beta * kl / N`; the KL is weighty enough that another scale would show."""
    loss, nll, kl, elbo, logged_beta = (float(logs[prefix + key]) for key in ("loss", "nll", "kl", "elbo", "beta"))
    assert kl / number > 0.02
    assert loss - nll == pytest.approx(beta * kl / number, rel=1e-4)
    assert elbo == pytest.approx(-(nll + kl / number), rel=REL)
    assert logged_beta == pytest.approx(beta, rel=1e-6)


def last(history, prefix=""):
    return {key: values[-1] for key, values in history.history.items()}

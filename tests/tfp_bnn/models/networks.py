"""The small models of these tests, one of each class, and their data."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

import tfp_bnn
from tfp_bnn.layers import DenseFlipout, DenseReparameterization

N = 96
X = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 0)


@keras.saving.register_keras_serializable(package="test_models")
class Net(tfp_bnn.VariationalMixin, keras.Model):
    """A subclass, whose inputs and outputs are known once it is called."""

    def __init__(self, units=3, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.hidden = DenseFlipout(8, activation="relu")
        self.top = DenseReparameterization(units)

    def call(self, inputs, training=None):
        return self.top(self.hidden(inputs, training=training), training=training)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def functional(units=3, **kwargs):
    x = keras.Input((4,))
    h = DenseFlipout(8, activation="relu")(x)
    return tfp_bnn.VariationalModel(x, DenseReparameterization(units)(h), **kwargs)


def sequential(units=3, **kwargs):
    layers = [DenseFlipout(8, activation="relu"), DenseReparameterization(units)]
    return tfp_bnn.VariationalSequential([keras.Input((4,)), *layers], **kwargs)


def sequential_without_input(units=3, **kwargs):
    layers = [DenseFlipout(8, activation="relu"), DenseReparameterization(units)]
    return tfp_bnn.VariationalSequential(layers, **kwargs)


KINDS = [functional, sequential, sequential_without_input, Net]


def one_layer(layer, **kwargs):
    return tfp_bnn.VariationalSequential([keras.Input((4,)), layer], **kwargs)


def pipeline(x, y, batch_size=32):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size)

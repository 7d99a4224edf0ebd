"""What Keras does by default where TensorFlow sees a GPU: it compiles the step with XLA."""

from __future__ import annotations

from unittest import mock

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

import tfp_bnn
from tfp_bnn.core.noise import Noise
from tfp_bnn.layers import DenseFlipout

X = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)


class Gpu:
    device_type = "GPU"


@pytest.mark.slow
def test_the_example_of_the_readme_trains_where_a_gpu_is_seen():
    real = tf.config.list_physical_devices
    inputs = keras.Input((4,))
    model = tfp_bnn.VariationalModel(inputs, DenseFlipout(2)(inputs))
    with mock.patch.object(
        tf.config, "list_physical_devices", lambda kind=None: [*real(kind), *([Gpu()] if kind in (None, "GPU") else [])]
    ):
        model.compile("adam", metrics=["accuracy"])
    assert model.jit_compile
    history = model.fit(X, Y, verbose=0, validation_data=(X, Y)).history
    assert np.isfinite([history["loss"], history["val_loss"]]).all()


@pytest.mark.slow
def test_training_under_xla_is_reproducible():
    histories = []
    for _ in range(2):
        keras.utils.set_random_seed(0)
        model = tfp_bnn.VariationalSequential([keras.Input((4,)), DenseFlipout(1)], likelihood="normal", seed=0)
        model.compile("sgd", jit_compile=True)
        histories.append(model.fit(X, X[:, 0], batch_size=32, epochs=2, verbose=0).history["nll"])
    assert histories[0] == histories[1]


@pytest.mark.statistical
def test_noise_under_xla_is_standard_normal_and_only_its_bits_differ():
    """100,000 draws, Kolmogorov-Smirnov; false-failure rate 1e-6. Integers are the same with XLA and without."""
    noise = Noise(tf.constant([7, 3], tf.int64))
    draw = tf.function(lambda: (noise.normal("a", (100_000,)), noise.signs("a", (1000,))), jit_compile=True, autograph=False)
    normal, signs = draw()
    again, _ = draw()
    np.testing.assert_array_equal(normal, again)
    assert scipy.stats.kstest(normal.numpy(), "norm").pvalue > 1e-6
    np.testing.assert_array_equal(signs, noise.signs("a", (1000,)))

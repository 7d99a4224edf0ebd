"""The contestant that all others are compared with: `tfp.layers` with flipout, under `tf_keras`, with its KL."""

from __future__ import annotations

import os
from collections.abc import Callable

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras
from clocks import Clocks, fit_one_epoch
from networks import BATCH, NUM_CLASSES, NUM_EXAMPLES, Network


class OfTFP:
    """A stack of `tfp.layers`, trained by `fit`. A prediction is a compiled forward pass for each draw."""

    def __init__(self, network: Network) -> None:
        tf_keras.utils.set_random_seed(0)
        rng = np.random.default_rng(0)
        self.x = rng.random((max(network.steps * BATCH, network.rows), *network.shape), dtype=np.float32)
        self.y = rng.integers(NUM_CLASSES, size=len(self.x))

        def divergence(q: tfp.distributions.Distribution, p: tfp.distributions.Distribution, _: object) -> tf.Tensor:
            return tfp.distributions.kl_divergence(q, p) / NUM_EXAMPLES

        layers = [tf_keras.Input(network.shape)]
        for each in network.convolutions:
            layers += [
                tfp.layers.Convolution2DFlipout(
                    each.filters,
                    each.kernel_size,
                    padding=each.padding,
                    activation=network.activation,
                    kernel_divergence_fn=divergence,
                ),
                tf_keras.layers.MaxPooling2D(),
            ]
        layers += [tf_keras.layers.Flatten()]
        for units in network.units:
            layers += [tfp.layers.DenseFlipout(units, activation=network.activation, kernel_divergence_fn=divergence)]
        self.model = tf_keras.Sequential(
            [*layers, tfp.layers.DenseFlipout(NUM_CLASSES, kernel_divergence_fn=divergence)]
        )
        loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.model.compile(tf_keras.optimizers.Adam(1e-4), loss)

    def fit(self, steps: int) -> Clocks:
        """Trains for a number of steps, and returns the clocks after the last one."""
        rows = steps * BATCH
        return fit_one_epoch(self.model, tf_keras.callbacks.LambdaCallback, self.x[:rows], self.y[:rows], BATCH)

    def predict(self, rows: int, samples: int) -> None:
        """Class probabilities of the first rows, a mean over draws."""
        np.mean([tf.nn.softmax(self.model.predict_on_batch(self.x[:rows])) for _ in range(samples)], axis=0)


CONTESTANTS: dict[str, Callable[[Network], OfTFP]] = {"tfp.layers, flipout": OfTFP}

"""How often TensorFlow traces the steps of a model."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_bnn
from tfp_bnn.layers import DenseFlipout

X = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
Y = np.arange(12) % 4


class Counted(tfp_bnn.VariationalSequential):
    """Counts the traces of its training step."""

    num_traces = 0

    def train_step(self, data):
        self.num_traces += 1
        return super().train_step(data)


@pytest.mark.parametrize(
    "data",
    [
        (X, Y),
        (X, Y[:, None]),
        (tf.data.Dataset.from_tensor_slices((X, Y, np.ones(12))).batch(4),),
    ],
    ids=["arrays", "targets of rank 2", "pipeline with weights"],
)
def test_fit_traces_its_step_once_and_leaves_the_metrics_right(data):
    model = Counted([keras.Input((3,)), DenseFlipout(4)], seed=0)
    model.compile("adam", metrics=["accuracy"], weighted_metrics=["accuracy"])
    history = model.fit(*data, batch_size=None if len(data) == 1 else 4, epochs=2, verbose=0).history
    assert model.num_traces == 1
    assert history["accuracy"] == pytest.approx(np.round(np.multiply(history["accuracy"], 12)) / 12)
    assert history["weighted_accuracy"] == history["accuracy"]
    assert model.rows_seen == 12
    assert int(model.optimizer.iterations) == 6

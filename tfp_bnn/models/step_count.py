"""The number of training steps of a model, however many optimizers took them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf


class StepCount:
    """Counts the training steps of a model, as the iterations of its optimizer and the steps before these.

    A new optimizer counts from 0. The schedule of beta would then start again, although the posterior is trained.

    The variable is not a weight of the model, because files and training states from before it existed stay valid.
    """

    key = "training_steps"

    def __init__(self) -> None:
        self.before = keras.Variable(
            "zeros",
            shape=(),
            dtype="int64",
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
            name="steps_before",
        )
        # The total that a file gave. What is before the optimizer only follows once its iterations are loaded too.
        self._loaded: int | None = None

    def __call__(self, optimizer: Any) -> tf.Tensor:
        """The number of steps before the next one, as a tensor."""
        iterations = tf.convert_to_tensor(optimizer.iterations)
        return iterations + tf.cast(tf.convert_to_tensor(self.before), iterations.dtype)

    def total(self, optimizer: Any) -> int:
        """The number of steps, on the host; `optimizer` is None for a model that is not compiled."""
        return int(np.asarray(self.before)) + _iterations(optimizer) if self._loaded is None else self._loaded

    def set_total(self, total: int, optimizer: Any) -> None:
        """Sets the number of steps that the iterations of an optimizer, or None, add up to."""
        self._loaded = None
        self.before.assign(total - _iterations(optimizer))

    def replace(self, old: Any, new: Any) -> None:
        """Keeps the number of steps when one optimizer, or None, is replaced by another."""
        # Without a step there is nothing to keep: iterations of the first optimizer count as they are.
        if old is not None or self._loaded is not None:
            self.set_total(self.total(old), new)

    def settle(self, optimizer: Any) -> None:
        """Takes up the total that a file gave, once the optimizer has its iterations."""
        if self._loaded is not None:
            self.set_total(self._loaded, optimizer)

    def save(self, store: Any, optimizer: Any) -> None:
        """Saves the number of steps to a Keras weights store."""
        store[self.key] = np.asarray([np.asarray(self.before), self.total(optimizer)])

    def load(self, store: Any) -> None:
        """Loads what `save` wrote. An older file has nothing of it: the steps are the iterations of the optimizer."""
        before, total = np.asarray(store[self.key]) if self.key in store.keys() else (0, None)
        self.before.assign(before)
        self._loaded = None if total is None else int(total)


def _iterations(optimizer: Any) -> int:
    return 0 if optimizer is None else int(np.asarray(optimizer.iterations))

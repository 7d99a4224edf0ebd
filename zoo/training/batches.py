"""Batches of a run. Each is a function of (epoch, step), so a run can be resumed at any step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from zoo.datasets import Split
from zoo.recipes import AugmentationRecipe
from zoo.training.augmentation import augment, augmentation_draws

Batch = tuple[npt.NDArray[Any], npt.NDArray[Any]]


class Batches(ABC):
    """The batches of a run, epoch by epoch.

    Attributes:
        split: Training rows.
        epochs: Number of epochs.
    """

    split: Split
    epochs: int

    @abstractmethod
    def steps(self, epoch: int) -> int:
        """Returns the number of batches in an epoch, at least 1. Epochs count from 0."""

    @abstractmethod
    def batch(self, epoch: int, step: int) -> Batch:
        """Returns the inputs and targets of a step. Epoch and step count from 0."""

    def steps_before(self, epoch: int) -> int:
        """Returns the number of batches in all epochs before this one."""
        return sum(self.steps(earlier) for earlier in range(epoch))


class ShuffledBatches(Batches):
    """Passes over a split, each in a different order, with augmented images.

    The order depends on (seed, epoch). The augmentation of a row depends on (seed, epoch, row).

    Args:
        split: Training rows, with x of shape `(n, ...)`.
        batch_size: Rows per batch. The last batch of an epoch has the remaining rows.
        epochs: Number of passes.
        seed: An integer >= 0.
        augmentation: Augmentation of the images, or None.
    """

    def __init__(
        self, split: Split, batch_size: int, epochs: int, seed: int, augmentation: AugmentationRecipe | None = None
    ) -> None:
        self.split, self.epochs = split, epochs
        self._batch_size, self._seed, self._augmentation = batch_size, seed, augmentation
        # One tuple, replaced as a whole: Keras requests batches from another thread.
        self._drawn: tuple[int, npt.NDArray[np.int64], npt.NDArray[np.float32] | None] | None = None

    def steps(self, epoch: int) -> int:
        """Returns n / batch_size, rounded up: the same in all epochs."""
        return -(-len(self.split) // self._batch_size)

    def steps_before(self, epoch: int) -> int:
        """Returns the number of batches in all epochs before this one."""
        return epoch * self.steps(0)

    def batch(self, epoch: int, step: int) -> Batch:
        """Returns the inputs, augmented in their own dtype, and targets of a step."""
        order, draws = self._draw(epoch)
        rows = order[step * self._batch_size : (step + 1) * self._batch_size]
        x = self.split.x[rows]
        if self._augmentation is not None and draws is not None:
            x = augment(x, draws[rows], self._augmentation)
        return x, self.split.y[rows]

    def _draw(self, epoch: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32] | None]:
        drawn = self._drawn
        if drawn is None or drawn[0] != epoch:
            draws = None
            if self._augmentation is not None:
                draws = augmentation_draws(self._seed, epoch, len(self.split))
            drawn = epoch, np.random.default_rng((self._seed, epoch)).permutation(len(self.split)), draws
            self._drawn = drawn
        return drawn[1:]


class ListedBatches(Batches):
    """A fixed number of steps over listed rows, divided into parts of nearly equal length that count as epochs.

    Args:
        split: Training rows, with x of shape `(n, ...)`.
        rows: Integer indices of the rows of each step, of shape `(steps, batch)`.
        parts: Maximum number of epochs.
    """

    def __init__(self, split: Split, rows: npt.NDArray[np.int64], parts: int = 10) -> None:
        self.split = split
        self._rows = rows
        self._length = -(-len(rows) // parts)
        self.epochs = -(-len(rows) // self._length)

    def steps(self, epoch: int) -> int:
        """Returns the same number for all epochs except the last, which has the remaining steps."""
        return min(self._length, len(self._rows) - epoch * self._length)

    def batch(self, epoch: int, step: int) -> Batch:
        """Returns the inputs and targets of a step."""
        rows = self._rows[epoch * self._length + step]
        return self.split.x[rows], self.split.y[rows]


class EpochsInARow:
    """Epochs with the same number of batches, as a pipeline for `fit`. A single epoch may start at a later step.

    Args:
        batches: All batches of the run.
        first: Index of the first epoch.
        start: First step of each epoch. Must be 0 if there is more than one epoch.

    Attributes:
        epoch: Index of the current epoch. The caller of `fit` sets it when an epoch begins.
    """

    def __init__(self, batches: Batches, first: int, start: int) -> None:
        self._batches, self._start = batches, start
        self.epoch = first

    def pipeline(self) -> tf.data.Dataset:
        """The batches of the current epoch, each time that it is read."""
        like = self._batches.batch(self.epoch, self._start)
        specs = tuple(tf.TensorSpec((None, *values.shape[1:]), values.dtype) for values in like)
        number = self._batches.steps(self.epoch) - self._start
        pipeline = tf.data.Dataset.from_generator(self._rest_of_epoch, output_signature=specs)
        return without_tuning(pipeline.apply(tf.data.experimental.assert_cardinality(number)).prefetch(1))

    def _rest_of_epoch(self) -> Iterator[Batch]:
        epoch = self.epoch
        for step in range(self._start, self._batches.steps(epoch)):
            yield self._batches.batch(epoch, step)


def without_tuning(pipeline: tf.data.Dataset) -> tf.data.Dataset:
    """A pipeline that TensorFlow does not tune. There is nothing to tune in ours.

    It would be tuned by a thread that sleeps longer and longer, and does not always wake up when the epoch is over, so
    that `fit` waits, up to as long as the epoch took.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return pipeline.with_options(options)


def equal_epochs(batches: Batches, epoch: int, step: int) -> Iterator[tuple[int, int, int]]:
    """Divides the rest of a run into calls of `fit`, because Keras counts the batches of an epoch only once per call.

    Args:
        batches: All batches of the run.
        epoch: Number of finished epochs.
        step: Number of finished steps of the current epoch, less than its total.

    Yields:
        The first epoch, its first step, and the epoch to stop before, for each call.
    """
    while epoch < batches.epochs:
        end = epoch + 1
        while not step and end < batches.epochs and batches.steps(end) == batches.steps(epoch):
            end += 1
        yield epoch, step, end
        epoch, step = end, 0

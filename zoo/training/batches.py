"""The batches of a run: each is a function of (epoch, step), so a run can be resumed at any of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import keras
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
        split: The rows that are trained on.
        epochs: The number of epochs.
    """

    split: Split
    epochs: int

    @abstractmethod
    def steps(self, epoch: int) -> int:
        """The number of batches in an epoch, which counts from 0; at least 1."""

    @abstractmethod
    def batch(self, epoch: int, step: int) -> Batch:
        """The inputs and targets of a step; epoch and step count from 0."""

    def steps_before(self, epoch: int) -> int:
        """The number of batches in all epochs before this one."""
        return sum(self.steps(earlier) for earlier in range(epoch))


class ShuffledBatches(Batches):
    """Passes over a split, each in an order of its own, with augmented images.

    The order depends on (seed, epoch), the augmentation of a row on (seed, epoch, row).

    Args:
        split: The rows; x of shape `(n, ...)`.
        batch_size: Rows in a batch; the last batch of an epoch has what is left.
        epochs: The number of passes.
        seed: An integer >= 0.
        augmentation: How images are changed, or None.
    """

    def __init__(
        self, split: Split, batch_size: int, epochs: int, seed: int, augmentation: AugmentationRecipe | None = None
    ) -> None:
        self.split, self.epochs = split, epochs
        self._batch_size, self._seed, self._augmentation = batch_size, seed, augmentation
        # One tuple, replaced as a whole: Keras asks for batches in a thread of its own.
        self._drawn: tuple[int, npt.NDArray[np.int64], tf.Tensor | None] | None = None

    def steps(self, epoch: int) -> int:
        """The same in all epochs: n / batch_size, rounded up."""
        return -(-len(self.split) // self._batch_size)

    def steps_before(self, epoch: int) -> int:
        """The number of batches in all epochs before this one."""
        return epoch * self.steps(0)

    def batch(self, epoch: int, step: int) -> Batch:
        """The inputs, augmented in their own dtype, and targets of a step."""
        order, draws = self._draw(epoch)
        rows = order[step * self._batch_size : (step + 1) * self._batch_size]
        x = self.split.x[rows]
        if self._augmentation is not None:
            x = augment(tf.constant(x), tf.gather(draws, rows), self._augmentation).numpy()
        return x, self.split.y[rows]

    def _draw(self, epoch: int) -> tuple[npt.NDArray[np.int64], tf.Tensor | None]:
        drawn = self._drawn
        if drawn is None or drawn[0] != epoch:
            draws = None
            if self._augmentation is not None:
                draws = augmentation_draws(self._seed, epoch, len(self.split))
            drawn = epoch, np.random.default_rng((self._seed, epoch)).permutation(len(self.split)), draws
            self._drawn = drawn
        return drawn[1:]


class ListedBatches(Batches):
    """A fixed number of steps over listed rows, in parts of (nearly) equal length, which count as epochs.

    Args:
        split: The rows; x of shape `(n, ...)`.
        rows: Which rows are in each step, integers of shape `(steps, batch)`.
        parts: At most how many epochs there are.
    """

    def __init__(self, split: Split, rows: npt.NDArray[np.int64], parts: int = 10) -> None:
        self.split = split
        self._rows = rows
        self._length = -(-len(rows) // parts)
        self.epochs = -(-len(rows) // self._length)

    def steps(self, epoch: int) -> int:
        """The same in all epochs but the last, which has what is left."""
        return min(self._length, len(self._rows) - epoch * self._length)

    def batch(self, epoch: int, step: int) -> Batch:
        """The inputs and targets of a step."""
        rows = self._rows[epoch * self._length + step]
        return self.split.x[rows], self.split.y[rows]


class EpochsInARow(keras.utils.PyDataset):
    """Epochs with equally many batches, as Keras takes them; a single epoch may begin at a later step.

    Args:
        batches: All batches of the run.
        first: The first of the epochs.
        start: The first step of each; 0 where there is more than one.

    Attributes:
        epoch: The epoch that runs. Whoever runs `fit` sets it when an epoch begins.
    """

    def __init__(self, batches: Batches, first: int, start: int) -> None:
        super().__init__()
        self._batches, self._start = batches, start
        self.epoch = first

    @property
    def num_batches(self) -> int:
        """The number of batches in each of the epochs."""
        return self._batches.steps(self.epoch) - self._start

    def __getitem__(self, index: int) -> Batch:
        """The batch of a step, counted from the first that is left."""
        return self._batches.batch(self.epoch, self._start + index)


def equal_epochs(batches: Batches, epoch: int, step: int) -> Iterator[tuple[int, int, int]]:
    """Divides what is left of a run into what `fit` can be given at once: Keras counts the batches of an epoch once.

    Args:
        batches: All batches of the run.
        epoch: The number of finished epochs.
        step: The number of finished steps of the epoch that runs, less than it has.

    Yields:
        The first epoch, its first step, and the epoch to stop before.
    """
    while epoch < batches.epochs:
        end = epoch + 1
        while not step and end < batches.epochs and batches.steps(end) == batches.steps(epoch):
            end += 1
        yield epoch, step, end
        epoch, step = end, 0

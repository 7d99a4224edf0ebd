"""The loop of a training run: every step follows from the recipe and what came before, and any can be resumed."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfp_bnn
from tfp_bnn.core.checks import invalid_arguments_as_value_errors
from tfp_bnn.models.data_checks import check_examples
from tfp_bnn.models.diagnosis import has_finite_weights, non_finite_layer
from tfp_bnn.models.fit_callbacks import tell_direction
from tfp_bnn.models.training_state import restore_training_state, training_state
from zoo.datasets import Dataset
from zoo.recipes import Recipe
from zoo.training.augmentation import augment, augmentation_draws
from zoo.training.callback_state import callback_states, restore_callbacks, without_callbacks
from zoo.training.checkpoints import Checkpoints, Progress
from zoo.training.log import write_log

_VALIDATION_BATCH = 1000


class TrainingInterrupted(KeyboardInterrupt):
    """A signal ended the run after a whole step; the checkpoint of that step is written.

    Attributes:
        signum: of the signal, `SIGINT` or `SIGTERM`.
    """

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.signum = signum


class NonFiniteError(ArithmeticError):
    """A number of a training step is NaN or infinite. Names batch, layer and term."""


def run(
    model: tfp_bnn.VariationalModel,
    recipe: Recipe,
    data: Dataset,
    *,
    checkpoints: Checkpoints | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 30.0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    tell: Callable[[str], None] = lambda message: None,
) -> Progress:
    """Trains a model from its first step, or from its newest checkpoint, to the end of the recipe.

    The order of the examples, their augmentation and all noise depend on (seed, epoch, index) or on counters that a
    checkpoint holds, so that a run that was killed and resumed ends with the same bits as one that was not.

    Args:
        model: built and compiled for the recipe, with fresh weights.
        recipe: to follow.
        data: to train on; the model is judged on its validation split after each epoch.
        checkpoints: where they go; None for none, and then for no handling of signals either.
        resume: whether to go on from the newest checkpoint.
        checkpoint_seconds: time between checkpoints within an epoch; there is one at the end of the run in any case,
            and when a signal arrives.
        callbacks: as in `fit`; their state is saved and restored.
        tell: takes messages for the user.

    Returns:
        Where the run ended, with its history.

    Raises:
        TrainingInterrupted: when SIGINT or SIGTERM arrived; the step was finished and a checkpoint written.
        NonFiniteError: when a number is NaN or infinite; nothing was saved since.
        CheckpointError: when there is nothing to resume.
        OSError: when a checkpoint cannot be written.
    """
    return _Run(model, recipe, data, checkpoints, checkpoint_seconds, callbacks, tell).until_the_end(resume)


class _Run:
    def __init__(
        self,
        model: tfp_bnn.VariationalModel,
        recipe: Recipe,
        data: Dataset,
        checkpoints: Checkpoints | None,
        checkpoint_seconds: float,
        callbacks: Sequence[keras.callbacks.Callback],
        tell: Callable[[str], None],
    ) -> None:
        self.model, self.recipe, self.data = model, recipe, data
        self.checkpoints, self.checkpoint_seconds, self.tell = checkpoints, checkpoint_seconds, tell
        self.steps = math.ceil(len(data.train) / recipe.batch_size)
        tell_direction(list(callbacks))
        self.own_callbacks = list(callbacks)
        self.callbacks = keras.callbacks.CallbackList(
            self.own_callbacks, model=model, epochs=recipe.epochs, steps=self.steps, verbose=0
        )
        self.progress = Progress()
        self.saved_at = time.monotonic()

    def until_the_end(self, resume: bool) -> Progress:
        model, recipe = self.model, self.recipe
        for split in (self.data.train, self.data.validation):
            check_examples(split.x, split.y, model.likelihood, model.input_shape, model.output_shape[-1])
        model.num_examples = len(self.data.train)
        model.stop_training = False
        validation = _batches_in_order(self.data.validation.x, self.data.validation.y)
        with _signals_noted(self.checkpoints is not None) as noted:
            self.callbacks.on_train_begin()
            self._start(resume)
            while self.progress.epoch < recipe.epochs and not model.stop_training:
                self._epoch(validation, noted)
            self.callbacks.on_train_end()
        return self.progress

    def _start(self, resume: bool) -> None:
        if self.checkpoints is None:
            return
        if not resume:
            self._save()
            return
        self.progress, arrays, messages = self.checkpoints.load()
        for message in messages:
            self.tell(message)
        restore_training_state(self.model, without_callbacks(arrays))
        self.model.stop_training = restore_callbacks(self.own_callbacks, self.progress.callbacks, arrays)
        self.tell(f"resuming after epoch {self.progress.epoch}, step {self.progress.step}")

    def _epoch(self, validation: tf.data.Dataset, noted: list[int]) -> None:
        progress, recipe, train = self.progress, self.recipe, self.data.train
        self.callbacks.on_epoch_begin(progress.epoch)
        order = np.random.default_rng((recipe.seed, progress.epoch)).permutation(len(train))
        draws = None
        if recipe.augmentation is not None:
            draws = augmentation_draws(recipe.seed, progress.epoch, len(train))
        while progress.step < self.steps:
            rows = order[progress.step * recipe.batch_size : (progress.step + 1) * recipe.batch_size]
            x = train.x[rows]
            if recipe.augmentation is not None:
                x = augment(tf.constant(x), tf.gather(draws, rows), recipe.augmentation).numpy()
            self._step(x, train.y[rows])
            self._save_if_due(noted)
        logs = self._means()
        measured = self.model.evaluate(validation, callbacks=self.callbacks, verbose=0, return_dict=True)
        logs.update({f"val_{name}": float(value) for name, value in measured.items()})
        self._finish_epoch(logs)
        if self.checkpoints is not None:
            write_log(self.checkpoints.folder, progress.history)
        self._save_if_due(noted, over=progress.epoch == recipe.epochs or self.model.stop_training)

    def _step(self, x: Any, y: Any) -> None:
        progress = self.progress
        self.callbacks.on_train_batch_begin(progress.step)
        try:
            with invalid_arguments_as_value_errors():
                logs = self.model.train_on_batch(x, y, return_dict=True)
        except ValueError as error:
            if "NaN or infinite" not in str(error):
                raise
            raise self._non_finite(str(error), x) from error
        # Before any callback could save them.
        if not has_finite_weights(self.model):
            raise self._non_finite("The gradients of a training step were NaN or infinite.", x)
        progress.rows += len(x)
        for name, value in logs.items():
            progress.sums[name] = progress.sums.get(name, 0.0) + float(value) * len(x)
        progress.step += 1
        self.callbacks.on_train_batch_end(progress.step - 1, self._means())

    def _means(self) -> dict[str, float]:
        return {name: total / self.progress.rows for name, total in self.progress.sums.items()}

    def _finish_epoch(self, logs: dict[str, float]) -> None:
        progress = self.progress
        for name, value in logs.items():
            progress.history.setdefault(name, []).append(value)
        if math.isfinite(logs["val_nll"]) and (progress.best is None or logs["val_nll"] < progress.best["val_nll"]):
            progress.best = {"epoch": progress.epoch, "val_nll": logs["val_nll"]}
        self.callbacks.on_epoch_end(progress.epoch, logs)
        progress.epoch += 1
        progress.step, progress.rows, progress.sums = 0, 0, {}

    def _save(self) -> None:
        if self.checkpoints is None:
            return
        if not has_finite_weights(self.model):
            raise self._non_finite("A callback made weights NaN or infinite.", self.data.train.x[:1])
        arrays = training_state(self.model)
        self.progress.callbacks = callback_states(self.own_callbacks, self.model.stop_training, arrays)
        self.checkpoints.save(self.progress.epoch * self.steps + self.progress.step, self.progress, arrays)
        self.saved_at = time.monotonic()

    def _save_if_due(self, noted: list[int], over: bool = False) -> None:
        # Read once: a signal that arrives after this line ends the next step, not this one without a checkpoint.
        signum = noted[0] if noted else None
        if signum is not None or over or time.monotonic() - self.saved_at >= self.checkpoint_seconds:
            self._save()
        if signum is not None:
            raise TrainingInterrupted(
                signum,
                f"interrupted after epoch {self.progress.epoch}, step {self.progress.step} of {self.steps}; a "
                "checkpoint is written",
            )

    def _non_finite(self, reason: str, x: Any) -> NonFiniteError:
        where = non_finite_layer(self.model, x)
        found = f" NaN or infinite are {where}." if where else ""
        return NonFiniteError(
            f"Stopped in epoch {self.progress.epoch + 1}, batch {self.progress.step + 1} of {self.steps}: "
            f"{reason}{found} Nothing was saved since the last checkpoint."
        )


@contextlib.contextmanager
def _signals_noted(active: bool) -> Iterator[list[int]]:
    """Yields a list to which SIGINT and SIGTERM are added instead of ending the process; a second one ends it."""
    noted: list[int] = []
    if not active or threading.current_thread() is not threading.main_thread():
        yield noted
        return

    def note(signum: int, frame: FrameType | None) -> None:
        noted.append(signum)
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, note)
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _batches_in_order(x: Any, y: Any) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(_VALIDATION_BATCH)

"""Runs a training with Keras' own `fit`. It can be killed after any step and resumed without changing its result.

Keras runs the steps, the validation and the callbacks. A run adds one `CallbackList`, which `fit` uses as it is. It
wraps the callbacks: it checks for numbers that are not finite, writes checkpoints, and restores everything when a run
is resumed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
import tensorflow as tf

import tfp_bnn
from tfp_bnn.core.layer_tree import replicas_share_any_batch
from tfp_bnn.models.data_checks import check_examples
from tfp_bnn.models.diagnosis import has_finite_weights, non_finite_layer
from tfp_bnn.models.fit_callbacks import tell_direction
from tfp_bnn.models.training_state import (
    metrics_state,
    restore_metrics_state,
    restore_training_state,
    training_state,
)
from zoo.datasets import Split
from zoo.training.batches import Batches, EpochsInARow, equal_epochs, without_tuning
from zoo.training.callback_state import callback_states, restore_callbacks, without_callbacks
from zoo.training.checkpoints import Checkpoints, Progress
from zoo.training.log import write_log
from zoo.training.signals import TrainingInterrupted, signals_noted

_VALIDATION_BATCH = 1000


class NonFiniteError(ArithmeticError):
    """Raised if a number of a training step is NaN or infinite. The message names batch, layer and term."""


def run(
    model: tfp_bnn.VariationalModel,
    batches: Batches,
    validation: Split | None = None,
    *,
    checkpoints: Checkpoints | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 30.0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    tell: Callable[[str], None] = lambda message: None,
) -> Progress:
    """Trains a model with `fit` from its first step, or from its newest checkpoint, to the last batch.

    Batches are functions of (epoch, step), and all noise comes from counters that checkpoints contain. A run that was
    killed and resumed is therefore bit-for-bit identical to an uninterrupted one.

    Args:
        model: Built and compiled model with its initial weights.
        batches: Training batches.
        validation: Rows on which the model is evaluated after each epoch, or None.
        checkpoints: Destination of checkpoints. If None, none are written, and signals are not handled.
        resume: Whether to continue from the newest checkpoint.
        checkpoint_seconds: Seconds between checkpoints within an epoch. One is always written at the end of the run and
            when a signal arrives. After the last step of an epoch it is written after validation.
        callbacks: Keras callbacks. Their state is saved and restored.
        tell: Function that receives messages for the user.

    Returns:
        The progress at the end of the run, with its history.

    Raises:
        TrainingInterrupted: On SIGINT or SIGTERM, after the current step and its checkpoint.
        NonFiniteError: If a number is NaN or infinite. Nothing is saved after it.
        CheckpointError: If there is nothing to resume.
        OSError: If a checkpoint cannot be written.
    """
    for split in (batches.split, validation):
        if split is not None:
            check_examples(split.x, split.y, model.likelihood, model.input_shape, model.output_shape[1:])
    model.num_examples = len(batches.split)
    model.stop_training = False
    validation_data = None
    if validation is not None:
        rows = tf.data.Dataset.from_tensor_slices((validation.x, validation.y))
        validation_data = without_tuning(rows.batch(_VALIDATION_BATCH))
    with signals_noted(checkpoints is not None) as noted, _replicas_share_batches(model, batches):
        between_steps = _BetweenSteps(model, batches, callbacks, checkpoints, checkpoint_seconds, noted, tell)
        between_steps.begin(resume)
        progress = between_steps.progress
        for first, start, end in equal_epochs(batches, progress.epoch, progress.step):
            # A run that a callback stopped may have been killed before its artifact was written.
            if not model.stop_training:
                between_steps.fit(first, start, end, validation_data)
        between_steps.end()
    return progress


def _replicas_share_batches(model: tfp_bnn.VariationalModel, batches: Batches) -> AbstractContextManager[None]:
    if model.distribute_strategy.num_replicas_in_sync == 1:
        return nullcontext()
    return replicas_share_any_batch(model, [values[:1] for values in batches.batch(0, 0)])


class _BetweenSteps(keras.callbacks.CallbackList):
    """Wraps the callbacks of a run with saving and resuming."""

    # Read by `tfp_bnn.models.fit_callbacks.with_row_check`.
    counts_rows = True

    def __init__(
        self,
        model: tfp_bnn.VariationalModel,
        batches: Batches,
        callbacks: Sequence[keras.callbacks.Callback],
        checkpoints: Checkpoints | None,
        checkpoint_seconds: float,
        noted: list[int],
        tell: Callable[[str], None],
    ) -> None:
        self.progress = Progress()
        self._batches, self._checkpoints, self._noted, self._tell = batches, checkpoints, noted, tell
        self._checkpoint_seconds, self._saved_at = checkpoint_seconds, time.monotonic()
        self._of_user = list(callbacks)
        self._steps_are_seen = any(map(_sees_steps, self._of_user))
        self._metrics: dict[str, Any] = {}
        self._epochs = EpochsInARow(batches, 0, 0)
        self._start, self._in_step = 0, False
        tell_direction(self._of_user)
        # The last, so it sees what the others add. The progress is another object after a resume.
        recorder = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: self.progress.record(logs))
        of_run = {"epochs": batches.epochs, "steps": batches.steps(0), "verbose": 0}
        super().__init__([*self._of_user, recorder], add_history=True, model=model, **of_run)

    # === Around `fit` ===

    def begin(self, resume: bool) -> None:
        """Tells the callbacks that training begins, then writes the first checkpoint or restores the newest."""
        super().on_train_begin()
        if self._checkpoints is None:
            return
        if not resume:
            self._save()
            return
        self.progress, arrays, messages = self._checkpoints.load()
        for message in messages:
            self._tell(message)
        self._metrics = {name: arrays.pop(name) for name in [*arrays] if name.startswith("metric/")}
        restore_training_state(self.model, without_callbacks(arrays))
        self.model.stop_training = restore_callbacks(self._of_user, self.progress.callbacks, arrays)
        self._tell(f"resuming after epoch {self.progress.epoch}, step {self.progress.step}")

    def fit(self, first: int, start: int, end: int, validation_data: tf.data.Dataset | None) -> None:
        """Runs epochs with the same number of batches. The first epoch may start at a later step."""
        self._start, self._epochs = start, EpochsInARow(self._batches, first, start)
        try:
            self.model.fit(
                self._epochs.pipeline(),
                epochs=end,
                initial_epoch=first,
                validation_data=validation_data,
                callbacks=self,
                num_examples=len(self._batches.split),
                # The batches are already shuffled.
                shuffle=False,
                verbose=0,
            )
        except ValueError as error:
            if not self._in_step or "NaN or infinite" not in str(error):
                raise
            raise self._non_finite(str(error)) from error

    def end(self) -> None:
        """Tells the callbacks that training ends."""
        super().on_train_end()

    # === Within `fit` ===

    def on_train_begin(self, logs: Any = None) -> None:
        """Does nothing, because a run may need several calls of `fit`; see `begin`."""

    def on_train_end(self, logs: Any = None) -> None:
        """Does nothing; see `end`."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Selects the batches of this epoch and, in a resumed epoch, restores its running means."""
        self._epochs.epoch = epoch
        if self._metrics:
            restore_metrics_state(self.model, self._metrics, *self._batches.batch(epoch, 0))
            self._metrics = {}
        super().on_epoch_begin(epoch, logs)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Notes that a step begins. In a resumed epoch, Keras counts from the first remaining step."""
        super().on_train_batch_begin(self._start + batch, logs)
        self._in_step = True

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Rejects weights that are not finite before a callback can save them, and saves after all callbacks."""
        # Where nothing looks at them, the next step refuses to go on from such weights.
        seen = self._steps_are_seen or self.progress.step + 1 == self._batches.steps(self.progress.epoch)
        if seen and not has_finite_weights(self.model):
            raise self._non_finite("The gradients of a training step were NaN or infinite.")
        self._in_step = False
        self.progress.step += 1
        super().on_train_batch_end(self._start + batch, logs)
        # After the last step of an epoch, validation runs first, so a resumed epoch always has a step left.
        if self.progress.step < self._batches.steps(self.progress.epoch):
            self._save_if_due()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Calls the callbacks, records the logs of the epoch with what they add to them, and saves."""
        progress = self.progress
        super().on_epoch_end(epoch, logs)
        progress.step = self._start = 0
        if self._checkpoints is not None:
            write_log(self._checkpoints.folder, progress.history)
        self._save_if_due(over=progress.epoch == self._batches.epochs or self.model.stop_training)

    # === Checkpoints ===

    def _save(self) -> None:
        if self._checkpoints is None:
            return
        if not has_finite_weights(self.model):
            raise self._non_finite("A callback made weights NaN or infinite.")
        progress, arrays = self.progress, training_state(self.model)
        if progress.step:
            arrays |= metrics_state(self.model)
        progress.callbacks = callback_states(self._of_user, self.model.stop_training, arrays)
        self._checkpoints.save(self._batches.steps_before(progress.epoch) + progress.step, progress, arrays)
        self._saved_at = time.monotonic()

    def _save_if_due(self, over: bool = False) -> None:
        # Read once: a signal that arrives after this line ends the next step, not this one without a checkpoint.
        signum = self._noted[0] if self._noted else None
        if signum is not None or over or time.monotonic() - self._saved_at >= self._checkpoint_seconds:
            self._save()
        if signum is not None:
            raise TrainingInterrupted(
                signum,
                f"interrupted after epoch {self.progress.epoch}, step {self.progress.step} of {self._steps()}; a "
                "checkpoint is written",
            )

    def _non_finite(self, reason: str) -> NonFiniteError:
        epoch = min(self.progress.epoch, self._batches.epochs - 1)
        step = min(self.progress.step, self._steps() - 1)
        where = non_finite_layer(self.model, self._batches.batch(epoch, step)[0])
        found = f" NaN or infinite are {where}." if where else ""
        return NonFiniteError(
            f"Stopped in epoch {epoch + 1}, batch {step + 1} of {self._steps()}: {reason}{found} Nothing was saved "
            "since the last checkpoint."
        )

    def _steps(self) -> int:
        return self._batches.steps(min(self.progress.epoch, self._batches.epochs - 1))


def _sees_steps(callback: keras.callbacks.Callback) -> bool:
    """Whether a callback does something after each training step."""
    names = ("on_train_batch_end", "on_batch_end")
    return any(
        getattr(getattr(callback, name), "__func__", None) is not getattr(keras.callbacks.Callback, name)
        for name in names
    )

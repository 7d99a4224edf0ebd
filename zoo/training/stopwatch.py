"""The time that a run has trained, whatever process it trained in."""

from __future__ import annotations

import json
import time
from pathlib import Path

import keras

from zoo.core.files import write_atomically


class Stopwatch(keras.callbacks.Callback):
    """Measures the wall-clock seconds of the training steps, without validation, and writes them to a file.

    Checkpoints contain them, so a run that was killed and resumed counts each step that it kept once. The file has the
    sum over all trainings of a run: members of an ensemble, training seeds, a deterministic start.

    Args:
        file: Path of the file, a JSON number. Written at the end of each training.

    Attributes:
        seconds: Seconds of the current training, a part of the state that checkpoints contain.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.seconds = 0.0
        self._file, self._of_others, self._since = file, 0.0, 0.0

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Starts from 0; a resumed training then gets its seconds from the checkpoint."""
        self.seconds = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Starts to measure."""
        self._since = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Counts the step."""
        now = time.perf_counter()
        self.seconds += now - self._since
        self._since = now

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Writes the sum."""
        self._of_others += self.seconds
        write_atomically(self._file, json.dumps(self._of_others))

"""The time that a run has trained, whatever process it trained in."""

from __future__ import annotations

import json
import time
from pathlib import Path

import keras

from zoo.core.files import write_atomically


class Stopwatch(keras.callbacks.Callback):
    """Measures the seconds of the training steps, without validation, and writes them to a file.

    Checkpoints contain them, so a run that was killed and resumed counts each step that it kept once. The file has the
    sums over all trainings of a run: members of an ensemble, training seeds, a deterministic start.

    Args:
        file: Path of the file, a JSON object with `seconds` and `cpu_seconds`. Written at the end of each training.

    Attributes:
        seconds: Seconds of the current training by the wall clock. Other load on the machine makes them more.
        cpu_seconds: Seconds of the current training on all cores together.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        # Public, so that checkpoints contain them.
        self.seconds = self.cpu_seconds = 0.0
        self._file, self._earlier, self._since = file, (0.0, 0.0), (0.0, 0.0)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Starts from 0; a resumed training then gets its seconds from the checkpoint."""
        self.seconds = self.cpu_seconds = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Starts to measure."""
        self._since = _clocks()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Counts the step."""
        now = _clocks()
        self.seconds += now[0] - self._since[0]
        self.cpu_seconds += now[1] - self._since[1]
        self._since = now

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Writes the sums."""
        self._earlier = self._earlier[0] + self.seconds, self._earlier[1] + self.cpu_seconds
        write_atomically(self._file, json.dumps(dict(zip(("seconds", "cpu_seconds"), self._earlier, strict=True))))


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()

"""The clocks that the benchmark reads."""

from __future__ import annotations

import time
from typing import Any

Clocks = tuple[float, float]


def clocks() -> Clocks:
    """Seconds by the clock and of the processor."""
    return time.perf_counter(), time.process_time()


def fit_one_epoch(model: Any, callback: Any, x: Any, y: Any, batch_size: int) -> Clocks:
    """Trains a model of Keras for one epoch.

    Args:
        model: Compiled model, of Keras or of `tf_keras`.
        callback: `LambdaCallback` of the same library.
        x: Inputs.
        y: Targets.
        batch_size: Rows of a step.

    Returns:
        The clocks after the last step. `fit` returns later: `tf.data` tunes each pipeline in a thread that sleeps 10
        ms, then 20, 40 and so on. Sometimes it does not wake up when it should end, and `fit` waits for it, up to as
        long as the epoch took.
    """
    ends: list[Clocks] = []
    end = callback(on_epoch_end=lambda epoch, logs: ends.append(clocks()))
    model.fit(x, y, batch_size=batch_size, verbose=0, callbacks=[end])
    return ends[0]

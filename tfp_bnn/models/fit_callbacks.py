"""How `fit` of a variational model prepares its callbacks."""

from __future__ import annotations

import warnings
from typing import Any

import keras


class _RowCheck(keras.callbacks.Callback):
    """Compares the rows that training saw with N, after the first epoch."""

    def __init__(self) -> None:
        super().__init__()
        self._steps = 0
        self._cut_short = False
        self._done = False

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._steps = batch + 1
        # Such an epoch says nothing of N. This callback is the last.
        self._cut_short = self.model.stop_training

    # Validation resets the counts, so they are read when it begins, or at the end of an epoch without validation.
    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._compare()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._compare()

    def _compare(self) -> None:
        if self._done or not self._steps or self._cut_short:
            return
        self._done = True
        rows, expected = self.model.rows_seen, self.model.num_examples
        dropped_remainder = 0 <= expected - rows < rows / self._steps
        if not dropped_remainder:
            warnings.warn(
                f"The first epoch had {rows} examples, but N is {expected}, so the KL is weighted for another "
                "amount of data. Pass `num_examples`, the number of distinct training examples.",
                stacklevel=2,
            )


def with_row_check(callbacks: Any) -> Any:
    """The callbacks, plus one that compares the rows of the first epoch with N.

    A `CallbackList` with the attribute `counts_rows` is returned unchanged: it belongs to a run that knows N, and whose
    epochs need not be passes over the data.
    """
    if getattr(callbacks, "counts_rows", False):
        return callbacks
    check = _RowCheck()
    if isinstance(callbacks, keras.callbacks.CallbackList):
        # Keras uses such a list unchanged, and does not set the model of its callbacks.
        check.set_model(callbacks.model)
        callbacks.callbacks.append(check)
        return callbacks
    return [*_as_list(callbacks), check]


def tell_direction(callbacks: Any) -> None:
    """Tells callbacks in mode "auto" which way our terms improve: Keras only asks the metrics of `compile`."""
    directions = {"elbo": "max", "nll": "min", "kl": "min"}
    for callback in _as_list(callbacks):
        direction = directions.get(str(getattr(callback, "monitor", "")).removeprefix("val_"))
        if direction and getattr(callback, "mode", None) == "auto":
            callback.mode = direction


def _as_list(callbacks: Any) -> list[Any]:
    if callbacks is None:
        return []
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return list(callbacks.callbacks)
    return list(callbacks) if isinstance(callbacks, list | tuple) else [callbacks]

"""Progress on stderr."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any

from zoo.core.shown import printable


def say(message: str) -> None:
    """Prints a message for the user on stderr."""
    print(printable(message), file=sys.stderr, flush=True)


@contextlib.contextmanager
def working(what: str) -> Iterator[None]:
    """Shows that work of unknown duration is in progress."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True)
    # Names of files and models are no markup.
    message = escape(f"{printable(what)} ...")
    if not console.is_terminal:
        console.print(message, highlight=False)
        yield
        return
    with console.status(message):
        yield


@contextlib.contextmanager
def training_progress() -> Iterator[list[Any]]:
    """Yields callbacks that draw a progress bar for each training seed, with time left, the ELBO and its parts.

    If stderr is not a terminal, ten lines are printed instead.
    """
    import keras
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), TextColumn("{task.fields[terms]}"))
    bar = Progress(*columns, console=console)

    class Bar(keras.callbacks.Callback):
        """Draws one bar per training run."""

        def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
            self._epochs, self._steps = self.params["epochs"], self.params["steps"]
            self._task = bar.add_task("training", total=self._epochs * self._steps, terms="")
            self._lines = {round(self._epochs * tenth / 10) for tenth in range(1, 11)}
            self._first: tuple[int, float] | None = None
            self._terms = ""

        def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            self._epoch = epoch

        def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
            done = self._epoch * self._steps + batch + 1
            if self._first is None:
                self._first = (done, time.monotonic())
            what = f"epoch {self._epoch + 1}/{self._epochs}"
            bar.update(self._task, completed=done, description=what, terms=self._terms or _terms(logs or {}))

        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            self._terms = _terms(logs or {})
            if not console.is_terminal and epoch + 1 in self._lines:
                line = f"epoch {epoch + 1}/{self._epochs}  {self._terms}  {self._time_left(epoch + 1)} left"
                console.print(line, highlight=False, soft_wrap=True)

        def _time_left(self, epochs: int) -> str:
            first_step, start = self._first or (0, time.monotonic())
            done = max(1, epochs * self._steps - first_step)
            seconds = (time.monotonic() - start) / done * (self._epochs - epochs) * self._steps
            return f"{int(seconds // 60)}:{int(seconds % 60):02d}"

    if console.is_terminal:
        with bar:
            yield [Bar()]
    else:
        yield [Bar()]


def _terms(logs: dict[str, float]) -> str:
    names = {"elbo": "elbo", "nll": "nll", "kl": "kl", "val_accuracy": "val. accuracy", "val_mae": "val. mae"}
    return "  ".join(f"{label} {logs[name]:.4g}" for name, label in names.items() if name in logs)

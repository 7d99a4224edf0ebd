"""Progress on stderr."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from zoo.core.shown import minutes, printable


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
def counted(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yields a function that is told how much more is done: a progress bar with the time left.

    If stderr is not a terminal, at most ten lines are printed instead.

    Args:
        what: What is done, such as `"predicting 300 inputs"`.
        total: How much there is to do.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(escape(printable(what)), total=total)
            yield lambda more: bar.advance(task, more)
        return
    say(f"{what} ...")
    start, done, lines = time.monotonic(), 0, 0

    def tell(more: int) -> None:
        nonlocal done, lines
        done += more
        tenth = 10 * done // max(1, total)
        if lines < tenth < 10:
            lines = tenth
            left = (time.monotonic() - start) / done * (total - done)
            say(f"{done:,} of {total:,}, {minutes(left)} left")

    yield tell


@contextlib.contextmanager
def training_progress(fits: int = 1) -> Iterator[list[Any]]:
    """Yields callbacks that draw a progress bar, with the time left of all trainings, the ELBO and its parts.

    If stderr is not a terminal, ten lines for each training are printed instead.

    Args:
        fits: Number of trainings, each of which is assumed to take as long as the current one.
    """
    import keras
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), TextColumn("{task.fields[terms]}"))
    bar = Progress(*columns, console=console)

    class Bar(keras.callbacks.Callback):
        """Draws one bar for all trainings."""

        def __init__(self) -> None:
            super().__init__()
            self._task = bar.add_task("training", total=None, terms="")
            self._begun = 0

        def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
            self._epochs, self._steps = self.params["epochs"], self.params["steps"]
            self._begun += 1
            of_each = self._epochs * self._steps
            # What one bar shows: the steps of the trainings before, of this one, and of those to come. More trainings
            # than were announced have a bar each.
            announced = self._begun <= fits
            self._before = (self._begun - 1) * of_each if announced else 0
            bar.update(self._task, total=fits * of_each if announced else of_each)
            self._lines = {round(self._epochs * tenth / 10) for tenth in range(1, 11)}
            self._first: tuple[int, float] | None = None
            self._terms = ""

        def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            self._epoch = epoch

        def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
            done = self._epoch * self._steps + batch + 1
            if self._first is None:
                self._first = (done, time.monotonic())
            what = f"{self._which()}epoch {self._epoch + 1}/{self._epochs}"
            terms = self._terms or _terms(logs or {})
            bar.update(self._task, completed=self._before + done, description=what, terms=terms)

        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            self._terms = _terms(logs or {})
            if not console.is_terminal and epoch + 1 in self._lines:
                left = f"{self._time_left(epoch + 1)} left{' in all' if fits > 1 else ''}"
                line = f"{self._which()}epoch {epoch + 1}/{self._epochs}  {self._terms}  {left}"
                console.print(line, highlight=False, soft_wrap=True)

        def _which(self) -> str:
            if self._begun > fits:
                return f"training {self._begun}  "
            return f"training {self._begun}/{fits}  " if fits > 1 else ""

        def _time_left(self, epochs: int) -> str:
            first_step, start = self._first or (0, time.monotonic())
            done = max(1, epochs * self._steps - first_step)
            epochs_left = self._epochs - epochs + max(0, fits - self._begun) * self._epochs
            return minutes((time.monotonic() - start) / done * epochs_left * self._steps)

    if console.is_terminal:
        with bar:
            yield [Bar()]
    else:
        yield [Bar()]


def _terms(logs: dict[str, float]) -> str:
    names = {"elbo": "elbo", "nll": "nll", "kl": "kl", "val_accuracy": "val. accuracy", "val_mae": "val. mae"}
    return "  ".join(f"{label} {logs[name]:.4g}" for name, label in names.items() if name in logs)

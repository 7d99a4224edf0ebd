"""Progress on stderr."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def working(what: str) -> Iterator[None]:
    """Shows that something is going on, for work whose length is not known."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        console.print(f"{what} ...", highlight=False)
        yield
        return
    with console.status(f"{what} ..."):
        yield


@contextlib.contextmanager
def training_progress() -> Iterator[list[Any]]:
    """Yields callbacks for `fit` that draw a progress bar with the ELBO and its parts.

    Where stderr is no terminal, ten lines in all are printed instead.
    """
    import keras
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total} epochs"))
    bar = Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[terms]}"), console=console)

    class Bar(keras.callbacks.Callback):
        """One task for each call of `fit`."""

        def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
            total = self.params["epochs"]
            self.task = bar.add_task("training", total=total, terms="")
            self.lines = {round(total * tenth / 10) for tenth in range(1, 11)}

        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            terms = _terms(logs or {})
            bar.update(self.task, completed=epoch + 1, terms=terms)
            if not console.is_terminal and epoch + 1 in self.lines:
                console.print(f"epoch {epoch + 1}/{self.params['epochs']}  {terms}", highlight=False, soft_wrap=True)

    if console.is_terminal:
        with bar:
            yield [Bar()]
    else:
        yield [Bar()]


def _terms(logs: dict[str, float]) -> str:
    names = {"elbo": "elbo", "nll": "nll", "kl": "kl", "val_accuracy": "val. accuracy", "val_mae": "val. mae"}
    return "  ".join(f"{label} {logs[name]:.4g}" for name, label in names.items() if name in logs)

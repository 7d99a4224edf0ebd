"""An event file that experiment trackers follow."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from tfp_bnn.callbacks.board.event_log import EventLog
from tfp_bnn.callbacks.board.sinks import Sink


class MirroredLog(EventLog):
    """An event file whose numbers, figures, texts and hyperparameters go to sinks too.

    Args:
        folder: As in `EventLog`.
        run: Name of the run, such as `"train"`.
        sinks: The sinks. One that fails is removed from this list with a warning, and training goes on.
    """

    def __init__(self, folder: str, run: str, sinks: list[Sink]) -> None:
        super().__init__(folder)
        self._prefix = f"{run}/" if run else ""
        self._sinks = sinks

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Writes a number."""
        super().scalar(tag, value, step)
        self._tell("scalar", self._prefix + tag, float(value), step)

    def image(self, tag: str, png: bytes, step: int) -> None:
        """Writes an image, given as the bytes of a PNG file."""
        super().image(tag, png, step)
        self._tell("image", self._prefix + tag, png, step)

    def text(self, tag: str, markdown: str, step: int) -> None:
        """Writes a text in Markdown."""
        super().text(tag, markdown, step)
        self._tell("text", self._prefix + tag, markdown, step)

    def hyperparameters(self, values: Mapping[str, bool | float | str]) -> None:
        """Writes the hyperparameters of the runs in this folder and below it."""
        super().hyperparameters(values)
        self._tell("hyperparameters", dict(values))

    def close(self) -> None:
        """Closes the file, and ends the training in the sinks."""
        super().close()
        self._tell("close")

    def _tell(self, what: str, *arguments: Any) -> None:
        for sink in [*self._sinks]:
            try:
                getattr(sink, what)(*arguments)
            except Exception as error:
                self._sinks.remove(sink)
                warnings.warn(
                    f"{type(sink).__name__} failed, and gets nothing more of {self.folder!r}: {type(error).__name__}: "
                    f"{error}",
                    stacklevel=2,
                )

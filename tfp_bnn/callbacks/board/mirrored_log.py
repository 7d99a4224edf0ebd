"""An event file that experiment trackers follow."""

from __future__ import annotations

from collections.abc import Mapping

from tfp_bnn.callbacks.board.event_log import EventLog
from tfp_bnn.callbacks.board.sinks import Sinks


class MirroredLog(EventLog):
    """An event file whose numbers, figures, texts and hyperparameters go to sinks too.

    Args:
        folder: As in `EventLog`.
        run: Name of the run, such as `"train"`.
        sinks: The sinks.
    """

    def __init__(self, folder: str, run: str, sinks: Sinks) -> None:
        super().__init__(folder)
        self._prefix = f"{run}/" if run else ""
        self._sinks = sinks

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Writes a number."""
        super().scalar(tag, value, step)
        self._sinks.tell("scalar", self._prefix + tag, float(value), step)

    def image(self, tag: str, png: bytes, step: int) -> None:
        """Writes an image, given as the bytes of a PNG file."""
        super().image(tag, png, step)
        self._sinks.tell("image", self._prefix + tag, png, step)

    def text(self, tag: str, markdown: str, step: int) -> None:
        """Writes a text in Markdown."""
        super().text(tag, markdown, step)
        self._sinks.tell("text", self._prefix + tag, markdown, step)

    def hyperparameters(self, values: Mapping[str, bool | float | str]) -> None:
        """Writes the hyperparameters of the runs in this folder and below it."""
        super().hyperparameters(values)
        self._sinks.tell("hyperparameters", dict(values))

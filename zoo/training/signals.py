"""SIGINT and SIGTERM during a run: noted, and obeyed at the next moment at which the run can be saved."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class TrainingInterrupted(KeyboardInterrupt):
    """A signal ended the run after a whole step; the checkpoint of that step is written.

    Attributes:
        signum: The number of the signal, `SIGINT` or `SIGTERM`.
    """

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.signum = signum


@contextlib.contextmanager
def signals_noted(active: bool) -> Iterator[list[int]]:
    """Yields a list to which SIGINT and SIGTERM are added instead of ending the process; a second one ends it.

    Args:
        active: Whether signals are noted at all. They never are outside of the main thread, where Python refuses it.
    """
    noted: list[int] = []
    if not active or threading.current_thread() is not threading.main_thread():
        yield noted
        return

    def note(signum: int, frame: FrameType | None) -> None:
        noted.append(signum)
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, note)
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

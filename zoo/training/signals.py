"""Handles SIGINT and SIGTERM during a run: it ends at the next point where it can be saved."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class TrainingInterrupted(KeyboardInterrupt):
    """Raised when a signal ended the run after a complete step. The checkpoint of that step is written.

    Attributes:
        signum: Number of the signal, `SIGINT` or `SIGTERM`.
    """

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.signum = signum


@contextlib.contextmanager
def signals_noted(active: bool) -> Iterator[list[int]]:
    """Yields a list that records SIGINT and SIGTERM. They do not end the process until a second one arrives.

    Args:
        active: Whether to record signals. Has no effect outside the main thread, where Python does not allow it.
    """
    noted: list[int] = []
    if not active or threading.current_thread() is not threading.main_thread():
        yield noted
        return

    def note(signum: int, frame: FrameType | None) -> None:
        noted.append(signum)
        for number, handler in before.items():
            signal.signal(number, handler)

    # None is a handler that was not set from Python. It could not be put back, so it stays.
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {number: handler for number, handler in handlers.items() if handler is not None}
    for number in before:
        signal.signal(number, note)
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

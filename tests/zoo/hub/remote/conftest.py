"""Attempts to download take no time in these tests."""

from __future__ import annotations

from types import SimpleNamespace

import pytest


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds between attempts, which are counted, not waited for; and a server is given up soon."""
    slept: list[float] = []
    monkeypatch.setattr("pooch.core.time", SimpleNamespace(sleep=slept.append))
    monkeypatch.setattr("zoo.hub.remote.downloading.SECONDS_OF_SILENCE", 0.5)
    monkeypatch.setattr("zoo.hub.remote.downloading.MOST_SECONDS", 1.0)
    return slept

"""A process that is killed between two operations on files, or in the middle of one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from zoo.core import files


class Killed(BaseException):
    """A killed process: no handler can repair anything, because everything it does fails again."""


class KillAtOperation:
    """Lets `allowed` operations on files pass and kills at the next one, before it, or half-way through it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, allowed: int) -> None:
        self.left = allowed
        self.done: list[str] = []
        fsync, rename, swap, rmtree, mkdtemp = os.fsync, Path.rename, files._swap, shutil.rmtree, tempfile.mkdtemp

        def dying_fsync(descriptor: int) -> None:
            self._count("fsync", lambda: self._lose_half(descriptor))
            fsync(descriptor)

        def dying_rmtree(path: Path, ignore_errors: bool = False) -> None:
            if Path(path).exists():
                self._count("rmtree")
                self._count("rmtree, half-way", lambda: sorted(Path(path).iterdir())[0].unlink())
            rmtree(path, ignore_errors=ignore_errors)

        def dying_rename(path: Path, target: Path) -> Path:
            self._count("rename")
            return rename(path, target)

        def dying_swap(first: Path, second: Path) -> None:
            self._count("swap")
            swap(first, second)

        def dying_mkdtemp(*args: str, **kwargs: str) -> str:
            self._count("mkdtemp")
            return mkdtemp(*args, **kwargs)

        monkeypatch.setattr(os, "fsync", dying_fsync)
        monkeypatch.setattr(shutil, "rmtree", dying_rmtree)
        monkeypatch.setattr(tempfile, "mkdtemp", dying_mkdtemp)
        monkeypatch.setattr(files, "_swap", dying_swap)
        monkeypatch.setattr(Path, "rename", dying_rename)

    def _count(self, name: str, last_act: Callable[[], object] = lambda: None) -> None:
        if self.left == 0:
            self.left = -1
            last_act()
        if self.left < 0:
            raise Killed
        self.left -= 1
        self.done.append(name)

    @staticmethod
    def _lose_half(descriptor: int) -> None:
        """What was not synchronized may be lost with the machine."""
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if not os.path.isdir(path):
            os.truncate(path, os.path.getsize(path) // 2)

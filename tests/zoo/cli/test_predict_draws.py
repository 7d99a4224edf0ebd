"""The file of `predict --draws`."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import numpy as np
import pytest

from zoo.cli.prediction import _draws_file


def test_a_full_disk_is_an_error_before_anything_is_written_in_memory(tmp_path, monkeypatch):
    """Writing to the map of a file for which there is no space would end the process."""
    asked = []

    def full(descriptor, offset, size):
        asked.append((offset, size))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    # Systems without it get one.
    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    drawn = SimpleNamespace(samples=np.ones((3, 5, 2), np.float32))
    with (
        pytest.raises(OSError, match=r"No space left on device: the draws need 248 bytes.*--num-samples: '.*d\.npy'"),
        _draws_file(tmp_path / "d.npy", 5) as keep,
    ):
        keep(0, drawn)
    assert asked == [(0, 128 + 3 * 5 * 2 * 4)]
    assert list(tmp_path.iterdir()) == []

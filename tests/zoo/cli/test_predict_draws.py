"""The file of `predict --draws`."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import numpy as np
import pytest

from zoo.cli.prediction import _draws_file, _written


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


def test_files_behind_links_are_written(tmp_path):
    """The links stay, and nothing is left next to them."""
    (tmp_path / "real").mkdir()
    for name in ("x.csv", "d.npy"):
        (tmp_path / name).symlink_to(f"real/{name}")
    with _written(tmp_path / "x.csv") as file, _draws_file(tmp_path / "d.npy", 5) as keep:
        file.write("a")
        keep(0, SimpleNamespace(samples=np.ones((3, 5, 2), np.float32)))
    assert sorted(path.name for path in tmp_path.rglob("*") if not path.is_symlink()) == ["d.npy", "real", "x.csv"]
    assert all((tmp_path / name).is_symlink() for name in ("x.csv", "d.npy"))
    assert np.load(tmp_path / "real" / "d.npy").shape == (3, 5, 2)

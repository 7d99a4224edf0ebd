"""Folders that are replaced: whole at any moment, whenever the process is killed."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from zoo.core import files
from zoo.core.files import (
    check_file_target,
    check_folder_target,
    remove_unfinished,
    write_atomically,
    written_whole,
)

from ..kill_at_operation import KillAtOperation, Killed

OLD, NEW = {"a": "1", "b": "2"}, {"a": "3", "c": "4"}


def write(target: Path, texts: dict[str, str]) -> None:
    with written_whole(target) as working:
        for name, text in texts.items():
            (working / name).write_text(text)


def read(folder: Path) -> dict[str, str] | None:
    return {path.name: path.read_text() for path in folder.iterdir()} if folder.exists() else None


def killed_at_each_operation(tmp_path: Path, old: dict[str, str] | None) -> list[Path]:
    """The targets of processes that were killed at each operation of a replacement, and of one that was not."""
    targets: list[Path] = []
    finished = False
    while not finished:
        targets.append(tmp_path / str(len(targets)) / "target")
        if old is not None:
            write(targets[-1], old)
        with pytest.MonkeyPatch.context() as patch:
            KillAtOperation(patch, len(targets) - 1)
            try:
                write(targets[-1], NEW)
                finished = True
            except Killed:
                pass
    return targets


@pytest.mark.parametrize("old", [OLD, None], ids=["replaced", "new"])
def test_a_folder_is_the_old_or_the_new_one_after_a_kill_at_any_operation(tmp_path, old):
    targets = killed_at_each_operation(tmp_path, old)
    found = [read(target) for target in targets]
    first_new = found.index(NEW)
    assert found == [old] * first_new + [NEW] * (len(found) - first_new)
    # Four files and folders reach the disk before the new folder counts, and the folder of both after.
    assert len(found) >= 7
    assert 4 < first_new < len(found)
    for target in targets:
        write(target, OLD)
        remove_unfinished(target)
        assert [path.name for path in target.parent.iterdir()] == ["target"]
        assert read(target) == OLD


def test_where_two_folders_cannot_change_places_the_old_one_is_next_to_the_target_for_a_moment(tmp_path, monkeypatch):
    def refuse(first: Path, second: Path) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(files, "_swap", refuse)
    holes = 0
    for target in killed_at_each_operation(tmp_path, OLD):
        if not target.exists():
            holes += 1
            (aside,) = target.parent.glob(".target.*.old")
            assert read(aside) == OLD
            # It is all that is left of the old one, so it is not removed with what is unfinished.
            remove_unfinished(target)
            assert read(aside) == OLD
        else:
            assert read(target) in (OLD, NEW)
    assert holes == 1


def test_only_unfinished_folders_of_this_target_are_removed(tmp_path):
    others = [
        ".target.local",
        ".target.notes.unfinished",
        ".target.b.abcdefgh.unfinished",
        ".targe*.abcdefgh.unfinished",
    ]
    for name in others:
        (tmp_path / name).mkdir()
    remove_unfinished(tmp_path / "target")
    remove_unfinished(tmp_path / "targ[e]t")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)


def test_a_link_stays_a_link_to_the_new_folder(tmp_path):
    write(tmp_path / "behind", OLD)
    (tmp_path / "link").symlink_to("behind")
    write(tmp_path / "link", NEW)
    assert (tmp_path / "link").is_symlink()
    assert read(tmp_path / "behind") == NEW
    assert sorted(path.name for path in tmp_path.iterdir()) == ["behind", "link"]


def test_a_full_disk_names_the_folder_and_leaves_the_old_one(tmp_path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write(tmp_path / "target", OLD)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*target'"):
        write(tmp_path / "target", NEW)
    assert read(tmp_path / "target") == OLD
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_a_file_behind_a_link_is_replaced_and_the_link_stays(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "real").write_text("old")
    (tmp_path / "link").symlink_to("elsewhere/real")
    check_file_target(tmp_path / "link")
    write_atomically(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "elsewhere" / "real").read_text() == "new"
    (tmp_path / "broken").symlink_to("nowhere/real")
    with pytest.raises(ValueError, match=r"There is no folder '.*/nowhere' for the file 'real'"):
        check_file_target(tmp_path / "broken")


def test_a_pipe_or_device_is_never_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    _, end = os.pipe()
    # The last one has no path that could be resolved.
    for path in (tmp_path / "pipe", tmp_path / "link", Path(f"/dev/fd/{end}")):
        for write_to in (check_file_target, lambda path: write_atomically(path, "new")):
            with pytest.raises(ValueError, match=r"is a device or a pipe, which a file would replace\. Give"):
                write_to(path)
    assert (tmp_path / "pipe").is_fifo()
    with pytest.raises(ValueError, match="'/dev/null' is a device"):
        check_file_target(Path(os.devnull))


def test_a_folder_that_cannot_be_replaced_is_refused_early(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "link").symlink_to("here")
    check_folder_target(tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    for path in (Path("."), tmp_path / "here", tmp_path / "link"):
        with pytest.raises(ValueError, match=r"here' is the current folder\. .* give a folder below it"):
            check_folder_target(path)
    with pytest.raises(ValueError, match=r"is a folder around the current one\. .* give a folder below it"):
        check_folder_target(tmp_path)
    with pytest.raises(ValueError, match="where a file system is mounted"):
        check_folder_target(Path("/"))
    check_folder_target(Path("new"))
    Path("file").write_text("")
    with pytest.raises(NotADirectoryError):
        check_folder_target(Path("file/new"))

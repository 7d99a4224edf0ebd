"""Checkpoints: a generation is intact or skipped, whatever the process or the disk does meanwhile."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from zoo.core import files
from zoo.hub.manifest import describe_files
from zoo.training.checkpoints import CheckpointError, Checkpoints, Progress, describe_array

from ..kill_at_operation import KillAtOperation, Killed

FINGERPRINT = {"recipe": {"epochs": 3, "optimizer": {"name": "adam"}}, "num_classes": 3}


def arrays_of(steps: int) -> dict[str, np.ndarray]:
    """What a run has after `steps`: odd dtypes, a scalar, an empty array, and one that is not contiguous."""
    rng = np.random.default_rng(steps)
    return {
        "model/0/kernel": rng.normal(size=(3, 4)).astype(np.float32).T,
        "optimizer/0": np.array(steps, np.int64),
        "training_noise": rng.integers(0, 2**32, size=2, dtype=np.uint32),
        "empty": np.zeros((0, 2), np.float32),
    }


def progress_of(steps: int) -> Progress:
    return Progress(
        epoch=steps // 4,
        step=steps % 4,
        history={"loss": ([1e-300, float("nan"), -float("inf"), 0.1 + 0.2] * steps)[: steps // 4]},
        callbacks=[{"stopped": False}],
    )


def save(checkpoints: Checkpoints, steps: int) -> Path:
    return checkpoints.save(steps, progress_of(steps), arrays_of(steps))


def steps_loaded(folder: Path) -> int:
    """After how many steps the generation was saved that a new process loads; it must be that one bit by bit."""
    progress, arrays, _ = Checkpoints(folder, FINGERPRINT).load()
    steps = int(arrays["optimizer/0"])
    # By their text, in which NaN equals NaN and every other bit counts.
    assert repr(progress) == repr(progress_of(steps))
    expected = arrays_of(steps)
    assert set(arrays) == set(expected)
    for name, value in expected.items():
        assert arrays[name].dtype == value.dtype
        np.testing.assert_array_equal(arrays[name], value)
    return steps


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "out.training" / "seed-0"


# === Without harm ===


def test_the_newest_is_loaded_and_three_are_kept(folder):
    checkpoints = Checkpoints(folder, FINGERPRINT)
    for steps in (0, 3, 7, 12, 100):
        assert save(checkpoints, steps).is_dir()
        assert steps_loaded(folder) == steps
    kept = [f"generation-{steps:010d}" for steps in (7, 12, 100)]
    assert [path.name for path in checkpoints.generations()] == kept
    assert sorted(path.name for path in folder.iterdir()) == [*kept, "saved"]


def test_the_same_step_can_be_saved_again(folder):
    checkpoints = Checkpoints(folder, FINGERPRINT)
    for steps in (4, 8, 8):
        save(checkpoints, steps)
    assert len(checkpoints.generations()) == 2
    assert steps_loaded(folder) == 8


def test_nothing_to_load(folder):
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* without --resume"):
        Checkpoints(folder, FINGERPRINT).load()


def test_array_description_tells_arrays_apart():
    a = np.arange(6, dtype=np.float32)
    different = [a, a.reshape(2, 3), a.reshape(3, 2), a.astype(np.float64), a + 1, a.view(np.int32)]
    assert len({json.dumps(describe_array(array)) for array in different}) == len(different)
    assert describe_array(a.reshape(2, 3)) == describe_array(np.asfortranarray(a.reshape(2, 3)))


# === T1: killed while a checkpoint is written ===


def operations_of_save(saved_before: list[int], steps: int) -> list[str]:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        checkpoints = Checkpoints(Path(folder), FINGERPRINT)
        for earlier in saved_before:
            save(checkpoints, earlier)
        counter = KillAtOperation(patch, 10**9)
        save(checkpoints, steps)
        return counter.done


class TestT1KilledWithinSave:
    @pytest.mark.parametrize(
        ("saved_before", "steps"),
        [([0], 1), ([0, 4, 8], 12), ([4, 8], 8)],
        ids=["few", "an old one is removed", "the same step again"],
    )
    def test_a_whole_generation_loads_after_a_kill_at_any_operation(self, tmp_path, saved_before, steps):
        operations = operations_of_save(saved_before, steps)
        assert operations.count("fsync") == 5
        assert ("rmtree" in operations) == (steps in saved_before or len(saved_before) == 3)
        assert ("swap" in operations) == (steps in saved_before) != ("rename" in operations)
        loaded = []
        for allowed in range(len(operations) + 1):
            folder = tmp_path / str(allowed)
            checkpoints = Checkpoints(folder, FINGERPRINT)
            for earlier in saved_before:
                save(checkpoints, earlier)
            with pytest.MonkeyPatch.context() as patch:
                KillAtOperation(patch, allowed)
                if allowed < len(operations):
                    with pytest.raises(Killed):
                        save(checkpoints, steps)
                else:
                    save(checkpoints, steps)
            loaded.append(steps_loaded(folder))
            # No kill leaves a generation that must be skipped.
            assert Checkpoints(folder, FINGERPRINT).load()[2] == []
            # A new process has cleared what was half-written, and goes on saving.
            assert not list(folder.glob(".writing-*"))
            save(Checkpoints(folder, FINGERPRINT), steps + 4)
            assert steps_loaded(folder) == steps + 4
        # The one before, then the new one; where a step is saved again, the two change places in one step.
        assert loaded == sorted(loaded)
        assert set(loaded) == {saved_before[-1], steps}

    def test_where_two_folders_cannot_change_places_a_kill_between_leaves_the_generation_before(self, folder):
        checkpoints = Checkpoints(folder, FINGERPRINT)
        for steps in (4, 8):
            save(checkpoints, steps)
        rename = Path.rename

        def die_before_the_second(path: Path, target: Path) -> Path:
            if target.name.startswith("generation-"):
                raise Killed
            return rename(path, target)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files, "_swap", full_disk)
            patch.setattr(Path, "rename", die_before_the_second)
            with pytest.raises(Killed):
                save(checkpoints, 8)
        assert steps_loaded(folder) == 4


# === T5: the disk ===


def full_disk(*args: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class TestT5Disk:
    @pytest.mark.parametrize("where", ["zoo.training.checkpoints.os.fsync", "zoo.training.checkpoints._write"])
    def test_full(self, folder, monkeypatch, where):
        checkpoints = Checkpoints(folder, FINGERPRINT)
        save(checkpoints, 4)
        before = contents(folder)
        with monkeypatch.context() as patch:
            patch.setattr(where, full_disk)
            with pytest.raises(OSError, match=r"after 8 steps .* No space left .* Earlier checkpoints are intact") as e:
                save(checkpoints, 8)
        assert e.value.errno == errno.ENOSPC
        assert str(folder) in str(e.value)
        assert contents(folder) == before
        assert [path.name for path in folder.iterdir() if path.is_dir()] == ["generation-0000000004"]
        assert steps_loaded(folder) == 4
        save(checkpoints, 8)
        assert steps_loaded(folder) == 8

    def test_full_half_way_through_a_file(self, folder, monkeypatch):
        checkpoints = Checkpoints(folder, FINGERPRINT)
        save(checkpoints, 4)
        write = Path.open

        class Half:
            def __init__(self, file):
                self.file = file

            def __enter__(self):
                return self

            def __exit__(self, *args):
                self.file.close()

            def write(self, data):
                self.file.write(data[: len(data) // 2])
                full_disk()

        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", lambda path, mode: Half(write(path, mode)))
            with pytest.raises(OSError, match="No space left"):
                save(checkpoints, 8)
        assert [path.name for path in folder.iterdir() if path.is_dir()] == ["generation-0000000004"]
        assert steps_loaded(folder) == 4

    def test_read_only(self, folder, monkeypatch):
        checkpoints = Checkpoints(folder, FINGERPRINT)
        save(checkpoints, 4)

        def refuse(*args: object, **kwargs: object) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        with monkeypatch.context() as patch:
            patch.setattr("zoo.training.checkpoints.tempfile.mkdtemp", refuse)
            with pytest.raises(
                OSError, match=r"Read-only file system\. Earlier .* make the folder writable, and resume"
            ):
                save(checkpoints, 8)
        assert steps_loaded(folder) == 4

    def test_a_file_in_place_of_the_folder(self, tmp_path):
        (tmp_path / "out.training").write_text("not a folder")
        with pytest.raises(OSError, match=r"out\.training"):
            Checkpoints(tmp_path / "out.training" / "seed-0", FINGERPRINT)

    def test_folder_deleted_meanwhile(self, folder):
        checkpoints = Checkpoints(folder, FINGERPRINT)
        save(checkpoints, 4)
        shutil.rmtree(folder)
        with pytest.raises(OSError, match=r"could not be written to .*seed-0': No such [^.]*. The folder is gone"):
            save(checkpoints, 8)
        assert not folder.exists()


# === T6: damaged files ===


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def replace_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], None]] = {
    "truncated": truncate,
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(b"\x00\xff garbage" * 100),
    "a bit flipped": flip_a_bit,
    "missing": Path.unlink,
    "a folder": replace_by_a_folder,
}
FILES = ("manifest.json", "state.json", "state.safetensors")


STATE = {"schema": 3, "fingerprint": {}, "epoch": 1, "step": 0, "history": {"loss": [0.5]}, "callbacks": []}


class TestT6Damaged:
    @pytest.mark.parametrize("name", FILES)
    @pytest.mark.parametrize("damage", DAMAGES)
    def test_the_one_before_is_loaded_and_it_says_so(self, folder, name, damage):
        checkpoints = Checkpoints(folder, FINGERPRINT)
        for steps in (4, 8):
            save(checkpoints, steps)
        DAMAGES[damage](folder / "generation-0000000008" / name)
        progress, arrays, (message,) = checkpoints.load()
        assert int(arrays["optimizer/0"]) == 4
        assert progress.epoch == 1
        assert message.startswith("the checkpoint generation-0000000008 is damaged and was skipped: ")
        assert len(message) > 80

    @pytest.mark.parametrize(
        ("state", "says"),
        [
            ([], "another release"),
            ({"schema": 99}, "another release"),
            ({"schema": 3, "epoch": 0}, "the key 'fingerprint' is missing"),
            ({"schema": 3, "fingerprint": {}, "epochs": 3}, "Did you mean 'epoch'"),
            ({**STATE, "epoch": 10**9}, "says epoch 1000000000, but has the history of 1 epochs"),
            ({**STATE, "epoch": "1"}, "'epoch' got '1'"),
            ({**STATE, "step": -1}, "'step' got -1"),
            ({**STATE, "history": {"loss": ["low"]}}, "'history.loss.0' got 'low'"),
            ({**STATE, "callbacks": [{"class": 3}]}, "'callbacks.0.class' got 3"),
            # With sums of logs, and with the best epoch next to the history, as releases before wrote it.
            ({"schema": 1, "fingerprint": {}, "epoch": 3}, "another release"),
            ({"schema": 2, "fingerprint": {}, "epoch": 3, "best": None}, "another release"),
        ],
    )
    def test_a_state_that_its_manifest_vouches_for_but_that_is_none(self, folder, state, says):
        checkpoints = Checkpoints(folder, FINGERPRINT)
        for steps in (4, 8):
            save(checkpoints, steps)
        newest = folder / "generation-0000000008"
        (newest / "state.json").write_text(json.dumps(state))
        (newest / "manifest.json").write_text(json.dumps({"schema": 1, "files": describe_files(newest)}))
        _, arrays, (message,) = checkpoints.load()
        assert int(arrays["optimizer/0"]) == 4
        assert says in message

    def test_all_of_them(self, folder):
        checkpoints = Checkpoints(folder, FINGERPRINT)
        for steps in (0, 4, 8):
            save(checkpoints, steps)
        for generation, name in zip(checkpoints.generations(), FILES, strict=True):
            truncate(generation / name)
        with pytest.raises(CheckpointError, match=r"No checkpoint in .*0008.*0004.*0000.*Start again with --overwrite"):
            checkpoints.load()

    def test_damaged_ones_do_not_crowd_out_new_ones(self, folder):
        checkpoints = Checkpoints(folder, FINGERPRINT)
        for steps in (0, 4, 8, 12):
            save(checkpoints, steps)
        # A kill before the removal of the oldest leaves one more than are kept.
        save(Checkpoints(folder, FINGERPRINT, keep=9), 2)
        for steps in (4, 8, 12):
            truncate_folder = folder / f"generation-{steps:010d}"
            truncate_folder.mkdir(exist_ok=True)
            (truncate_folder / "manifest.json").write_text("{")
        assert steps_loaded(folder) == 2
        save(checkpoints, 3)
        assert steps_loaded(folder) == 3
        assert [path.name[-2:] for path in checkpoints.generations()] == ["02", "03"]

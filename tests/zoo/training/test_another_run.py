"""Checkpoints of another run are refused field by field, and another process is kept out."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from zoo.training.checkpoints import CheckpointError, Checkpoints, Progress, locked, remove_locked

FINGERPRINT = {"recipe": {"epochs": 3, "optimizer": {"name": "adam"}}, "num_classes": 3}


def save(checkpoints: Checkpoints, steps: int) -> Path:
    return checkpoints.save(steps, Progress(), {"optimizer/0": np.array(steps)})


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "out.training" / "seed-0"


# === T7: another run ===


class TestT7AnotherRun:
    @pytest.mark.parametrize(
        ("changed", "says"),
        [
            ({"recipe": {"epochs": 4}}, "recipe.epochs was 3 and is 4"),
            ({"recipe": {"optimizer": {"name": "sgd"}}}, "recipe.optimizer.name was 'adam' and is 'sgd'"),
            ({"num_classes": 4}, "num_classes was 3 and is 4"),
            ({"more": True}, "more was 'not set' and is True"),
            ({"num_classes": 4, "recipe": {"epochs": 4}}, "num_classes was 3 and is 4; recipe.epochs was 3 and is 4"),
        ],
    )
    def test_is_refused_field_by_field(self, folder, changed, says):
        save(Checkpoints(folder, FINGERPRINT), 4)
        merged = {**FINGERPRINT, **changed, "recipe": {**FINGERPRINT["recipe"], **changed.get("recipe", {})}}
        before = contents(folder)
        with pytest.raises(CheckpointError) as caught:
            Checkpoints(folder, merged).load()
        assert f"has different settings: {says}. Resume it with" in str(caught.value)
        assert contents(folder) == before

    def test_what_is_missing_now(self, folder):
        save(Checkpoints(folder, FINGERPRINT), 4)
        with pytest.raises(CheckpointError, match="num_classes was 3 and is 'not set'"):
            Checkpoints(folder, {"recipe": FINGERPRINT["recipe"]}).load()

    def test_another_run_is_not_passed_over_for_an_older_generation(self, folder):
        save(Checkpoints(folder, {"a": 1}), 4)
        save(Checkpoints(folder, {"a": 2}), 8)
        with pytest.raises(CheckpointError, match="a was 2 and is 1"):
            Checkpoints(folder, {"a": 1}).load()


# === What is found before the first step ===


def test_what_is_remembered_is_recalled_by_the_same_run_alone(folder):
    checkpoints = Checkpoints(folder, FINGERPRINT)
    assert checkpoints.recall("candidates") is None
    checkpoints.remember("candidates", [{"inflate": 0.1 + 0.2}])
    save(checkpoints, 4)
    assert Checkpoints(folder, FINGERPRINT).recall("candidates") == [{"inflate": 0.1 + 0.2}]
    assert Checkpoints(folder, {"recipe": "another"}).recall("candidates") is None
    (folder / "candidates.json").write_text("{")
    assert checkpoints.recall("candidates") is None


# === The lock ===


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock, without importing anything heavy."""
    folder = tmp_path / "out.training"
    folder.mkdir()
    code = (
        "import fcntl, os, sys\n"
        "file = open(sys.argv[1], 'a+')\n"
        "fcntl.flock(file, fcntl.LOCK_EX)\n"
        "file.write(f'process {os.getpid()}'); file.flush()\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-S", "-c", code, str(folder / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


class TestLock:
    def test_another_process_is_named(self, tmp_path, holder):
        with (
            pytest.raises(CheckpointError, match=rf"Another process \(process {holder.pid}\) trains in"),
            locked(tmp_path / "out.training"),
        ):
            pass

    def test_a_killed_process_holds_it_no_longer(self, tmp_path, holder):
        holder.kill()
        holder.wait()
        with locked(tmp_path / "out.training"):
            assert (tmp_path / "out.training" / "lock").read_text() == f"process {os.getpid()}"

    def test_twice_in_turn_but_not_at_once(self, tmp_path):
        for _ in range(2):
            with locked(tmp_path / "a"):
                with pytest.raises(CheckpointError, match=f"process {os.getpid()}"), locked(tmp_path / "a"):
                    pass
                with locked(tmp_path / "b"):
                    pass

    def test_one_that_was_removed_after_it_was_opened_does_not_count(self, tmp_path, monkeypatch):
        flock = fcntl.flock

        def late(*arguments):
            monkeypatch.setattr(fcntl, "flock", flock)
            remove_locked(tmp_path / "a")
            assert not (tmp_path / "a").exists()
            flock(*arguments)

        monkeypatch.setattr(fcntl, "flock", late)
        with locked(tmp_path / "a"), pytest.raises(CheckpointError), locked(tmp_path / "a"):
            pass
        assert fcntl.flock is flock

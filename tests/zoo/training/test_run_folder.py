"""The folder of a run, without a training in it."""

from __future__ import annotations

import pytest

from zoo.training import run_folder
from zoo.training.checkpoints import CheckpointError, locked
from zoo.training.run_folder import RunFolder


def test_a_finished_run_leaves_only_its_artifact(tmp_path):
    """Earlier processes of it may have been killed while they wrote the artifact, or a checkpoint."""
    folder = RunFolder(tmp_path / "out", seed=0, overwrite=False, resume=False)
    with folder.held(print):
        for unfinished in ("out", ".out.abcdefgh.unfinished", "out.training/seed-0"):
            (tmp_path / unfinished).mkdir()
            (tmp_path / unfinished / "file").write_text("")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_second_process_leaves_the_checkpoint_that_the_first_one_is_writing(tmp_path):
    unfinished = tmp_path / "out.training" / "seed-0" / ".writing-x"
    unfinished.mkdir(parents=True)
    second = RunFolder(tmp_path / "out", seed=0, overwrite=False, resume=True)
    with locked(tmp_path / "out.training"), pytest.raises(CheckpointError, match="trains in"), second.held(print):
        pass
    assert unfinished.exists()


def test_the_folder_of_a_finished_run_is_removed_before_another_process_can_use_it(tmp_path, monkeypatch):
    removed = []

    def remove(folder):
        with pytest.raises(CheckpointError, match="trains in"), locked(folder):
            pass
        removed.append(folder.name)

    monkeypatch.setattr(run_folder, "remove_locked", remove)
    with RunFolder(tmp_path / "out", seed=0, overwrite=False, resume=False).held(print):
        pass
    assert removed == ["out.training"]


@pytest.mark.parametrize("resume", [False, True])
def test_what_another_process_did_before_the_lock_is_seen(tmp_path, resume):
    """It has begun a run, which must not be removed, or has finished the one to resume."""
    of_run = tmp_path / "out.training" / "seed-0"
    if resume:
        of_run.mkdir(parents=True)
    folder = RunFolder(tmp_path / "out", seed=0, overwrite=False, resume=resume)
    if resume:
        of_run.rmdir()
    else:
        of_run.mkdir(parents=True)
    says = "There is nothing to resume" if resume else "holds an unfinished run"
    with pytest.raises(CheckpointError, match=says), folder.held(print):
        pass

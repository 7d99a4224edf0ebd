"""The folder of a run, without a training in it."""

from __future__ import annotations

from zoo.training.run_folder import RunFolder


def test_a_finished_run_leaves_only_its_artifact(tmp_path):
    """Earlier processes of it may have been killed while they wrote the artifact, or a checkpoint."""
    folder = RunFolder(tmp_path / "out", seed=0, overwrite=False, resume=False)
    with folder.held(print):
        for unfinished in ("out", ".out.abcdefgh.unfinished", "out.training/seed-0"):
            (tmp_path / unfinished).mkdir()
            (tmp_path / unfinished / "file").write_text("")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]

"""Artifacts that are replaced: whoever reads one gets the old or the new one, whatever happens to the process."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import zoo
from zoo.core.files import take_place
from zoo.hub import artifacts, locating, manifest
from zoo.hub.reading import read_artifact

from ..kill_at_operation import KillAtOperation, Killed


@pytest.fixture(scope="module")
def models(tiny_artifact):
    """Two models that differ in N, by which their artifacts are told apart."""
    found = [zoo.load_artifact(tiny_artifact, trust=True) for _ in range(2)]
    for number, model in zip((1, 2), found, strict=True):
        model.num_examples = number
    return found


@pytest.fixture
def quick_golden(monkeypatch, models):
    """Golden outputs that are not predicted: each save takes milliseconds."""

    class Mean:
        def mean(self):
            return np.zeros((artifacts.GOLDEN_ROWS, 3), np.float32)

    for model in models:
        monkeypatch.setattr(type(model), "posterior_predictive", lambda *_, **__: Mean())


def stored(folder: Path) -> int:
    return read_artifact(folder)["config"]["num_examples"]


def test_an_artifact_is_the_old_or_the_new_one_after_a_kill_at_any_operation_of_its_replacement(
    models, tmp_path, quick_golden
):
    old, new = models
    found: list[int] = []
    finished = False
    while not finished:
        target = tmp_path / str(len(found)) / "artifact"
        zoo.save_artifact(old, target)
        with pytest.MonkeyPatch.context() as patch:
            KillAtOperation(patch, len(found))
            try:
                zoo.save_artifact(new, target, overwrite=True)
                finished = True
            except Killed:
                pass
        found.append(stored(target))
    assert found == sorted(found)
    assert set(found) == {1, 2}
    # Seven files and their folder are on the disk before the new artifact takes the place of the old one.
    assert found.index(2) > 8


def test_a_reader_gets_the_new_artifact_when_the_old_one_is_replaced_and_removed_under_its_hands(
    models, tmp_path, quick_golden, monkeypatch
):
    old, new = (zoo.save_artifact(model, tmp_path / name) for model, name in zip(models, ("old", "new"), strict=True))
    read_one, opened = manifest._read_one, []

    def replace_before_the_first(path, *arguments):
        opened.append(path)
        if len(opened) == 1:
            take_place(new, old)
            shutil.rmtree(new)
        return read_one(path, *arguments)

    monkeypatch.setattr(manifest, "_read_one", replace_before_the_first)
    assert stored(old) == 2


def test_a_reader_of_an_artifact_that_never_rests_gives_up_in_words(models, tmp_path, quick_golden, monkeypatch):
    old, new = (zoo.save_artifact(model, tmp_path / name) for model, name in zip(models, ("old", "new"), strict=True))

    def replace(path, *_):
        take_place(new, old)
        raise OSError(f"{path} is gone")

    monkeypatch.setattr(manifest, "_read_one", replace)
    with pytest.raises(zoo.ArtifactError, match="is replaced again and again"):
        read_artifact(old)


def test_a_damaged_artifact_is_read_only_once(artifact, monkeypatch):
    (artifact / "config.json").write_text("{}")
    asked = []
    monkeypatch.setattr(
        locating, "locate", lambda folder, _: asked.append(folder) or (folder, manifest.read_manifest(folder))
    )
    with pytest.raises(zoo.ArtifactError, match="not the one that was published"):
        read_artifact(artifact)
    assert len(asked) == 1


def test_a_pipe_is_no_folder_and_nobody_waits_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(zoo.ArtifactError, match="There is no folder"):
        zoo.load_artifact(tmp_path / "pipe", trust=True)
    with pytest.raises(zoo.ArtifactError, match="not a name of the zoo"):
        read_artifact(tmp_path / "pipe")

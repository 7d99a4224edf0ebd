"""The folder of an evaluation report: when it is replaced, and what a failure leaves of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import zoo
from zoo.evaluation.report import write_evaluation_report


@pytest.fixture(scope="module")
def iris_model():
    return zoo.load_model("mlp_flipout.iris")


def write(folder, model, **arguments):
    write_evaluation_report(model, "iris", "test", folder, num_samples=3, out_of_distribution=None, **arguments)


@pytest.fixture(scope="module")
def written(iris_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports") / "iris"
    write_evaluation_report(iris_model, "iris", "test", folder, num_samples=4)
    return folder


@pytest.fixture
def report(written, tmp_path):
    """A copy of a report, to be spoiled."""
    return Path(shutil.copytree(written, tmp_path / "a report"))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_a_report_is_replaced_only_if_told_to(report, iris_model, tmp_path):
    before = contents(report)
    with pytest.raises(ValueError, match=r"exists\. Pass overwrite=True \(on the command line: --overwrite\)"):
        write(report, iris_model)
    assert contents(report) == before
    write(report, iris_model, overwrite=True)
    numbers = json.loads((report / "metrics.json").read_text())
    assert numbers["num_samples"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["a report"]


def test_an_empty_folder_is_filled(iris_model, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "zoo.evaluation.report.writing._write_files", lambda folder, *_: (folder / "new").write_text("")
    )
    write_evaluation_report(iris_model, "iris", "test", tmp_path, num_samples=1, out_of_distribution=None)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_what_is_no_report_is_never_replaced(iris_model, tmp_path):
    folders = {name: tmp_path / name for name in ("notes", "another json", "spoiled json", "file", "link")}
    for name in ("notes", "another json", "spoiled json"):
        folders[name].mkdir()
    (folders["notes"] / "notes.txt").write_text("mine")
    (folders["another json"] / "metrics.json").write_text('{"accuracy": 1}')
    (folders["spoiled json"] / "metrics.json").write_text("{")
    folders["file"].write_text("mine")
    folders["link"].symlink_to(tmp_path / "nowhere")
    for folder in folders.values():
        with pytest.raises(ValueError, match="It is not an evaluation report; choose another folder"):
            write(folder, iris_model, overwrite=True)
    assert (folders["notes"] / "notes.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(folders)


@pytest.mark.slow
def test_a_report_with_files_of_the_user_is_not_replaced(report, iris_model):
    (report / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"Besides an evaluation report it contains notes\.txt"):
        write(report, iris_model, overwrite=True)
    assert (report / "notes.txt").read_text() == "mine"


@pytest.mark.slow
def test_a_failure_leaves_the_old_report_and_nothing_else(report, iris_model, tmp_path, monkeypatch):
    before = contents(report)

    def fail(*arguments):
        raise OSError("No space left on device")

    monkeypatch.setattr("zoo.evaluation.report.writing._write_files", fail)
    with pytest.raises(OSError, match="No space left"):
        write(report, iris_model, overwrite=True)
    assert contents(report) == before
    assert [path.name for path in tmp_path.iterdir()] == ["a report"]


def test_a_folder_that_cannot_be_made_is_found_out_before_anything_is_measured(iris_model, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("zoo.evaluation.report.writing.measure", lambda *_, **__: pytest.fail("measured"))
    with pytest.raises(OSError, match="file"):
        write(tmp_path / "file" / "report", iris_model)

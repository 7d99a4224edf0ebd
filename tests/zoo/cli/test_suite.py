"""`tfp-bnn evaluate --suite`, run as a user runs it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import zoo
from zoo.datasets import DATASETS

from ..image_parts import tiny_classifier, tiny_images


@pytest.fixture
def image_artifact(tmp_path: Path) -> Iterator[Path]:
    for name, seed in (("tiny_images", 0), ("tiny_other", 5)):
        DATASETS.register(name)(lambda name=name, seed=seed: tiny_images(name, seed, rows=20))
    zoo.save_artifact(tiny_classifier(), tmp_path / "model")
    yield tmp_path / "model"
    for name in ("tiny_images", "tiny_other"):
        DATASETS.unregister(name)


@pytest.mark.slow
def test_the_suite_from_the_command_line(image_artifact, tmp_path, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    asked = ["evaluate", image_artifact, "--trust", "--dataset", "tiny_images", "--suite", "--num-samples", 3]
    asked += ["--ood", "tiny_other"]
    numbers, probabilities, report = tmp_path / "suite.csv", tmp_path / "p.npz", tmp_path / "report"
    text = run(*asked, "--out", numbers, "--save-probabilities", probabilities, "--report", report)
    measured = json.loads(run(*asked, "--json"))
    assert f"accuracy  {measured['accuracy']:.4f}" in " ".join(text.split()).replace("accuracy ", "accuracy  ")
    for shown in ("tiny_other", "jpeg_compression", "plug-in mean", f"report: {report / 'index.html'}"):
        assert shown in text
    with numbers.open(newline="") as file:
        rows = {(row["condition"], row["severity"], row["metric"]): row for row in csv.DictReader(file)}
    fog = measured["corruptions"]["each"]["fog"]["5"]
    assert float(rows["fog", "5", "nll"]["value"]) == pytest.approx(fog["nll"], rel=1e-5)
    told_apart = measured["out_of_distribution"]["tiny_other"]["auroc_entropy"]
    assert float(rows["tiny_other", "", "auroc_entropy"]["value"]) == pytest.approx(told_apart, rel=1e-5)
    with np.load(probabilities) as file:
        assert file["log_probabilities"].shape == (20, 3)
    assert (report / "suite.csv").read_text() == numbers.read_text()
    assert "Other data, corrupted images" in (report / "index.html").read_text()
    about = json.loads((report / "metrics.json").read_text())
    assert about["suite"]["plug_in"] == measured["plug_in"]
    assert {"suite.csv", "corruptions_accuracy.png"} <= set(about["files"]) == {path.name for path in report.iterdir()}
    assert "--suite --ood tiny_other" in about["command"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--out", "a.csv"], "give --suite together with them"),
        (["--save-probabilities", "a.npz"], "give --suite together with them"),
        (["--suite", "--out", "no/a.csv"], "There is no folder 'no'"),
        (["--suite", "--save-probabilities", "."], "is a folder"),
        (
            ["--suite", "--report", "."],
            "is the current folder. It cannot be replaced",
        ),
        (["--suite", "--report", "/"], "is where a file system is mounted"),
        (["--suite", "--out", "a.csv"], "The suite is for classifiers of images"),
    ],
)
def test_a_suite_that_cannot_be_run_is_refused_in_one_line(arguments, says, tfp_bnn, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = tfp_bnn("evaluate", "mlp_flipout.iris", *arguments)
    assert (code, out) == (2, "")
    assert says in err
    assert list(tmp_path.iterdir()) == []

"""`tfp-bnn evaluate --report`, run as a user runs it."""

from __future__ import annotations

import json
import shlex
import shutil
import sys

import pytest

import zoo
from zoo.cli import main


@pytest.mark.slow
def test_report_has_the_numbers_that_are_printed(tmp_path, run):
    asked = ("evaluate", "mlp_flipout.iris", "--num-samples", 5, "--seed", 2)
    folder = tmp_path / "a report"
    text = run(*asked, "--report", folder)
    table, _, last = text.rstrip("\n").rpartition("\n")
    assert last == f"report: {folder / 'index.html'}"
    assert f"{table}\n" == run(*asked)
    numbers = json.loads((folder / "metrics.json").read_text())
    for line in table.splitlines():
        name, value = line.split()
        assert f"{numbers['metrics'][name]:.4f}" == value
    measured = json.loads(run(*asked, "--report", folder, "--overwrite", "--json"))
    assert measured.pop("report") == str(folder / "index.html")
    assert measured == json.loads(run(*asked, "--json"))


@pytest.mark.thorough
def test_the_command_on_the_page_makes_the_page_again(tiny_artifact, tmp_path, run):
    folder = tmp_path / "report"
    run("evaluate", tiny_artifact, "--trust", "--split", "validation", "--num-samples", 3, "--report", folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert b"Evaluation of mlp_flipout.tiny" in before["index.html"]
    program, *arguments = shlex.split(json.loads(before["metrics.json"])["command"])
    assert program == "tfp-bnn"
    shutil.rmtree(folder)
    run(*arguments)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.slow
def test_models_are_compared_and_the_page_has_the_command(tiny_artifact, tmp_path, run):
    options = [
        "--trust",
        "--split",
        "validation",
        "--num-samples",
        2,
        "--no-calibrated",
        "--report",
        tmp_path / "report",
    ]
    numbers = run("evaluate", tiny_artifact, "mlp_flipout.iris", *options, "--json")
    about = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert json.loads(numbers)["dataset"] == "iris"
    given = ["tfp-bnn", "evaluate", tiny_artifact, "mlp_flipout.iris", "--dataset", "iris", *options]
    assert sorted(shlex.split(about["command"])) == sorted(map(str, [*given, "--seed", 0]))


@pytest.mark.slow
def test_each_model_reads_its_own_columns_of_a_table(tmp_path, run):
    model, moons = zoo.load_model("mlp_flipout.moons"), zoo.load_dataset("moons").test
    names = list(model.class_names)
    swapped = tmp_path / "swapped"
    about = {"task": "classification", "class_names": names, "feature_names": ["x2", "x1"]}
    zoo.save_artifact(model, swapped, data=about)
    rows = [f"{a},{b},{names[label]}" for (a, b), label in zip(moons.x[:40], moons.y[:40], strict=True)]
    (tmp_path / "own.csv").write_text("\n".join(["x1,x2,label", *rows]))
    asked = ("--dataset", tmp_path / "own.csv", "--target", "label", "--trust", "--split", "all", "--json")
    alone = json.loads(run("evaluate", swapped, *asked))
    both = json.loads(run("evaluate", "mlp_flipout.moons", swapped, *asked, "--report", tmp_path / "report"))
    assert "On all rows of own: 40 examples" in (tmp_path / "report" / "index.html").read_text()
    assert both["split"] == json.loads((tmp_path / "report" / "metrics.json").read_text())["split"] == "all"
    assert both["mlp_flipout.moons/accuracy"] > 0.9
    assert both[f"{swapped}/accuracy"] == alone["accuracy"] < 0.8


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--overwrite"], 2, "give --report DIR together with it"),
        (["--ood", "wine"], 2, "give --report DIR or --suite together with it"),
        (["--report", "new", "--ood", "wine", "--ood", "digits"], 2, "can only be used once"),
        (["--report", "taken"], 2, "It is not an evaluation report"),
        (["--report", "taken", "--overwrite"], 2, "It is not an evaluation report"),
        (["--report", "taken/file/report"], 1, "file"),
        (["--report", "new", "--ood", "digits"], 2, "has inputs of shape (8, 8, 1)"),
        (["--report", "new", "--dataset", "diabetes"], 2, "for regression"),
        (["mlp_flipout.digits"], 2, "Several models can only be compared in a report: give --report DIR"),
        (["mlp_flipout.digits", "--report", "new", "--suite"], 2, "without --suite and --ood"),
        (
            ["mlp_flipout.digits", "--report", "new"],
            2,
            "mlp_flipout.iris on iris, mlp_flipout.digits on digits. Give",
        ),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(arguments, code, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("mine")
    monkeypatch.setattr(sys, "argv", ["tfp-bnn", "evaluate", "mlp_flipout.iris", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == code
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = [line for line in output.err.splitlines() if line.startswith("tfp-bnn: ")]
    assert says in line
    assert "Traceback" not in output.err
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
    assert (tmp_path / "taken" / "file").read_text() == "mine"

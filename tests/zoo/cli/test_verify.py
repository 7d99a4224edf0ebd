"""The command `verify`, run as a user runs it: what it prints, what it writes, and how it ends."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from zoo.cli import app, main
from zoo.datasets import DataMissingError
from zoo.evaluation import verification


@pytest.fixture
def artifact(calibrated_artifact: Path, tmp_path: Path) -> Path:
    """A copy to spoil, which `rewrite` works on."""
    return Path(shutil.copytree(calibrated_artifact, tmp_path / "artifact"))


def run(*arguments: object):
    return CliRunner().invoke(app, ["verify", *map(str, arguments)], catch_exceptions=False)


def spoil(artifact, rewrite):
    metrics = json.loads((artifact / "metrics.json").read_text())
    metrics["quick"]["test"]["nll"] += 1.0
    rewrite("metrics.json", json.dumps(metrics).encode())


# Golden outputs; 3 statements on the recipe, 3 sizes, the names of the spread, the number of test examples; and 6
# scores in the list, in the spread, on the test split and quick. Two of the sizes and 13 numbers need the data.
CHECKS, OF_DATA = 33, 13
MISSING = f"{{}} passed, 0 failed, {OF_DATA} not re-measured: data missing"


@pytest.fixture
def without_data(monkeypatch):
    def missing(name):
        raise DataMissingError(f"The dataset {name!r} is not prepared.")

    monkeypatch.setattr(verification, "load_dataset", missing)


def test_all_passed(artifact):
    result = run(artifact)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["model", "quantity", "card", "measured", "std.", "err.", "status"]
    assert lines[1].split()[0] == str(artifact)
    assert [line.split()[1] for line in lines[1:4]] == ["golden", "recipe/seed", "recipe/beta"]
    assert lines[-1] == f"{CHECKS} passed, 0 failed, 0 not re-measured: data missing"
    assert "verifying" in result.stderr


def test_json(artifact):
    report = json.loads(run(artifact, "--json").stdout)
    assert {key: report[key] for key in ("passed", "failed", "not_measured")} == {
        "passed": CHECKS,
        "failed": 0,
        "not_measured": 0,
    }
    assert {check["quantity"] for check in report["checks"]} >= {"golden", "quick/nll"}


def test_a_failure_ends_with_1_and_the_others_go_on(artifact, rewrite, calibrated_artifact):
    spoil(artifact, rewrite)
    result = run(artifact, calibrated_artifact)
    assert result.exit_code == 1
    (failed,) = [line for line in result.stdout.splitlines() if line.endswith("  failed")]
    assert "quick/nll" in failed
    assert result.stdout.splitlines()[-1] == f"{2 * CHECKS - 1} passed, 1 failed, 0 not re-measured: data missing"


def test_a_damaged_artifact_ends_with_1_and_the_others_go_on(artifact, calibrated_artifact):
    (artifact / "README.md").write_text("better than it is")
    result = run(artifact, calibrated_artifact)
    assert result.exit_code == 1
    assert "is not the one that was published" in result.stdout
    assert result.stdout.splitlines()[-1] == f"{CHECKS} passed, 1 failed, 0 not re-measured: data missing"


def test_missing_data_never_look_like_a_pass(artifact, without_data):
    result = run(artifact)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == MISSING.format(CHECKS - OF_DATA - 2)
    assert result.stdout.count("not re-measured: data missing: The dataset 'iris' is not prepared.") == OF_DATA


def test_missing_data_of_one_model_beside_another_that_was_measured(artifact, calibrated_artifact, monkeypatch):
    present = verification.load_dataset
    config = json.loads((artifact / "config.json").read_text())
    assert config["data"]["dataset"] == "iris"
    calls = []

    def missing_once(name):
        calls.append(name)
        # Once for the sizes, and once for each block.
        if len(calls) <= 4:
            raise DataMissingError("not there")
        return present(name)

    monkeypatch.setattr(verification, "load_dataset", missing_once)
    result = run(artifact, calibrated_artifact)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == MISSING.format(2 * CHECKS - OF_DATA - 2)


def test_results_are_what_was_measured(artifact, tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "test.csv").write_text("name,nll\nmlp_flipout.other,0.5\nmlp_flipout.tiny,0.5\n")
    result = run(artifact, "--full", "--results", tmp_path / "results")
    assert result.exit_code == 0, result.output
    with (tmp_path / "results" / "test.csv").open(newline="") as file:
        other, row = csv.DictReader(file)
    assert (other["name"], other["nll"]) == ("mlp_flipout.other", "0.5")
    metrics = json.loads((artifact / "metrics.json").read_text())
    assert row["name"] == "mlp_flipout.tiny"
    for name, value in metrics["test"].items():
        assert float(row[name]) == pytest.approx(value, rel=1e-4)
        assert float(row[f"{name}_uncalibrated"]) == pytest.approx(metrics["test_uncalibrated"][name], rel=1e-4)
        assert float(row[f"{name}_spread"]) == pytest.approx(metrics["spread"][name]["std"], rel=1e-4)
    outside = metrics["out_of_distribution"]
    assert row["ood_data"] == outside["data"]
    assert float(row["ood_mutual_information"]) == pytest.approx(outside["mutual_information"], rel=1e-4)
    assert float(row["kl"]) == pytest.approx(metrics["kl"]["total"], rel=1e-4)
    assert float(row["active_fraction"]) == pytest.approx(metrics["posterior"]["active_fraction"], rel=1e-4)
    temperature = json.loads((artifact / "config.json").read_text())["calibration"]["temperature"]
    assert float(row["temperature"]) == pytest.approx(temperature, rel=1e-4)
    assert row["scale"] == row["rmse"] == ""


def test_no_results_are_written_when_a_number_failed(artifact, rewrite, tmp_path):
    spoil(artifact, rewrite)
    result = run(artifact, "--full", "--results", tmp_path / "results")
    assert result.exit_code == 1
    assert not (tmp_path / "results").exists()
    assert "nothing was written" in result.stderr


def test_no_results_are_written_when_data_are_missing(artifact, without_data, tmp_path):
    result = run(artifact, "--full", "--results", tmp_path / "results")
    assert result.exit_code == 1
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["mlp_flipout.irs"], "Did you mean 'mlp_flipout.iris'"),
        (["mlp_flipout.iris", "--results", "x"], "give --full together with --results"),
    ],
)
def test_wrong_usage_ends_with_2_before_anything_is_measured(arguments, says, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tfp-bnn", "verify", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert says in output.err

"""The command `compare`: what it passes on, prints, and adds to other results."""

from __future__ import annotations

import json

import pytest

from zoo.evaluation.leaderboard import read_leaderboard, row_of

METRICS = {"num_samples": 1, "test": {"nll": 0.5}}


@pytest.fixture
def compared(monkeypatch):
    """The options of comparisons that train nothing."""
    options = []

    def compare(recipe, out, **given):
        options.append({"recipe": recipe, "out": out, **given})
        about = {"model": recipe, "inference": "map", "epochs": 1, "members": None, "cpu_seconds": 1.0}
        return [row_of(METRICS, **about)]

    monkeypatch.setattr("zoo.training.comparing.compare", compare)
    return options


def test_rows_are_printed_and_added_to_other_results(compared, tfp_bnn, tmp_path):
    options = ["--inference", "map", "--inference", "ensemble", "--grid", "beta=[0.1, 1]", "--set", "batch_size=8"]
    code, output, _ = tfp_bnn("compare", "a.b", "--out", tmp_path, *options, "--results", tmp_path / "r", "--resume")
    assert code == 0
    assert "| `a.b` | map | 1 | 1 | 0.5 | 1 |" in output
    assert [row["model"] for row in read_leaderboard(tmp_path / "r" / "leaderboard.csv")] == ["a.b"]
    (given,) = compared
    assert (given["inference"], given["grid"], given["resume"]) == (["map", "ensemble"], {"beta": (0.1, 1)}, True)
    assert given["overrides"] == {"batch_size": 8}
    code, output, _ = tfp_bnn("compare", "a.b", "--out", tmp_path, "--json")
    assert json.loads(output)[0]["nll"] == 0.5
    assert compared[1]["grid"] is None


def test_a_mistyped_method_is_answered_with_the_nearest(tfp_bnn, tmp_path):
    code, output, errors = tfp_bnn("compare", "mlp_flipout.iris", "--out", tmp_path, "--inference", "ensembel")
    assert (code, output) == (2, "")
    assert "Did you mean 'ensemble'" in errors

"""The benchmark of pruning: what its tables and its figure are made of."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def benchmark() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield importlib.import_module("pruning")
        del sys.modules["pruning"]


def row(network, by, fraction, accuracy, epochs=0, units=0):
    values = {"model": "a.b", "network": network, "by": by, "units": units, "fraction": fraction, "rounds": 1}
    values |= {
        "epochs_between": 0,
        "epochs": epochs,
        "learning_rate": 0.001,
        "draws": 5,
        "accuracy": accuracy,
        "nll": 0.1,
        "ece": 0.01,
        "bytes": 2048,
    }
    return {name: str(value) for name, value in {**values, "milliseconds": 1.5}.items()}


ROWS = [
    row("posterior", "magnitude", 0.0, 0.98),
    row("posterior", "kl", 0.9, 0.90),
    row("posterior", "kl", 0.5, 0.97),
    row("twin", "magnitude", 0.0, 0.99),
    row("twin", "magnitude", 0.5, 0.985),
    row("posterior", "kl", 0.5, 0.96, units=1),
]


def test_losses_are_those_against_the_whole_network_of_the_same_kind(benchmark):
    lines = benchmark.table(ROWS, "a.b").splitlines()[2:]
    assert [line.split("|")[4:7] for line in lines] == [
        [" 0 % ", " 98.00 ", "  "],
        [" 50 % ", " 97.00 ", " 1.00 "],
        [" 90 % ", " 90.00 ", " 8.00 "],
        [" 0 % ", " 99.00 ", "  "],
        [" 50 % ", " 98.50 ", " 0.50 "],
    ]
    assert "| 50 % | 96.00 | 2.00 |" in benchmark.table(ROWS, "a.b", units=True)
    assert benchmark.figure(ROWS, ["a.b"]).startswith(b"\x89PNG")


@pytest.mark.slow
def test_what_was_measured_is_not_measured_again(benchmark, tmp_path, monkeypatch, capsys):
    path = tmp_path / "results.csv"
    monkeypatch.setattr(benchmark, "TWINS", tmp_path)
    options = ["mlp_flipout.iris", "--results", str(path), "--draws", "2", "--fractions", "0", "0.5"]
    for _ in range(2):
        benchmark.main([*options, "--twin-epochs", "1"])
    rows = benchmark.read_results(path)
    assert [(row["network"], row["by"], row["fraction"]) for row in rows] == [
        ("posterior", "magnitude", "0.0"),
        ("posterior", "signal_to_noise", "0.5"),
        ("posterior", "kl", "0.5"),
        ("posterior", "magnitude", "0.5"),
        ("twin", "magnitude", "0.0"),
        ("twin", "magnitude", "0.5"),
    ]
    assert int(rows[3]["bytes"]) < int(rows[0]["bytes"])
    benchmark.main(
        [*options, "--networks", "posterior", "--by", "kl", "--units", "--epochs", "1", "--fractions", "0.5"]
    )
    assert benchmark.read_results(path)[-1]["units"] == "1"
    assert "mlp_flipout.iris" in capsys.readouterr().out

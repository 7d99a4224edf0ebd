"""The benchmark of speed: it runs beside a peer, and what its table and its figure are made of."""

from __future__ import annotations

import csv
import importlib.util
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import keras
import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks" / "bench"
REFERENCE, OURS = "tfp.layers, flipout", "ours, flipout"


@pytest.fixture
def module(monkeypatch) -> Iterator[ModuleType]:
    before = {*sys.modules}
    monkeypatch.syspath_prepend(FOLDER)
    yield importlib.import_module
    for name in {"growth", "networks", "of_keras", "report", "run"} - before:
        sys.modules.pop(name, None)


def reading(seconds, memory=100.0):
    return {"seconds": seconds, "cpu": seconds, "memory": memory}


def test_ratios_are_of_the_same_round(module):
    """The machine is slow in the third round, in which the reference is not read; the warm-up does not count."""
    readings = {
        (REFERENCE, "fit"): {0: reading(9.0), 1: reading(2.0), 2: reading(4.0)},
        (OURS, "fit"): {0: reading(8.0), 1: reading(1.0), 2: reading(3.0), 3: reading(50.0)},
        (OURS, "zoo"): {},
    }
    of_reference, ours, *_ = module("report").rows(readings, REFERENCE)
    assert (of_reference["ratio"], of_reference["median"]) == (1.0, 3.0)
    assert (ours["ratio"], ours["least ratio"], ours["most ratio"]) == (0.625, 0.5, 0.75)
    assert (ours["median"], ours["least"], ours["most"]) == (3.0, 1.0, 50.0)


def test_memory_is_that_before_the_loop_of_the_zoo(module):
    readings = {
        (REFERENCE, "one row"): {0: reading(1.0, memory=200.0), 1: reading(1.0, memory=210.0)},
        (OURS, "one row"): {0: reading(1.0, memory=300.0), 1: reading(1.0, memory=500.0)},
        (OURS, "zoo"): {0: reading(1.0, memory=500.0), 1: reading(1.0, memory=500.0)},
    }
    rows = module("report").rows(readings, REFERENCE)
    memory = {row["contestant"]: row for row in rows if row["measure"] == "memory"}
    assert memory[OURS]["median"] == 300.0
    assert memory[OURS]["ratio"] == 1.5


@pytest.mark.slow
def test_a_residual_network_has_the_weights_of_resnet20_whatever_its_layers(module):
    of_keras, networks = module("of_keras"), module("networks")
    layers = keras.layers.Conv2D, keras.layers.Dense
    model = keras.Model(*of_keras.graph(networks.NETWORKS["resnet20"], *layers))
    kernels = [layer.kernel for layer in model.layers if isinstance(layer, layers)]
    assert len(kernels) == 19 + 2 + 1
    assert sum(math.prod(kernel.shape) for kernel in kernels) == 270_896


def test_the_exponent_of_growth_is_that_of_the_last_two_sizes(module):
    rows = [{"measure": "step", "size": size, "seconds": seconds} for size, seconds in ((1, 5), (10, 6), (100, 600))]
    assert module("growth").table(rows).splitlines()[-1] == "| step | 1: 5, 10: 6, 100: 600 | 2.00 |"


def test_a_library_that_is_not_installed_is_named(module, tmp_path, monkeypatch, capsys):
    # Also where it is installed.
    (tmp_path / "torch.py").write_text('raise ModuleNotFoundError("No module named torch", name="torch")')
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert module("run").started("mlp", ["blitz"], sys.executable) == {}
    assert capsys.readouterr().out == "mlp: blitz is left out: torch is not installed.\n"


def test_a_contestant_that_fails_leaves_the_others_alone_and_has_no_answers(module, capsys):
    ((worker, answers),) = module("run").started("mlp", ["blitz"], "false").items()
    assert answers == worker.ask("fit", 1) == {}
    assert worker.failed
    worker.stop()
    assert "blitz failed" in capsys.readouterr().err


@pytest.mark.slow
def test_contestants_take_turns_and_those_that_are_missing_are_named(tmp_path):
    path = tmp_path / "found" / "bench.csv"
    command = [sys.executable, str(FOLDER / "run.py"), "--quick", "--networks", "mlp", "--results", str(path)]
    contestants = ["--contestants", REFERENCE, OURS, "ours, grouped flipout", "blitz"]
    run = subprocess.run([*command, *contestants], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "mlp: blitz is left out: give --torch-python." in run.stdout
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    measures = {"imports", "first step", "fit", "predict", "one row", "memory"}
    assert {row["measure"] for row in rows if row["contestant"] == REFERENCE} == measures
    assert {row["measure"] for row in rows if row["contestant"] == OURS} == {*measures, "predict again", "zoo"}
    # Grouped flipout is of convolutions.
    assert {row["contestant"] for row in rows} == {REFERENCE, OURS}
    assert all(float(row["median"]) > 0 for row in rows)
    assert all(float(row["ratio"]) == 1 for row in rows if row["contestant"] == REFERENCE and row["ratio"])
    assert f"| {OURS} |" in run.stdout
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.thorough
def test_growth_is_measured(tmp_path):
    path = tmp_path / "bench.csv"
    command = [sys.executable, str(FOLDER / "run.py"), "--quick", "--growth", "--results", str(path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    with path.with_stem("bench_growth").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len({row["measure"] for row in rows}) == 7
    assert all(float(row["seconds"]) > 0 for row in rows)

"""The benchmark of active learning: what its table and its figure are made of."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def benchmark() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield importlib.import_module("active_learning")
        del sys.modules["active_learning"]


def rows_of(accuracies):
    return [
        {"by": by, "seed": str(seed), "labels": str(labels), "accuracy": str(accuracy), "nll": "1"}
        for by, of_seeds in accuracies.items()
        for seed, of_rounds in enumerate(of_seeds)
        for labels, accuracy in zip((30, 40), of_rounds, strict=True)
    ]


def test_the_difference_to_random_choice_is_paired_by_seed(benchmark):
    """Seeds differ by ten points, but BALD is two and four points better in each."""
    rows = rows_of({"bald": [[0.52, 0.62], [0.64, 0.74]], "random": [[0.5, 0.6], [0.6, 0.7]]})
    _, _, bald, random = benchmark.table(rows).splitlines()
    assert bald == "| `bald` | 2 | 68.0 ± 8.5 | 63.0 ± 8.5 | +3.0 ± 1.4 |"
    assert random == "| `random` | 2 | 65.0 ± 7.1 | 60.0 ± 7.1 |  |"


def test_the_figure_is_a_png(benchmark):
    rows = rows_of({by: np.random.default_rng(0).uniform(size=(2, 2)) for by in benchmark.ACQUISITIONS})
    assert benchmark.figure(rows).startswith(b"\x89PNG")


@pytest.mark.slow
def test_runs_of_a_seed_start_alike_and_those_that_exist_are_not_repeated(benchmark, tmp_path, monkeypatch):
    for name, number in {"STEPS": 2, "DRAWS": 2, "MOST_LABELS": 30}.items():
        monkeypatch.setattr(benchmark, name, number)
    path = tmp_path / "results.csv"
    for acquisitions in (["bald"], ["bald", "random"]):
        benchmark.run(path, [0], acquisitions)
    rows = benchmark.read_results(path)
    assert [(row["by"], row["labels"]) for row in rows] == [
        ("bald", "20"),
        ("bald", "30"),
        ("random", "20"),
        ("random", "30"),
    ]
    assert rows[0]["nll"] == rows[2]["nll"]

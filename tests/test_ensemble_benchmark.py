"""The benchmark of an ensemble, SWAG and Laplace: the guide has the table of its results."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("ensemble_and_laplace")


def test_the_guide_has_the_table_of_the_results(benchmark):
    assert benchmark.table(benchmark.read_results(benchmark.RESULTS)) in (ROOT / "docs/inference.md").read_text("utf-8")


def test_differences_are_paired_by_seed(benchmark):
    results = [
        {"method": method, "seed": seed, "nll": str(nll), "accuracy": "0.5", "ece": "0.1", "auroc": "0.9"}
        for seed, of_map, of_others in (("0", 0.30, 0.28), ("1", 0.50, 0.47))
        for method, nll in [("MAP", of_map), *((other, of_others) for other in benchmark.METHODS if other != "MAP")]
    ]
    # -0.02 and -0.03.
    assert "| SWAG | 2 | 0.5000 | 0.3750 | -0.0250 ± 0.0071 | 0.1000 | 0.900 |" in benchmark.table(results)

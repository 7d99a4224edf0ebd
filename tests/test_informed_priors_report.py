"""The guide of informed priors shows what the benchmark found, and the claims that it makes of it are true."""

from __future__ import annotations

import csv
import importlib.util
import statistics
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
METHODS = ["informed prior", "default prior", "no KL", "deterministic", "linear probe"]


@pytest.fixture(scope="module")
def report():
    spec = importlib.util.spec_from_file_location("informed_priors_report", BENCHMARKS / "informed_priors_report.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows():
    with (BENCHMARKS / "results" / "informed_priors.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_pair_size_and_method_has_three_seeds(rows):
    seeds = {}
    for row in rows:
        seeds.setdefault((row["pair"], row["size"], row["method"]), []).append(row["seed"])
    assert len(seeds) == 3 * 3 * 5
    assert all(sorted(of) == list("012") for of in seeds.values())


def test_the_guide_shows_the_results(report, rows, tmp_path, monkeypatch):
    guide = tmp_path / report.GUIDE.name
    guide.write_text(report.GUIDE.read_text("utf-8"), "utf-8")
    monkeypatch.setattr(report, "GUIDE", guide)
    pairs = list(dict.fromkeys(row["pair"] for row in sorted(rows, key=lambda row: row["pair"] != "MNIST 0-4 to 5-9")))
    pairs = [pairs[0], *sorted(pairs[1:])]
    report.write_report(rows, pairs, METHODS)
    assert guide.read_text("utf-8") == (BENCHMARKS.parent / "docs" / guide.name).read_text("utf-8")
    assert (tmp_path / "informed_priors.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("pair", "size", "least"),
    [
        ("MNIST 0-4 to 5-9", 10, "informed prior"),
        ("MNIST to Fashion-MNIST", 10, "informed prior"),
        ("digits to MNIST", 10, "informed prior"),
        ("MNIST 0-4 to 5-9", 100, "informed prior"),
        ("MNIST to Fashion-MNIST", 1000, "deterministic"),
        ("digits to MNIST", 100, "deterministic"),
        ("digits to MNIST", 1000, "deterministic"),
    ],
)
def test_the_least_nll_is_where_the_guide_says(rows, pair, size, least):
    means = {
        method: statistics.mean(
            float(row["nll"]) for row in rows if (row["pair"], row["size"], row["method"]) == (pair, str(size), method)
        )
        for method in METHODS
    }
    assert min(means, key=means.__getitem__) == least, means

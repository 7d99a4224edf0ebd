"""The guide of informed priors shows what the benchmark found, and the claims that it makes of it are true."""

from __future__ import annotations

import csv
import importlib.util
import statistics
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
METHODS = ["informed prior", "default prior", "deterministic"]


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


def test_every_pair_size_and_method_has_five_seeds(rows):
    seeds = {}
    for row in rows:
        seeds.setdefault((row["pair"], row["size"], row["method"]), []).append(row["seed"])
    assert len(seeds) == 3 * 7 * 3
    assert all(sorted(of) == list("01234") for of in seeds.values())


def test_the_guide_shows_the_results(report, rows, tmp_path, monkeypatch):
    guide = tmp_path / report.GUIDE.name
    guide.write_text(report.GUIDE.read_text("utf-8"), "utf-8")
    monkeypatch.setattr(report, "GUIDE", guide)
    pairs = list(dict.fromkeys(row["pair"] for row in sorted(rows, key=lambda row: row["pair"] != "MNIST 0-4 to 5-9")))
    pairs = [pairs[0], *sorted(pairs[1:])]
    report.write_report(rows, pairs, METHODS)
    assert guide.read_text("utf-8") == (BENCHMARKS.parent / "docs" / guide.name).read_text("utf-8")
    assert (tmp_path / "informed_priors.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("score", "sign", "sizes"), [("nll", 1, (10, 20, 50, 100, 200)), ("accuracy", -1, (100, 200))])
def test_on_the_split_pair_the_informed_prior_wins_where_it_is_said_to(rows, score, sign, sizes):
    for size in sizes:
        means = {
            method: statistics.mean(
                sign * float(row[score])
                for row in rows
                if (row["pair"], row["size"], row["method"]) == ("MNIST 0-4 to 5-9", str(size), method)
            )
            for method in METHODS
        }
        assert min(means, key=means.__getitem__) == "informed prior", (size, means)

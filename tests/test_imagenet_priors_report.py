"""The guide of priors from ImageNet shows what the benchmark found."""

from __future__ import annotations

import importlib.util
from pathlib import Path

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def test_the_guide_shows_the_results():
    spec = importlib.util.spec_from_file_location("imagenet_priors_report", BENCHMARKS / "imagenet_priors_report.py")
    report = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(report)
    rows = report.read_results(report.RESULTS)
    assert rows
    assert {row["method"] for row in rows} <= set(report.METHODS)
    for score in report.SCORES:
        assert report.table(rows, score) in report.GUIDE.read_text("utf-8")

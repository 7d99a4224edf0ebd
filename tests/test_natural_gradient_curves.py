"""The benchmark of curves under the natural gradient: what it trains, measures once and draws."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import zoo
from zoo.recipes import load_recipe

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def curves() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield importlib.import_module("natural_gradient_curves")
        del sys.modules["natural_gradient_curves"]


def test_recipes_are_valid(curves):
    for network in curves.NETWORKS:
        for method in curves.METHODS:
            load_recipe(curves.recipe_of(network, method, 10, 0))


@pytest.mark.slow
def test_a_curve_has_a_point_for_each_epoch_and_is_not_trained_again(curves, steps_run_eagerly, monkeypatch, tmp_path):
    digits = zoo.load_dataset("digits")
    images = dataclasses.replace(digits, train=zoo.datasets.Split(digits.train.x[:60], digits.train.y[:60]))
    tiny = {"architecture": "mlp_flipout", "dataset": "digits"}
    monkeypatch.setattr(curves, "NETWORKS", {"tiny": curves.Network(tiny, 0.02, {"curvature_rate": 2e-3})})
    monkeypatch.setattr(curves.zoo, "load_dataset", lambda name: images)
    monkeypatch.setattr(curves, "VALIDATION_ROWS", 20)
    path, methods = tmp_path / "curves.csv", ["natural gradient, flipout", "SGD, points"]
    for _ in range(2):
        curves.run(path, ["tiny"], methods, epochs=2, rows=50, seeds=1)
    rows = curves.read_results(path)
    assert [(row["method"], row["rows"], row["epoch"]) for row in rows] == [
        (method, "50", epoch) for method in methods for epoch in ("1", "2")
    ]
    first, second = (float(row["cpu_seconds"]) for row in rows[:2])
    assert 0 < first < second
    assert np.isfinite([float(row["nll"]) for row in rows]).all()
    (panel,) = curves.draw(rows).axes
    assert [line.get_label() for line in panel.lines] == methods

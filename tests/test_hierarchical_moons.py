"""The benchmark of partial pooling: what it compares, and what it prints."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import keras
import numpy as np
import pytest

import tfp_bnn

FILE = Path(__file__).parent.parent / "benchmarks" / "hierarchical_moons.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("hierarchical_moons", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.thorough
def test_prints_a_table_of_the_three_approaches(benchmark, capsys):
    code = benchmark.main(["--seeds", "1", "--first-seed", "100", "--steps", "4", "--num-samples", "2"])
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [row[0].strip() for row in rows[2:]] == list(benchmark.APPROACHES)
    means = np.array([[float(cell.split("±")[0]) for cell in row[1:3]] for row in rows[2:]])
    assert ((means[:, 0] >= 0) & (means[:, 0] <= 1)).all()
    for row in rows[3:]:
        assert all(re.fullmatch(r"[01] of 1 seeds", cell.strip()) for cell in row[3:])
    # Means are rounded to three digits: leave ties alone.
    gains = (means[0] - means[1:]) * (1, -1)
    if (np.abs(gains) > 0.001).all():
        assert code == (0 if (gains > 0).all() else 1)


def test_the_separate_networks_share_nothing(benchmark):
    keras.utils.set_random_seed(0)
    model = tfp_bnn.VariationalModel(*benchmark.separate_networks(2.0), seed=0)
    x, group = np.ones((18, 2), "float32"), np.arange(18)
    before = model.plug_in_predictive([x, group]).mean()
    assert len(np.unique(before[:, 0])) == 18
    for layer in model.variational_layers:
        values = layer.group_kernel.numpy()
        values[3] += 1.0
        layer.group_kernel.assign(values)
    moved = (model.plug_in_predictive([x, group]).mean() != before).any(axis=1)
    np.testing.assert_array_equal(np.flatnonzero(moved), [3])
    names = {variable.name for variable in model.trainable_variables}
    assert names == {f"group_{w}_{of}" for w in ("kernel", "bias") for of in ("loc", "untransformed_scale")}


def test_the_pooled_network_does_not_see_the_group(benchmark):
    model = tfp_bnn.VariationalModel(*benchmark.pooled_network(2.0), seed=0)
    x = np.ones((2, 2), "float32")
    one, other = model.plug_in_predictive([x, np.array([0, 17])]).mean()
    np.testing.assert_array_equal(one, other)

"""The benchmark of grouped flipout: what its tables are made of, and what it measures."""

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
        yield importlib.import_module("grouped_flipout")
        del sys.modules["grouped_flipout"]


def test_variances_are_divided_by_those_of_flipout_in_a_batch_of_the_same_order(benchmark):
    variances = {("flipout", "shuffled"): 2, ("flipout", "sorted"): 4, ("other", "shuffled"): 3, ("other", "sorted"): 3}
    rows = [
        {"network": "a", "rows": "9", "epochs": "1", "draws": "5", "estimator": estimator, "batch": batch}
        | {"layer": "all", "variance": str(value)}
        for (estimator, batch), value in variances.items()
    ]
    assert benchmark.variance_table(rows).splitlines()[-3:] == [
        "| flipout | sorted | 1.00 |",
        "| other | shuffled | 1.50 |",
        "| other | sorted | 0.75 |",
    ]


def test_the_table_of_the_elbo_has_means_and_spreads_over_seeds(benchmark):
    rows = [
        {"estimator": "flipout", "seed": str(seed), "elbo": str(elbo), "kl": "7", "test_nll": "0.5"}
        for seed, elbo in enumerate((-1.0, -2.0, -3.0))
    ]
    line = benchmark.elbo_table(rows).splitlines()[-1]
    assert line == "| flipout | 3 | -2.0000 ± 1.0000 | 7 ± 0 | 0.5000 ± 0.0000 |"


@pytest.mark.slow
def test_draws_of_the_gradient_are_of_new_noise_and_of_each_layer(benchmark):
    model = benchmark.build("SeedCNN", "grouped, K = 4")
    rng = np.random.default_rng(0)
    x, y = rng.random((8, 28, 28, 1), np.float32), rng.integers(10, size=8)
    draws = benchmark.gradient_draws(model, x, y, draws=2)
    assert list(draws) == ["conv1", "conv2", "dense1", "logits"]
    for layer in model.variational_layers:
        first, second = draws[layer.name]
        assert first.size == np.prod(layer.variational_weights["kernel"].shape)
        assert (first != second).any()

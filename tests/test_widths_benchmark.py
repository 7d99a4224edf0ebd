"""The benchmark of widths: what its table and its figure are made of."""

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
        yield importlib.import_module("widths")
        del sys.modules["widths"]


def row(images, scale_of_each, seed, nats, dense1, small_nll):
    values = {
        "network": "mlp",
        "images": images,
        "scale_of_each": scale_of_each,
        "beta": 0.1,
        "seed": seed,
        "nats": nats,
    }
    values |= {"units": f"{dense1} {2 * dense1}", "accuracy": 0.9, "nll": 0.5, "weights": 100 * dense1}
    values |= {"small_accuracy": 0.8 if small_nll else "", "small_nll": small_nll, "cpu_seconds": 1}
    return {name: str(value) for name, value in values.items()}


def test_seeds_are_averaged_and_a_network_of_which_nothing_is_left_has_no_scores(benchmark):
    rows = [
        row(5000, "unit", 0, 1, 60, 0.4),
        row(500, "layer", 0, 1, 0, ""),
        row(500, "unit", 0, 1, 10, 0.6),
        row(500, "unit", 1, 1, 14, 0.8),
    ]
    lines = benchmark.table(rows, "mlp").splitlines()[2:]
    assert lines == [
        "| 500 | unit | 1 | 2 | 10 to 14, 20 to 28 | 1,200 | 90.00 | 80.00 | 0.500 | 0.700 |",
        "| 500 | layer | 1 | 1 | 0, 0 | 0 | 90.00 | nan | 0.500 | nan |",
        "| 5,000 | unit | 1 | 1 | 60, 120 | 6,000 | 90.00 | 80.00 | 0.500 | 0.400 |",
    ]
    assert benchmark.figure(rows).startswith(b"\x89PNG")


def test_the_networks_have_the_layers_that_the_table_names(benchmark):
    for network, sizes in benchmark.NETWORKS.items():
        model = benchmark.untrained(network, benchmark.PRIORS["unit"], seed=0)
        hidden = {layer.name: layer.output.shape[-1] for layer in model.variational_layers[:-1]}
        assert hidden == sizes

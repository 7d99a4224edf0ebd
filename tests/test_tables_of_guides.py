"""Tables in guides are those that the benchmarks make of the results in the repository."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


def elbo_of_grouped_flipout(module: ModuleType) -> str:
    return module.elbo_table(module.read_results(module.RESULTS / "grouped_flipout_elbo.csv"))


def widths_at_small_beta(module: ModuleType) -> str:
    rows = [row for row in module.read_results(module.RESULTS) if float(row["beta"]) == 0.1]
    return "\n".join(module.table(rows, network) for network in module.NETWORKS)


def pruning_of_each_model(module: ModuleType) -> str:
    rows = module.read_results(module.RESULTS)
    units = [module.table(rows, "mlp_flipout.mnist", units=True)]
    return "\n".join([module.table(rows, model) for model in module.MODELS] + units)


def plain(module: ModuleType) -> str:
    return module.table(module.read_results(module.RESULTS))


@pytest.mark.parametrize(
    ("guide", "benchmark", "table_of"),
    [
        ("acquisition", "active_learning", plain),
        ("compression", "pruning", pruning_of_each_model),
        ("compression", "widths", widths_at_small_beta),
        ("deep_nets", "grouped_flipout", elbo_of_grouped_flipout),
        ("natural_gradient", "natural_gradient", plain),
    ],
)
def test_every_row_is_in_the_guide(
    guide: str, benchmark: str, table_of: Callable[[ModuleType], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    rows = [line for line in table_of(importlib.import_module(benchmark)).splitlines() if line.startswith("|")]
    del sys.modules[benchmark]
    shown = (ROOT / "docs" / f"{guide}.md").read_text("utf-8").splitlines()
    assert len(rows) > 3
    assert [row for row in rows if row not in shown] == []

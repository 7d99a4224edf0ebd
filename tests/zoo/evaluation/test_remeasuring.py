"""Measuring a card again, with the weights as they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from zoo.evaluation.remeasuring import measure_again, moved_spread
from zoo.evaluation.verification import Status, verify
from zoo.hub.reading import read_artifact


@pytest.fixture
def artifact(calibrated_artifact: Path, tmp_path: Path) -> Path:
    """A copy to spoil, which `rewrite` works on."""
    return Path(shutil.copytree(calibrated_artifact, tmp_path / "artifact"))


@pytest.mark.slow
def test_a_card_with_wrong_numbers_is_right_afterwards(artifact, rewrite):
    before = read_artifact(artifact)
    wrong = {**before["metrics"]["test"], "nll": 9.0}
    rewrite("metrics.json", json.dumps({**before["metrics"], "test": wrong}).encode())
    golden = {"inputs": before["golden"]["inputs"], "mean": before["golden"]["mean"] + 1}
    rewrite("golden.safetensors", safetensors.numpy.save(golden))
    assert {check.quantity for check in verify(artifact) if check.status is Status.FAILED} >= {"test/nll", "golden"}
    assert measure_again(artifact) == artifact
    after = read_artifact(artifact)
    assert after["metrics"]["test"] == pytest.approx(before["metrics"]["test"], rel=1e-5)
    assert f"| nll | {before['metrics']['test']['nll']:.4g} |" in after["card"]
    np.testing.assert_allclose(after["golden"]["mean"], before["golden"]["mean"], rtol=1e-5)
    for key in ("beta", "training_seeds", "seed", "num_samples"):
        assert after["metrics"][key] == before["metrics"][key]
    assert {check.quantity for check in verify(artifact) if check.status is not Status.PASSED} <= {
        f"spread/{name}" for name in wrong
    }


def test_the_spread_moves_with_the_first_seed():
    values, new = np.array([[1.0, 0.5], [2.0, 0.5], [6.0, 0.8]]), {"nll": 1.5, "accuracy": 0.5}
    before = {
        "test": {"nll": 1.0, "accuracy": 0.5},
        "training_seeds": [0, 1, 2],
        "spread": {
            name: {"mean": float(values[:, k].mean()), "std": float(values[:, k].std(ddof=1))}
            for k, name in enumerate(("nll", "accuracy"))
        },
    }
    moved = moved_spread(before, new)
    assert moved["nll"] == pytest.approx({"mean": np.mean([1.5, 2, 6]), "std": np.std([1.5, 2, 6], ddof=1)})
    assert moved["accuracy"] == pytest.approx(before["spread"]["accuracy"])

"""MNIST-1D is generated with the same rows each time, without a trace in the generators of the program."""

from __future__ import annotations

import random
import sys

import numpy as np
import pytest

from zoo.datasets import DataMissingError, load_dataset

from .test_datasets import digest

# To four decimals: sums may differ in the last bits between platforms.
PINNED = [
    (3200, "4891ed96a79597318911307bc8ea2bf5db5b7a6a456a0b2995323e2cbcae6888"),
    (800, "543f4ad62ce111f35600904b93f540c604038d7fc7b2de2a1ab30983d6625878"),
    (1000, "c47aa1d26d8ed68bd5a4cb69332a51d653b981020eb31e969bf985865a0e9ef4"),
]


def test_without_its_package_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "mnist1d", None)
    monkeypatch.delitem(sys.modules, "mnist1d.data", raising=False)
    with pytest.raises(DataMissingError, match=r"pip install 'tfp_bnn\[mnist1d\]'"):
        load_dataset("mnist1d")


@pytest.mark.slow
def test_splits_are_the_pinned_ones_and_no_generator_moves():
    pytest.importorskip("mnist1d")
    before = random.getstate(), np.random.get_state()
    dataset = load_dataset("mnist1d")
    assert random.getstate() == before[0]
    np.testing.assert_equal(np.random.get_state(), before[1])
    splits = [dataset.train, dataset.validation, dataset.test]
    assert [(len(split), digest(split, 4)) for split in splits] == PINNED
    every_x, every_y = (np.concatenate([getattr(split, part) for split in splits]) for part in ("x", "y"))
    assert every_x.dtype == np.float32
    np.testing.assert_allclose((every_x.mean(), every_x.std()), (0, 1), atol=1e-5)
    assert np.bincount(every_y).tolist() == [500] * 10

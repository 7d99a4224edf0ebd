"""Pruned weights are stored without their values, and come back bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from tfp_bnn.models.packed_weights import packed, unpacked
from tfp_bnn.models.weight_record import WeightRecord

MOST = 10**6
RNG = np.random.default_rng(0)


def record_of(*, shape=(5, 7), share=0.9):
    mask = (RNG.uniform(size=shape) > share).astype(np.float32)
    mask.flat[0] = 1
    loc, scale = RNG.normal(size=shape), RNG.uniform(0.1, 1, size=shape)
    eps = np.float32(np.finfo(np.float32).eps)
    arrays = {
        "a/kernel/loc": np.where(mask, loc, 0).astype(np.float32),
        "a/kernel/scale": np.where(mask, scale, eps).astype(np.float32),
        "a/kernel/mask": mask,
        "a/kernel/prior_scale": np.float32(0.3),
        "a/bias": np.ones(7, np.float32),
    }
    return WeightRecord.from_arrays(arrays)


def test_a_record_comes_back_bit_for_bit():
    record = record_of()
    small = packed(record, MOST)
    assert small.arrays()["a/kernel/loc"].size == np.count_nonzero(record.arrays()["a/kernel/mask"])
    assert small.arrays()["a/kernel/kept"].nbytes == 5  # 35 bits
    found = unpacked(WeightRecord.from_arrays(small.arrays()), MOST).arrays()
    assert found.keys() == record.arrays().keys()
    for name, array in record.arrays().items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


@pytest.mark.parametrize("share", [-1.0])
def test_what_has_nothing_pruned_stays_as_it_is(share):
    record = record_of(share=share)
    assert packed(record, 0).arrays().keys() == record.arrays().keys()
    assert unpacked(record, 0).arrays().keys() == record.arrays().keys()


def test_what_can_be_packed_can_be_unpacked():
    record = record_of()
    size = sum(array.nbytes for array in record.arrays().values())
    unpacked(packed(record, size), size)
    for call in (lambda: packed(record, size - 1), lambda: unpacked(packed(record, size), size - 1)):
        with pytest.raises(ValueError, match=f"take {size} bytes when they are unpacked; at most {size - 1} can"):
            call()


def test_a_few_bytes_cannot_ask_for_much_memory():
    arrays = packed(record_of(), MOST).arrays()
    with pytest.raises(ValueError, match="when they are unpacked; at most 100 can"):
        unpacked(WeightRecord.from_arrays(arrays), 100)
    arrays["a/kernel/shape"] = np.array([2**30, 2**30], np.int32)
    with pytest.raises(ValueError, match=r"a/kernel is stored without its pruned weights, but 'kept' and 'shape'"):
        unpacked(WeightRecord.from_arrays(arrays), MOST)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("shape", np.array([5, 0], np.int32), "do not fit"),
        ("shape", np.array([35], np.int64), "do not fit"),
        ("shape", np.int32(35), "do not fit"),
        ("shape", None, "do not fit"),
        ("kept", None, "do not fit"),
        ("kept", np.zeros(4, np.uint8), "do not fit"),
        ("kept", np.full(5, 255, np.uint8), "bits beyond the last of its 35 weights"),
        ("loc", np.zeros(3, np.float32), "float32 values of 'loc' or 'scale' were expected"),
        ("loc", np.zeros(4, np.float64), "float32 values of 'loc' or 'scale' were expected"),
        ("other", np.zeros(4, np.float32), "float32 values of 'loc' or 'scale' were expected"),
    ],
)
def test_parts_that_do_not_fit_are_refused(name, value, message):
    arrays = packed(record_of(), MOST).arrays() | {f"a/kernel/{name}": value}
    arrays = {key: array for key, array in arrays.items() if array is not None}
    with pytest.raises(ValueError, match=message):
        unpacked(WeightRecord.from_arrays(arrays), MOST)

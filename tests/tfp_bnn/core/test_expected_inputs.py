"""Inputs that cannot be right are noticed, those of the same kind are not."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tfp_bnn import ExpectedInputs

RNG = np.random.default_rng(0)
NAMES = ("length", "width")
TABLE = np.stack([RNG.uniform(4, 8, 500), RNG.uniform(0.1, 2.5, 500)], axis=1)
# Light strokes on dark ground.
IMAGES = (RNG.random((200, 6, 6, 1)) < 0.2) * RNG.uniform(128, 255, (200, 6, 6, 1))
OF_TABLE, OF_IMAGES = ExpectedInputs.of(TABLE, NAMES), ExpectedInputs.of(IMAGES)


def test_the_moments_are_those_of_columns_and_of_the_means_of_images():
    np.testing.assert_allclose(OF_TABLE.mean, TABLE.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(OF_TABLE.std, TABLE.std(axis=0), rtol=1e-5)
    means = IMAGES.mean(axis=(1, 2))
    np.testing.assert_allclose([OF_IMAGES.mean, OF_IMAGES.std], [means.mean(axis=0), means.std(axis=0)], rtol=1e-5)
    np.testing.assert_allclose([OF_IMAGES.low, OF_IMAGES.high], [[0], [IMAGES.max()]], rtol=1e-5)


def test_inputs_of_the_same_kind_are_fine_alone_and_together():
    for expected, x in ((OF_TABLE, TABLE), (OF_IMAGES, IMAGES)):
        assert expected.complaint(x) is None
        assert [expected.complaint(row[None]) for row in x[:50]] == [None] * 50
    assert OF_TABLE.complaint(TABLE, NAMES) is None
    # One odd row in fifty is no mistake of all.
    assert OF_TABLE.complaint(np.concatenate([TABLE[:49], [[30.0, 1.0]]])) is None


@pytest.mark.parametrize(
    "x",
    [
        np.linspace(1_699_999_000, 1_700_001_000, 21)[:, None],
        np.full((20, 1), 12_345_678),
        np.arange(20_240_101, 20_240_283)[:, None],
        np.full((20, 1), 0.1, np.float32),
        np.full((20, 1), 1 / 3),
        np.linspace(-(2**15), 2**15 - 1, 40).astype(np.int16).reshape(2, 20, 1),
    ],
)
def test_training_inputs_are_fine_whatever_digits_and_type_they_have(x):
    assert ExpectedInputs.of(x).complaint(x) is None
    assert ExpectedInputs.of(x).complaint(x.astype(np.float32)) is None
    assert ExpectedInputs.of(x).complaint(x[-1:]) is None


@pytest.mark.parametrize(
    ("expected", "x", "says"),
    [
        (OF_IMAGES, IMAGES / 255, "values run from 0 to .*, those of training from 0 to .*Were they rescaled already"),
        (OF_IMAGES, IMAGES[:1] / 255, "Were they rescaled already"),
        (OF_IMAGES, (IMAGES - 33) / 60, "Were they rescaled already"),
        (OF_IMAGES, IMAGES.max() - IMAGES, "the mean of a pixel is .*Are light and dark exchanged"),
        (OF_IMAGES, IMAGES.max() - IMAGES[:1], "Are light and dark exchanged"),
        (OF_IMAGES, IMAGES * 257, r"100% of them have values far outside .*Check the scale of the pixels"),
        (OF_IMAGES, np.clip(IMAGES + 120, 0, 255), "Check how the images were made"),
        (OF_TABLE, TABLE[:, ::-1], r"100% of them .*the column 'length' runs from .*in training from 4.*order of the"),
        (OF_TABLE, TABLE[:1] * 100, "Check the units and the order of the columns"),
        (ExpectedInputs.of(TABLE), TABLE * [1, 9], "column 1 runs from"),
    ],
)
def test_inputs_that_cannot_be_right_are_described_with_both_numbers(expected, x, says):
    assert re.search(says, expected.complaint(x))


def test_columns_of_other_names_are_described():
    says = OF_TABLE.complaint(TABLE, NAMES[::-1])
    assert says.startswith(
        "the columns are 'width', 'length', but the model was trained on 'length', 'width', in another"
    )
    assert "trained on 'length', 'width'. Select them by name" in OF_TABLE.complaint(TABLE, ("a", "b"))


def test_a_column_whose_values_stay_in_range_is_judged_by_its_mean():
    skewed = np.concatenate([RNG.normal(0, 0.01, 990), [100.0] * 10])[:, None]
    assert ExpectedInputs.of(skewed).complaint(np.full((20, 1), 99.0)).startswith("the mean of column 0 is 99, in ")


def test_inputs_without_columns_of_that_number_are_not_judged():
    assert OF_TABLE.complaint(np.zeros((3, 5))) is None
    assert OF_TABLE.complaint(np.zeros(2)) is None


@pytest.mark.parametrize("expected", [OF_TABLE, OF_IMAGES])
def test_the_config_brings_it_back(expected):
    assert ExpectedInputs.from_config(expected.get_config()) == expected


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"low": [1.0]}, "finite number for each"),
        ({"mean": [float("nan"), 1.0]}, "finite number for each"),
        ({"std": [True, 1.0]}, "finite number for each"),
        ({"std": [-1.0, 1.0]}, "nor `std` below 0"),
        ({"low": [9.0, 0.0]}, "must not be above"),
        ({"names": ["length"]}, "1 names for 2 columns"),
        ({"names": "ab"}, "list of strings"),
        ({"high": "89"}, "lists of numbers"),
        ({"sum": [1.0]}, "Expected 'low'"),
    ],
)
def test_a_config_that_is_none_is_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        ExpectedInputs.from_config({**OF_TABLE.get_config(), **changes})

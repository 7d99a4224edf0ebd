"""Batches are functions of (epoch, step): any order of asking gives the same ones, and so does a resumed run."""

from __future__ import annotations

import numpy as np
import pytest

from zoo.datasets import Split
from zoo.recipes import AugmentationRecipe
from zoo.training.batches import EpochsInARow, ListedBatches, ShuffledBatches, equal_epochs

# 10 images of 3 x 3 pixels; each is its own number.
X = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1) * np.ones((3, 3, 1), np.uint8)
SPLIT = Split(X, np.arange(10))


def epoch_of(batches, epoch):
    return [batches.batch(epoch, step) for step in range(batches.steps(epoch))]


def test_an_epoch_has_every_row_once_and_no_two_epochs_have_the_same_order():
    batches = ShuffledBatches(SPLIT, batch_size=4, epochs=3, seed=0)
    orders = []
    for epoch in range(3):
        found = epoch_of(batches, epoch)
        assert [len(x) for x, _ in found] == [4, 4, 2]
        orders.append(np.concatenate([y for _, y in found]))
        np.testing.assert_array_equal(np.concatenate([x[:, 0, 0, 0] for x, _ in found]), orders[-1])
        assert sorted(orders[-1]) == list(range(10))
    assert len({order.tobytes() for order in orders}) == 3
    assert [batches.steps_before(epoch) for epoch in range(4)] == [0, 3, 6, 9]


def test_a_batch_does_not_depend_on_those_that_were_asked_for_before():
    augmentation = AugmentationRecipe(shift=1, flip=True, rotation=20.0)
    first, second = (ShuffledBatches(SPLIT, 4, 2, seed=3, augmentation=augmentation) for _ in range(2))
    in_order = {(epoch, step): first.batch(epoch, step) for epoch in range(2) for step in range(3)}
    for place in [(1, 2), (0, 0), (1, 0), (0, 2), (0, 1), (1, 1)]:
        for part, expected in zip(second.batch(*place), in_order[place], strict=True):
            assert part.dtype == expected.dtype
            np.testing.assert_array_equal(part, expected)
    another = ShuffledBatches(SPLIT, 4, 2, seed=4, augmentation=augmentation)
    assert not np.array_equal(another.batch(0, 0)[1], in_order[0, 0][1])


def test_listed_rows_are_divided_into_at_most_ten_parts():
    rows = np.arange(46).reshape(23, 2) % 10
    batches = ListedBatches(SPLIT, rows)
    assert [batches.steps(epoch) for epoch in range(batches.epochs)] == [3] * 7 + [2]
    assert batches.steps_before(batches.epochs) == 23
    found = [y for epoch in range(batches.epochs) for _, y in epoch_of(batches, epoch)]
    np.testing.assert_array_equal(found, rows)
    assert ListedBatches(SPLIT, rows[:1]).epochs == 1


@pytest.mark.parametrize(
    ("epoch", "step", "expected"),
    [
        (0, 0, [(0, 0, 7), (7, 0, 8)]),
        (2, 0, [(2, 0, 7), (7, 0, 8)]),
        # What is left of an epoch is given alone, even where it is as long as the last one.
        (2, 1, [(2, 1, 3), (3, 0, 7), (7, 0, 8)]),
        (6, 1, [(6, 1, 7), (7, 0, 8)]),
        (7, 1, [(7, 1, 8)]),
        (8, 0, []),
    ],
)
def test_what_is_left_of_a_run_is_divided_into_epochs_of_one_length(epoch, step, expected):
    batches = ListedBatches(SPLIT, np.arange(46).reshape(23, 2) % 10)
    assert list(equal_epochs(batches, epoch, step)) == expected
    left = sum(batches.steps(e) for e in range(epoch, batches.epochs)) - step
    assert sum((end - first) * batches.steps(first) - start for first, start, end in expected) == left


def test_the_pipeline_has_the_batches_that_are_left_of_the_epoch_in_which_it_is_read():
    batches = ShuffledBatches(SPLIT, 4, 3, seed=0)
    left = EpochsInARow(batches, first=1, start=1)
    pipeline = left.pipeline()
    assert pipeline.cardinality() == 2
    # A thread that tunes it would hold up the end of an epoch.
    assert not pipeline.options().autotune.enabled
    for left.epoch in (1, 2):
        read = list(pipeline.as_numpy_iterator())
        assert len(read) == 2
        for index, (x, y) in enumerate(read):
            np.testing.assert_array_equal(x, batches.batch(left.epoch, 1 + index)[0])
            np.testing.assert_array_equal(y, batches.batch(left.epoch, 1 + index)[1])

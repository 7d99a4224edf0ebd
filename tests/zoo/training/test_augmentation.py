"""Augmentation is a function of (seed, epoch, index), and what it does to pixels is known exactly where it can be."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import zoo
from zoo.recipes import AugmentationRecipe
from zoo.training.augmentation import _interpolated, augment, augmentation_draws

NONE = AugmentationRecipe()
FLIP, ANGLE, CROP, CROP_X, CROP_Y, SHIFT_X, SHIFT_Y = range(7)
# No flip, no rotation, the whole window in the middle, no shift.
NEUTRAL = (0.75, 0.5, 1.0 - 2**-24, 0.5, 0.5, 0.5, 0.5)


def images(*shape: int, dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    """Images without zeros, so filled gaps differ from original pixels."""
    return np.random.default_rng(seed).integers(1, 256, shape).astype(dtype)


def draws(count: int = 1, **changed: float) -> np.ndarray:
    values = np.tile(np.array(NEUTRAL, np.float32), (count, 1))
    for name, value in changed.items():
        values[:, globals()[name.upper()]] = value
    return values


def apply(x: np.ndarray, d: np.ndarray, **recipe: object) -> np.ndarray:
    changed = augment(x, d, AugmentationRecipe(**recipe))
    assert changed.dtype == x.dtype
    assert tuple(changed.shape) == x.shape
    return changed


def rolled(x: np.ndarray, down: int, right: int) -> np.ndarray:
    """As np.roll, with zeros where it would wrap around."""
    result = np.roll(x, (down, right), axis=(1, 2))
    if down > 0:
        result[:, :down] = 0
    elif down < 0:
        result[:, down:] = 0
    if right > 0:
        result[:, :, :right] = 0
    elif right < 0:
        result[:, :, right:] = 0
    return result


def draw_for(shift: int, most: int) -> float:
    """The middle of the draws that give this shift."""
    return (shift + most + 0.5) / (2 * most + 1)


# === The draws ===


def test_draws_depend_on_seed_epoch_and_index_only():
    first = augmentation_draws(3, 5, 100)
    assert first.shape == (100, 7)
    assert first.dtype == np.float32
    assert (first >= 0).all()
    assert (first < 1).all()
    np.testing.assert_array_equal(first, augmentation_draws(3, 5, 100))
    tf.random.uniform((10,), seed=1)
    np.testing.assert_array_equal(first, augmentation_draws(3, 5, 100))
    for seed, epoch in ((4, 5), (3, 6), (5, 3)):
        assert not np.isin(augmentation_draws(seed, epoch, 100), first).any()
    # No two examples share their draws.
    assert len(np.unique(first, axis=0)) == 100


@pytest.mark.statistical
def test_draws_are_uniform():
    """Kolmogorov-Smirnov, 7 columns of 20,000 draws of a fixed seed: D < 3 / sqrt(n), false-failure rate 2e-7."""
    values = np.sort(augmentation_draws(0, 0, 20_000).astype(np.float64), axis=0)
    n = len(values)
    steps = np.arange(1, n + 1)[:, None] / n
    distance = np.maximum(np.abs(steps - values), np.abs(values - (steps - 1 / n))).max(axis=0)
    assert (distance < 3 / np.sqrt(n)).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_what_else_is_in_the_batch_does_not_matter(dtype):
    recipe = {"shift": 2, "flip": True, "crop": 0.8, "rotation": 15.0}
    x, d = images(12, 9, 10, 3, dtype=dtype), augmentation_draws(0, 1, 12)
    together = apply(x, d, **recipe)
    assert not np.array_equal(together, x)
    order = np.random.default_rng(0).permutation(12)
    np.testing.assert_array_equal(apply(x[order], d[order], **recipe), together[order])
    for index in range(12):
        np.testing.assert_array_equal(apply(x[index : index + 1], d[index : index + 1], **recipe)[0], together[index])


# === The pixels ===


@pytest.mark.parametrize("shape", [(5, 8, 8, 1), (5, 28, 28, 1), (5, 7, 12, 3), (5, 32, 32, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32])
def test_nothing_to_do_changes_nothing(shape, dtype):
    x = images(*shape, dtype=dtype)
    np.testing.assert_array_equal(apply(x, augmentation_draws(0, 0, 5)), x)


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (7, 12)])
def test_whole_shifts_move_pixels_bit_by_bit(size):
    most = 3
    shifts = [(down, right) for down in range(-most, most + 1) for right in range(-most, most + 1)]
    x = images(len(shifts), *size, 2)
    d = np.concatenate(
        [draws(shift_y=draw_for(down, most), shift_x=draw_for(right, most)) for down, right in shifts], 0
    )
    moved = apply(x, d, shift=most)
    expected = np.concatenate([rolled(x[i : i + 1], *shift) for i, shift in enumerate(shifts)])
    np.testing.assert_array_equal(moved, expected)
    # And so do those of floating-point images, whose every bit stays.
    x = np.random.default_rng(0).normal(size=(len(shifts), *size, 2)).astype(np.float32)
    expected = np.concatenate([rolled(x[i : i + 1], *shift) for i, shift in enumerate(shifts)])
    np.testing.assert_array_equal(apply(x, d, shift=most), expected)


def test_a_shift_beyond_the_image_leaves_nothing():
    x = images(1, 4, 4, 1)
    assert not apply(x, draws(shift_x=draw_for(5, 5)), shift=5).any()


@pytest.mark.statistical
def test_every_shift_is_equally_likely():
    """Counts of 5 x 5 shifts over 25,000 draws of a fixed seed: within 5.5 deviations, false-failure rate 1e-6."""
    n = 25_000
    x = np.zeros((n, 5, 5, 1), np.uint8)
    x[:, 2, 2] = 1
    moved = apply(x, augmentation_draws(0, 0, n), shift=2)
    assert (moved.sum(axis=(1, 2, 3)) == 1).all()
    counts = moved.sum(axis=0, dtype=np.int64)
    assert np.abs(counts - n / 25).max() < 5.5 * np.sqrt(n / 25 * 24 / 25)


@pytest.mark.parametrize("shape", [(6, 8, 8, 1), (6, 28, 28, 1), (6, 7, 12, 3)])
def test_flip_mirrors_left_and_right_bit_by_bit(shape):
    x = images(*shape)
    np.testing.assert_array_equal(apply(x, draws(6, flip=0.49), flip=True), x[:, :, ::-1])
    np.testing.assert_array_equal(apply(x, draws(6, flip=0.51), flip=True), x)
    half = apply(x, np.concatenate([draws(3, flip=0.0), draws(3, flip=0.9)]), flip=True)
    np.testing.assert_array_equal(half, np.concatenate([x[:3, :, ::-1], x[3:]]))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("recipe", [{"shift": 2}, {"flip": True}, {"shift": 9, "flip": True}])
def test_moved_pixels_are_those_of_the_interpolation(recipe, dtype):
    """Runs with crops or rotations take the other way, and cards were measured with it."""
    x, d, how = images(200, 7, 8, 3, dtype=dtype), augmentation_draws(0, 0, 200), AugmentationRecipe(**recipe)
    np.testing.assert_array_equal(augment(x, d, how), _interpolated(x, d, how))


def test_flip_and_shift_together():
    x = images(1, 8, 8, 1)
    moved = apply(x, draws(flip=0.0, shift_x=draw_for(2, 2)), flip=True, shift=2)
    mirrored = x[:, :, ::-1]
    assert any(np.array_equal(moved, rolled(mirrored, 0, right)) for right in (-2, 2))


@pytest.mark.parametrize("size", [8, 9, 28])
def test_a_quarter_turn_of_a_square_is_exact_after_rounding(size):
    x = images(2, size, size, 1)
    # Draws run over [0, 1): 0 is -90 degrees; 1 itself is +90.
    np.testing.assert_array_equal(apply(x, draws(2, angle=0.0), rotation=90.0), np.rot90(x, -1, axes=(1, 2)))
    np.testing.assert_array_equal(apply(x, draws(2, angle=1.0), rotation=90.0), np.rot90(x, 1, axes=(1, 2)))
    np.testing.assert_array_equal(apply(x, draws(2, angle=1.0), rotation=180.0), np.rot90(x, 2, axes=(1, 2)))


def test_rotation_keeps_the_middle():
    x = np.zeros((1, 9, 9, 1), np.float32)
    x[0, 4, 4] = 1.0
    for angle in (0.0, 0.3, 0.9):
        turned = apply(x, draws(angle=angle), rotation=45.0)
        assert turned[0, 4, 4, 0] == pytest.approx(1.0, abs=1e-5)


def test_crop_stays_within_the_image():
    """A window within the image shows nothing black: pixels of a constant image stay what they are."""
    x = np.full((500, 12, 15, 1), 200, np.uint8)
    np.testing.assert_array_equal(apply(x, augmentation_draws(0, 0, 500), crop=0.5), x)


def test_crop_is_the_window_resized():
    """Of a ramp, a window of half the side has half the slope, and its place is that of the draws."""
    ramp = np.tile(np.arange(16, dtype=np.float32)[None, :, None], (16, 1, 1))[None]
    for crop_x, start in ((0.0, 0.0), (1.0, 7.5), (0.5, 3.75)):
        window = apply(ramp, draws(crop=0.0, crop_x=crop_x), crop=0.5)[0]
        np.testing.assert_allclose(window[..., 0], np.tile(start + np.arange(16) / 2, (16, 1)), atol=1e-4)


def test_augmentation_of_what_is_no_image_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"has augmentation, which is for images .* an input has the shape \(4,\)"):
        zoo.train("mlp_flipout.iris", tmp_path / "out", overrides={"augmentation.shift": 2})
    assert not list(tmp_path.iterdir())

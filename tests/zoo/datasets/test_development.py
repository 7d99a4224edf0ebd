"""Out-of-distribution inputs for development are made of the given images and are the same for a seed."""

from __future__ import annotations

import numpy as np
import pytest

from zoo.datasets.development import development_out_of_distribution

# Every value once in each image; 30 leaves two rows and columns beyond the patches.
IMAGES = np.stack([np.random.default_rng(seed).permutation(30 * 30).reshape(30, 30, 1) for seed in (0, 1)])
RANGE = (0, 899)


def patches_of(image: np.ndarray) -> list[list[list[int]]]:
    starts = range(0, 28, 7)
    return [image[row : row + 7, column : column + 7].tolist() for row in starts for column in starts]


def test_patches_are_shuffled_as_wholes_in_another_order_for_each_image():
    shuffled = development_out_of_distribution(IMAGES, pixel_range=RANGE)["shuffled_patches"]
    orders = []
    for image, other in zip(IMAGES[..., 0], np.rint(shuffled[..., 0]).astype(int), strict=True):
        old, new = patches_of(image), patches_of(other)
        orders.append([old.index(patch) for patch in new])
        assert sorted(orders[-1]) == list(range(16))
        np.testing.assert_array_equal(other[28:], image[28:])
        np.testing.assert_array_equal(other[:, 28:], image[:, 28:])
    assert orders[0] != orders[1]


def test_every_set_is_of_the_same_shape_and_range_and_follows_the_seed():
    before = IMAGES.copy()
    sets = development_out_of_distribution(IMAGES, seed=3, pixel_range=RANGE)
    again = development_out_of_distribution(IMAGES, seed=3, pixel_range=RANGE)
    other = development_out_of_distribution(IMAGES, seed=4, pixel_range=RANGE)
    for name, images in sets.items():
        assert (images.shape, images.dtype) == (IMAGES.shape, np.float32)
        assert images.min() >= 0
        assert images.max() <= 899
        np.testing.assert_array_equal(images, again[name])
        assert (name == "other_polarity") == np.array_equal(images, other[name])
    np.testing.assert_allclose(sets["other_polarity"], 899 - IMAGES, rtol=1e-5, atol=1e-3)
    np.testing.assert_array_equal(IMAGES, before)


def test_images_without_a_range_are_refused():
    with pytest.raises(ValueError, match="pixel_range"):
        development_out_of_distribution(IMAGES)

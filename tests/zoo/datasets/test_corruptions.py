"""Corruptions get worse with the severity, stay in the range of the pixels and are the same for a seed."""

from __future__ import annotations

import io
import tracemalloc

import numpy as np
import PIL.Image
import pytest
import scipy.ndimage

from zoo.datasets.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from zoo.datasets.images import fitted, pixel_range_of

every_corruption = pytest.mark.parametrize("name", CORRUPTIONS)


def smooth_images(count: int, side: int, channels: int) -> np.ndarray:
    """Blobs, uint8, which have edges and areas as photographs have."""
    noise = np.random.default_rng(0).normal(size=(count, side, side, channels))
    blobs = scipy.ndimage.gaussian_filter(noise, (0, 3, 3, 0))
    low, high = (edge(blobs, axis=(1, 2, 3), keepdims=True) for edge in (np.min, np.max))
    return np.rint(255 * (blobs - low) / (high - low)).astype(np.uint8)


GREY, RGB = smooth_images(6, 28, 1), smooth_images(6, 32, 3)


def distance(images: np.ndarray, clean: np.ndarray) -> float:
    return float(np.sqrt(np.mean((images - clean.astype(np.float64)) ** 2)))


def test_there_are_twelve_with_five_severities():
    assert len(CORRUPTIONS) == 12
    assert {len(corruption.levels) for corruption in CORRUPTIONS.values()} == {len(SEVERITIES)} == {5}


@every_corruption
def test_a_corruption_takes_a_few_times_the_memory_of_the_images(name):
    clean = np.zeros((8, 64, 64, 3), np.uint8)
    corrupt(clean[:1], name, 5)  # with its imports
    tracemalloc.start()
    corrupted = corrupt(clean, name, 5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * corrupted.nbytes


@every_corruption
@pytest.mark.parametrize("clean", [GREY, RGB], ids=["28x28x1", "32x32x3"])
def test_every_severity_is_further_from_the_clean_image_within_its_range(name, clean):
    before = clean.copy()
    corrupted = [corrupt(clean, name, severity) for severity in SEVERITIES]
    for images in corrupted:
        assert (images.shape, images.dtype) == (clean.shape, np.float32)
        assert images.min() >= 0
        assert images.max() <= 255
    distances = [0.0, *(distance(images, clean) for images in corrupted)]
    assert np.all(np.diff(distances) > 0)
    np.testing.assert_array_equal(clean, before)


@every_corruption
def test_a_seed_and_the_images_before_determine_an_image(name):
    once = corrupt(RGB, name, 3, seed=4)
    np.testing.assert_array_equal(once, corrupt(RGB, name, 3, seed=4))
    np.testing.assert_allclose(corrupt(RGB[:3], name, 3, seed=4), once[:3], atol=1e-3)


@pytest.mark.parametrize(
    "name", ["gaussian_noise", "shot_noise", "impulse_noise", "motion_blur", "fog", "elastic_transform"]
)
def test_another_seed_and_another_image_are_corrupted_in_another_way(name):
    twins = np.repeat(RGB[:1], 2, axis=0)
    first = corrupt(twins, name, 3, seed=0)
    assert distance(corrupt(twins, name, 3, seed=1), first) > 0.1
    assert distance(first[:1], first[1:]) > 0.1


@every_corruption
def test_a_range_moves_with_the_images(name):
    of_uint8 = corrupt(GREY, name, 3)
    moved = corrupt(2.0 * GREY - 256, name, 3, pixel_range=(-256, 254))
    np.testing.assert_allclose(moved, 2 * of_uint8 - 256, atol=1e-3)


@every_corruption
def test_constant_images_give_finite_pixels(name):
    for value in (0, 255):
        assert np.isfinite(corrupt(np.full((2, 8, 8, 3), value, np.uint8), name, 5)).all()


@pytest.mark.parametrize("clean", [GREY, RGB], ids=["grey", "RGB"])
def test_jpeg_is_that_of_pillow(clean):
    def by_pillow(image: np.ndarray) -> np.ndarray:
        file = io.BytesIO()
        PIL.Image.fromarray(image.squeeze()).save(file, "JPEG", quality=25, subsampling=0)
        return np.asarray(PIL.Image.open(file)).reshape(image.shape)

    corrupted = corrupt(clean, "jpeg_compression", 3)
    assert CORRUPTIONS["jpeg_compression"].levels[2] == 25
    # Pillow rounds colours and pixels to whole numbers.
    assert np.mean(np.abs(corrupted - np.stack([by_pillow(image) for image in clean]))) < 1.5
    assert distance(corrupted, clean) > 3


def test_contrast_and_brightness_are_their_formulas():
    unit = RGB / 255
    means = unit.mean(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(corrupt(RGB, "contrast", 2) / 255, 0.5 * (unit + means), atol=1e-5)
    np.testing.assert_allclose(corrupt(GREY, "brightness", 3) / 255, np.minimum(GREY / 255 + 0.2, 1), atol=1e-5)
    # Of a colour, only the value of HSV rises.
    (pixel,) = corrupt(np.full((1, 8, 8, 3), (100, 50, 0), np.uint8), "brightness", 3)[0, :1, 0]
    np.testing.assert_allclose(pixel, (151, 75.5, 0), rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"corruption": "gausian_noise"}, "gaussian_noise"),
        ({"severity": 0}, "from 1, the mildest, to 5"),
        ({"severity": 2.0}, "from 1, the mildest, to 5"),
        ({"seed": -1}, "at least 0"),
        ({"images": GREY.astype(np.float32)}, "have no range of their own"),
        ({"images": GREY.astype(np.float32), "pixel_range": (0, 1)}, "the range is 0 to 1"),
        ({"images": np.full(GREY.shape, np.nan), "pixel_range": (0, 1)}, "without NaN"),
        ({"pixel_range": (255, 0)}, "two finite numbers in order"),
        ({"pixel_range": (0, np.inf)}, "two finite numbers in order"),
        ({"images": GREY[0]}, "images\\[np.newaxis\\]"),
        ({"images": GREY[:0]}, "at least one image"),
        ({"images": RGB[:, :4, :4]}, "8 x 8"),
        ({"images": RGB[..., :2]}, "1 or 3 channels"),
    ],
)
def test_what_is_no_image_or_no_corruption_is_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        corrupt(**{"images": GREY, "corruption": "fog", "severity": 1, **arguments})


# === Images of one dataset in the shape of another ===


def test_images_of_another_shape_and_range_are_fitted():
    grey = fitted(RGB, (0, 255), (28, 28, 1), (0, 16))
    assert (grey.shape, grey.dtype) == ((6, 28, 28, 1), np.float32)
    lightness = RGB @ np.array([0.299, 0.587, 0.114])
    # Averaging over areas keeps the mean.
    np.testing.assert_allclose(grey.mean(axis=(1, 2, 3)), lightness.mean(axis=(1, 2)) * 16 / 255, rtol=1e-4)
    colours = fitted(GREY, (0, 255), (32, 32, 3), (0, 255))
    assert colours.shape == (6, 32, 32, 3)
    np.testing.assert_array_equal(colours[..., 0], colours[..., 2])
    halved = fitted(RGB, (0, 255), (16, 16, 3), (0, 255))
    np.testing.assert_allclose(halved, RGB.reshape(6, 16, 2, 16, 2, 3).mean(axis=(2, 4)), atol=1e-3)
    assert fitted(GREY, (0, 255), (28, 28, 1), (0, 255)) is GREY


def test_the_range_of_training_images_is_that_of_uint8_or_of_their_values():
    assert pixel_range_of(GREY // 2) == (0, 255)
    assert pixel_range_of(np.array([[2.0, -1.0]]), np.array([[3.0]])) == (-1, 3)

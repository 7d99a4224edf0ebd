"""Out-of-distribution inputs for choices during development, made from the validation images of a dataset.

Whoever chooses an inference method, a beta or a temperature by other datasets cannot use these for the published
numbers any more. So choose by `development_out_of_distribution`, and keep the other datasets for the test.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.ndimage

from zoo.datasets.corruptions import generator
from zoo.datasets.images import PixelRange, from_unit, range_or_default, to_unit

# Patches per side.
_PATCHES = 4
# Of the strong corruption: neither is among the twelve of the test.
_BLUR, _SPECKLES = 2.5, 0.6


def development_out_of_distribution(
    images: npt.ArrayLike, seed: int = 0, pixel_range: PixelRange | None = None
) -> dict[str, npt.NDArray[np.float32]]:
    """Makes four sets of images unlike the given ones, as many in each.

    Args:
        images: Images of the validation split, `(n, height, width, channels)`, grey or RGB, of at least 8 x 8 pixels.
        seed: Seed of the random parts, not negative.
        pixel_range: Least and greatest value that a pixel can have. Can only be left out for uint8, 0 to 255.

    Returns:
        New images of the same shape and range, float32, by name. `shuffled_patches`: 4 x 4 patches in random order,
        another for each image. `other_polarity`: light and dark exchanged. `noise`: uniform over the range.
        `strong_corruption`: a strong Gaussian blur, then strong speckle noise. Hendrycks and Dietterich (2019) keep
        both for validation, and neither is one of `zoo.datasets.corruptions.CORRUPTIONS`.

    Raises:
        ValueError: If these are no images, the range is missing or does not contain them, or the seed is negative.

    Example:
        >>> import zoo
        >>> from zoo.datasets.development import development_out_of_distribution
        >>> digits = zoo.load_dataset("digits").validation.x
        >>> sorted(development_out_of_distribution(digits, pixel_range=(0, 16)))
        ['noise', 'other_polarity', 'shuffled_patches', 'strong_corruption']
    """
    unit = to_unit(images, pixel_range)
    sets = {
        "shuffled_patches": _shuffled_patches(unit, generator(seed, "shuffled_patches")),
        "other_polarity": 1.0 - unit,
        "noise": generator(seed, "noise").random(unit.shape, np.float32),
        "strong_corruption": _strongly_corrupted(unit, generator(seed, "strong_corruption")),
    }
    new_range = range_or_default(np.asarray(images), pixel_range)
    return {name: from_unit(x, new_range) for name, x in sets.items()}


def _shuffled_patches(x: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Pixels beyond the last whole patch stay where they are."""
    count, channels = len(x), x.shape[-1]
    height, width = (size // _PATCHES for size in x.shape[1:3])
    inner = np.s_[:, : height * _PATCHES, : width * _PATCHES]
    patches = x[inner].reshape(count, _PATCHES, height, _PATCHES, width, channels).swapaxes(2, 3)
    order = np.argsort(rng.random((count, _PATCHES**2)), axis=1)
    flat = patches.reshape(count, _PATCHES**2, height, width, channels)
    flat = np.take_along_axis(flat, order[:, :, np.newaxis, np.newaxis, np.newaxis], axis=1)
    shuffled = x.copy()
    shuffled[inner] = flat.reshape(patches.shape).swapaxes(2, 3).reshape(x[inner].shape)
    return shuffled


def _strongly_corrupted(x: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    sigma = _BLUR * min(x.shape[1:3]) / 32
    blurred = scipy.ndimage.gaussian_filter(x, (0, sigma, sigma, 0), mode="nearest")
    speckled: npt.NDArray[np.float32] = blurred * (1 + _SPECKLES * rng.standard_normal(x.shape, np.float32))
    return speckled

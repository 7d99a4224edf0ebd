"""Images of one dataset in the shape and range of another: range, size and channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tfp_bnn.core.arguments import is_number
from zoo.core.shown import shown

PixelRange = tuple[float, float]
"""The values of black and of full intensity."""

UINT8_RANGE: PixelRange = (0.0, 255.0)
# Shares of red, green and blue in the lightness of an image, ITU-R BT.601.
LUMA = (0.299, 0.587, 0.114)
_SMALLEST_SIDE = 8


def is_image_shape(shape: tuple[int, ...]) -> bool:
    """Whether `(height, width, channels)` is that of a grey or an RGB image of at least 8 x 8 pixels."""
    return len(shape) == 3 and shape[-1] in (1, 3) and min(shape[:2]) >= _SMALLEST_SIDE


def pixel_range_of(*images: npt.NDArray[Any]) -> PixelRange:
    """The range of the pixels of a dataset: that of their dtype for uint8, else from the least to the greatest value.

    Args:
        *images: Images of each split, `(n, height, width, channels)`.
    """
    if all(array.dtype == np.uint8 for array in images):
        return UINT8_RANGE
    return float(min(array.min() for array in images)), float(max(array.max() for array in images))


def pixels_fit(highest: float, pixel_max: float) -> bool:
    """Whether pixels up to `highest` are of images that a network may divide by `pixel_max`; dark ones are."""
    return 0.25 * pixel_max <= highest <= pixel_max


def to_unit(images: npt.ArrayLike, pixel_range: PixelRange | None) -> npt.NDArray[np.float32]:
    """Returns images with pixels from 0 to 1, as a new array.

    Args:
        images: Images `(n, height, width, channels)`, grey or RGB, of at least 8 x 8 pixels.
        pixel_range: Least and greatest value that a pixel can have. Can only be left out for uint8.

    Raises:
        ValueError: If these are no images, the range is missing, or a pixel is outside of it.
    """
    array = np.asarray(images)
    if array.ndim != 4 or not is_image_shape(array.shape[1:]) or not len(array):
        raise ValueError(
            f"Got images of shape {array.shape}; expected (images, height, width, channels), with at least one image, "
            f"1 or 3 channels, and at least {_SMALLEST_SIDE} x {_SMALLEST_SIDE} pixels. Add an axis for one image or "
            "one channel with images[np.newaxis] or images[..., np.newaxis]."
        )
    low, high = range_or_default(array, pixel_range)
    if not (np.min(array) >= low and np.max(array) <= high):
        raise ValueError(
            f"Got pixels from {np.min(array):g} to {np.max(array):g}, but the range is {low:g} to {high:g}. Pass the "
            "range of the pixels as pixel_range=(low, high), and images without NaN."
        )
    return ((array - np.float32(low)) / np.float32(high - low)).astype(np.float32)


def from_unit(images: npt.NDArray[np.float32], pixel_range: PixelRange) -> npt.NDArray[np.float32]:
    """The inverse of `to_unit`; pixels outside of 0 to 1 are clipped. Float32."""
    low, high = pixel_range
    scaled = np.clip(images, 0.0, 1.0) * np.float32(high - low) + np.float32(low)
    # Rounding must not leave the range.
    return np.clip(scaled, low, high).astype(np.float32)


def range_or_default(images: npt.NDArray[Any], pixel_range: PixelRange | None) -> PixelRange:
    """Returns a range as two floats; without one, that of uint8.

    Raises:
        ValueError: If there is none and the images are not uint8, or it is not two numbers in order.
    """
    if pixel_range is None:
        if images.dtype != np.uint8:
            raise ValueError(
                f"Images of dtype {images.dtype} have no range of their own. Pass the least and the greatest value "
                "that a pixel can have, such as pixel_range=(0, 1) or (0, 255)."
            )
        return UINT8_RANGE
    values = tuple(pixel_range)
    numbers = len(values) == 2 and all(is_number(value) and np.isfinite(value) for value in values)
    if not numbers or not values[0] < values[1]:
        raise ValueError(f"`pixel_range` is {shown(pixel_range)}; expected (low, high), two finite numbers in order.")
    return float(values[0]), float(values[1])


def resized(images: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float32]:
    """Resizes images by averaging over the area of each new pixel, `(n, h, w, c)` -> `(n, height, width, c)`."""
    if images.shape[1:3] == (height, width):
        return images
    return resampled(images, _areas(images.shape[1], height), _areas(images.shape[2], width))


def resampled(
    images: npt.NDArray[np.float32], rows: npt.NDArray[np.float32], columns: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Makes each row and each column of new images as a weighted mean of the old ones.

    Args:
        images: Images `(n, h, w, c)`.
        rows: Weights `(height, h)` for all images, or `(n, height, h)`.
        columns: Weights `(width, w)` for all images, or `(n, width, w)`.
    """
    count, _, width, channels = images.shape
    tall = (rows @ images.reshape(count, -1, width * channels)).reshape(count, -1, width, channels)
    return columns[..., np.newaxis, :, :] @ tall


def fitted(
    images: npt.NDArray[Any], pixel_range: PixelRange, shape: tuple[int, ...], new_range: PixelRange
) -> npt.NDArray[Any]:
    """Converts images to a shape and a range of pixels.

    Args:
        images: Images `(n, h, w, c)`, with pixels in `pixel_range`.
        pixel_range: Their range.
        shape: `(height, width, channels)` of the result. RGB becomes grey by its lightness; grey becomes RGB by equal
            channels.
        new_range: Range of the result.

    Returns:
        Images `(n, *shape)`: the same array if nothing is to be done, else float32.
    """
    if images.shape[1:] == tuple(shape) and pixel_range == new_range:
        return images
    unit = resized(to_unit(images, pixel_range), *shape[:2])
    if unit.shape[-1] != shape[-1]:
        unit = np.repeat(unit, 3, axis=-1) if shape[-1] == 3 else unit @ np.array(LUMA, np.float32)[:, np.newaxis]
    return from_unit(unit, new_range)


def _areas(size: int, new_size: int) -> npt.NDArray[np.float32]:
    """The share of each old pixel in each new one, `(new_size, size)`; rows sum to 1."""
    edges = np.arange(new_size + 1) * (size / new_size)
    pixels = np.arange(size)
    overlap = np.minimum(edges[1:, np.newaxis], pixels + 1) - np.maximum(edges[:-1, np.newaxis], pixels)
    return (np.maximum(overlap, 0.0) * (new_size / size)).astype(np.float32)

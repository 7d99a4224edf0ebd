"""Twelve corruptions of images, each with five severities, to test how a model behaves when its inputs get worse.

The names are those of Hendrycks and Dietterich (2019). The code and the severities are our own, for grey images and for
RGB, of 28 x 28 and 32 x 32 pixels: numbers can be compared between models that were measured here, and not with
published ones. Lengths are in parts of a 32nd of the image's shorter side, so they are pixels of CIFAR-10.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.ndimage

from tfp_bnn.core.arguments import is_integer
from tfp_bnn.core.registry import unknown_name_message
from zoo.core.shown import shown
from zoo.datasets.images import LUMA, PixelRange, from_unit, range_or_default, resampled, resized, to_unit

SEVERITIES = (1, 2, 3, 4, 5)

_Images = npt.NDArray[np.float32]

# === Noise ===


def _gaussian_noise(x: _Images, std: float, rng: np.random.Generator) -> _Images:
    return x + std * rng.standard_normal(x.shape, np.float32)


def _shot_noise(x: _Images, photons: float, rng: np.random.Generator) -> _Images:
    return (rng.poisson(photons * x) / photons).astype(np.float32)


def _impulse_noise(x: _Images, share: float, rng: np.random.Generator) -> _Images:
    chance = rng.random(x.shape, np.float32)
    return np.where(chance < share / 2, 0.0, np.where(chance > 1 - share / 2, 1.0, x)).astype(np.float32)


# === Blur ===


def _defocus_blur(x: _Images, radius: float, rng: np.random.Generator) -> _Images:
    radius = _pixels(x, radius)
    reach = np.arange(-np.ceil(radius), np.ceil(radius) + 1)
    # Pixels on the edge of the disk count in part.
    disk = np.clip(radius + 0.5 - np.hypot(reach[:, np.newaxis], reach), 0.0, 1.0)
    return scipy.ndimage.convolve(x, (disk / disk.sum())[np.newaxis, :, :, np.newaxis], mode="nearest")


def _motion_blur(x: _Images, length: float, rng: np.random.Generator) -> _Images:
    angle = rng.uniform(-np.pi / 4, np.pi / 4, (len(x), 1))
    rows, columns = np.arange(x.shape[1]), np.arange(x.shape[2])
    steps = np.linspace(-0.5, 0.5, 9) * _pixels(x, length)
    return _mean_of(x, [(rows + step * np.sin(angle), columns + step * np.cos(angle)) for step in steps])


def _zoom_blur(x: _Images, largest: float, rng: np.random.Generator) -> _Images:
    rows, columns = (np.arange(size) - (size - 1) / 2 for size in x.shape[1:3])
    middle = (x.shape[1] - 1) / 2, (x.shape[2] - 1) / 2
    factors = np.linspace(1.0, largest, 8)
    return _mean_of(x, [(middle[0] + rows / factor, middle[1] + columns / factor) for factor in factors])


# === Weather ===


def _fog(x: _Images, amount: float, rng: np.random.Generator) -> _Images:
    noise = scipy.fft.rfft2(rng.standard_normal(x.shape[:3], np.float32))
    frequency = np.hypot(scipy.fft.fftfreq(x.shape[1])[:, np.newaxis], scipy.fft.rfftfreq(x.shape[2]))
    frequency[0, 0] = np.inf
    clouds = scipy.fft.irfft2(noise / frequency**1.5, x.shape[1:3])
    low, high = clouds.min(axis=(1, 2), keepdims=True), clouds.max(axis=(1, 2), keepdims=True)
    return ((x + amount * ((clouds - low) / (high - low))[..., np.newaxis]) / (1.0 + amount)).astype(np.float32)


def _brightness(x: _Images, amount: float, rng: np.random.Generator) -> _Images:
    # The value of HSV rises; hue and saturation stay.
    value = x.max(axis=-1, keepdims=True)
    raised = np.minimum(value + np.float32(amount), 1.0)
    return np.where(value > 0, x * (raised / np.where(value > 0, value, 1.0)), raised)


# === Digital ===


def _contrast(x: _Images, kept: float, rng: np.random.Generator) -> _Images:
    means = x.mean(axis=(1, 2), keepdims=True)
    return means + np.float32(kept) * (x - means)


def _elastic_transform(x: _Images, displacement: float, rng: np.random.Generator) -> _Images:
    smoothness = 0.1 * min(x.shape[1:3])
    field = rng.uniform(-1.0, 1.0, (len(x), 2, *x.shape[1:3]))
    field = scipy.ndimage.gaussian_filter(field, (0, 0, smoothness, smoothness), mode="reflect")
    field *= _pixels(x, displacement) / field.std(axis=(2, 3), keepdims=True)
    rows, columns = (np.arange(size) for size in x.shape[1:3])
    return _moved(x, rows[:, np.newaxis] + field[:, 0], columns + field[:, 1])


def _pixelate(x: _Images, share: float, rng: np.random.Generator) -> _Images:
    height, width = x.shape[1:3]
    return resized(resized(x, round(share * height), round(share * width)), height, width)


def _jpeg_compression(x: _Images, quality: float, rng: np.random.Generator) -> _Images:
    """JPEG up to its lossless part, without the halved resolution of the colours."""
    height, width, channels = x.shape[1:]
    if channels == 3:
        x = x @ _TO_YCBCR.T + _GREY
    x = np.pad(x, ((0, 0), (0, -height % 8), (0, -width % 8), (0, 0)), mode="edge")
    blocks = x.reshape(len(x), x.shape[1] // 8, 8, x.shape[2] // 8, 8, channels)
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    tables = np.stack([_LIGHTNESS_TABLE, _COLOUR_TABLE, _COLOUR_TABLE][:channels], axis=-1)
    steps = np.clip(np.floor((scale * tables + 50) / 100), 1, 255).astype(np.float32)[:, np.newaxis]
    coefficients = scipy.fft.dctn(blocks * 255 - 128, axes=(2, 4), norm="ortho")
    blocks = scipy.fft.idctn(np.rint(coefficients / steps) * steps, axes=(2, 4), norm="ortho")
    decoded: _Images = ((blocks + 128) / 255).reshape(x.shape)[:, :height, :width]
    return np.matmul(decoded - _GREY, _FROM_YCBCR.T) if channels == 3 else decoded


_TO_YCBCR: _Images = np.array([LUMA, [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32)
_FROM_YCBCR: _Images = np.linalg.inv(_TO_YCBCR).astype(np.float32)
# What is added to the lightness and the two colours of a grey image.
_GREY: _Images = np.array([0.0, 128 / 255, 128 / 255], np.float32)
# ITU-T T.81, annex K.
_LIGHTNESS_TABLE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
_COLOUR_TABLE = np.full((8, 8), 99)
_COLOUR_TABLE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]

# === Where pixels are ===


def _pixels(x: _Images, length: float) -> float:
    return length * min(x.shape[1:3]) / 32


def _mean_of(x: _Images, grids: Sequence[tuple[npt.NDArray[Any], npt.NDArray[Any]]]) -> _Images:
    """The mean of images at several grids of points, each with rows `(height,)` or `(n, height)`, and columns."""
    # A running sum, because the moved images together would be many times as large as `x`.
    total = np.zeros_like(x)
    for rows, columns in grids:
        total += resampled(x, _weights(rows, x.shape[1]), _weights(columns, x.shape[2]))
    return total / np.float32(len(grids))


def _weights(points: npt.NDArray[Any], size: int) -> _Images:
    """Those of linear interpolation, `(..., points, size)`. The edge pixels go on outside."""
    distances = np.clip(points, 0, size - 1)[..., np.newaxis] - np.arange(size)
    return np.maximum(1.0 - np.abs(distances), 0.0).astype(np.float32)


def _moved(x: _Images, rows: npt.NDArray[Any], columns: npt.NDArray[Any]) -> _Images:
    """Images at points `(n, height, width)` of their own, by linear interpolation. The edge pixels go on outside."""
    (top, down), (left, across) = _pixel_before(rows, x.shape[1]), _pixel_before(columns, x.shape[2])
    image = np.arange(len(x)).reshape(-1, 1, 1)
    upper = x[image, top, left] * (1 - across) + x[image, top, left + 1] * across
    lower = x[image, top + 1, left] * (1 - across) + x[image, top + 1, left + 1] * across
    return upper * (1 - down) + lower * down


def _pixel_before(points: npt.NDArray[Any], size: int) -> tuple[npt.NDArray[Any], _Images]:
    """The pixel before each point, and how far the point is from it towards the next."""
    points = np.clip(points, 0, size - 1)
    before = np.minimum(points.astype(np.int64), size - 2)
    return before, (points - before).astype(np.float32)[..., np.newaxis]


# === By name ===


@dataclass(frozen=True)
class Corruption:
    """A corruption with its severities.

    Attributes:
        name: Name, as in the literature.
        what: Meaning of the levels.
        levels: One level for each severity, the mildest first. Pixels are from 0 to 1.
        function: Function of images from 0 to 1, a level and a generator. Its results are clipped.
    """

    name: str
    what: str
    levels: tuple[float, float, float, float, float]
    function: Callable[[_Images, float, np.random.Generator], _Images]


CORRUPTIONS: Mapping[str, Corruption] = {
    corruption.name: corruption
    for corruption in (
        Corruption("gaussian_noise", "standard deviation", (0.04, 0.08, 0.12, 0.18, 0.26), _gaussian_noise),
        Corruption("shot_noise", "photons of a white pixel", (250, 100, 50, 25, 12), _shot_noise),
        Corruption("impulse_noise", "share of black or white values", (0.01, 0.03, 0.06, 0.1, 0.17), _impulse_noise),
        Corruption("defocus_blur", "radius, 32nds of the side", (0.8, 1.2, 1.6, 2.2, 3), _defocus_blur),
        Corruption("motion_blur", "length, 32nds of the side", (2.5, 4, 6, 8, 11), _motion_blur),
        Corruption("zoom_blur", "largest magnification", (1.06, 1.12, 1.2, 1.3, 1.45), _zoom_blur),
        Corruption("fog", "white added, before the range is restored", (0.2, 0.5, 0.75, 1, 1.5), _fog),
        Corruption("brightness", "value added", (0.05, 0.1, 0.2, 0.3, 0.4), _brightness),
        Corruption("contrast", "share of the contrast that stays", (0.75, 0.5, 0.4, 0.3, 0.15), _contrast),
        Corruption("elastic_transform", "displacement, 32nds of the side", (0.5, 1, 1.5, 2, 3), _elastic_transform),
        Corruption("pixelate", "size of the coarse image, share of the side", (0.75, 0.55, 0.4, 0.3, 0.2), _pixelate),
        Corruption("jpeg_compression", "quality", (80, 50, 25, 15, 7), _jpeg_compression),
    )
}
"""The corruptions by name."""


def corrupt(
    images: npt.ArrayLike,
    corruption: str,
    severity: int,
    seed: int = 0,
    pixel_range: PixelRange | None = None,
) -> npt.NDArray[np.float32]:
    """Corrupts images.

    The random parts of a corruption, such as the direction of a motion, are the same for every severity. They differ
    between images.

    Args:
        images: Images `(n, height, width, channels)`, grey or RGB, of at least 8 x 8 pixels.
        corruption: One of `CORRUPTIONS`.
        severity: From 1 to 5.
        seed: Seed of the random parts, not negative.
        pixel_range: Least and greatest value that a pixel can have. Can only be left out for uint8, 0 to 255.

    Returns:
        New images of the same shape with values in the same range, not rounded, float32.

    Raises:
        ValueError: If these are no images, the range is missing or does not contain them, the corruption is unknown
            (the message gives the nearest), or the severity or the seed is out of range.

    Example:
        >>> import zoo
        >>> from zoo.datasets.corruptions import corrupt
        >>> digits = zoo.load_dataset("digits").test.x
        >>> corrupt(digits, "fog", severity=3, pixel_range=(0, 16)).shape
        (360, 8, 8, 1)

    References:
        D. Hendrycks, T. Dietterich, Benchmarking neural network robustness to common corruptions and perturbations,
        ICLR 2019. https://arxiv.org/abs/1903.12261
    """
    if corruption not in CORRUPTIONS:
        raise ValueError(unknown_name_message("corruption", corruption, sorted(CORRUPTIONS)))
    if not is_integer(severity) or severity not in SEVERITIES:
        raise ValueError(f"`severity` is {shown(severity)}; expected an integer from 1, the mildest, to 5.")
    rng = generator(seed, corruption)
    unit = to_unit(images, pixel_range)
    chosen = CORRUPTIONS[corruption]
    corrupted = chosen.function(unit, chosen.levels[severity - 1], rng)
    return from_unit(corrupted, range_or_default(np.asarray(images), pixel_range))


def generator(seed: int, what: str) -> np.random.Generator:
    """Returns the generator of a seed for one purpose; those for others are independent of it.

    Raises:
        ValueError: If the seed is not an integer of at least 0.
    """
    if not is_integer(seed) or seed < 0:
        raise ValueError(f"`seed` is {shown(seed)}; expected an integer of at least 0.")
    return np.random.default_rng([int(seed), *what.encode()])

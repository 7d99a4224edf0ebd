"""Reading of image files that anyone may have made."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

# A decoded pixel takes 1 to 4 bytes.
MOST_PIXELS = 2**25
_ORIENTATION = ExifTags.Base.Orientation
_GREY = ("1", "L", "LA")
# Levels of 16 bits for one of 8 bits: white is 65,535 and 255.
_LEVELS = 257


def image_header(path: Path, shape: tuple[int, ...] | None = None) -> tuple[tuple[int, int], bool]:
    """Returns width and height of an image, as it is to be seen, and whether it is grey. Decodes no pixels.

    Args:
        path: File of the image.
        shape: Shape of the images that a model takes, for the message.

    Raises:
        ValueError: If it is no image, has too many pixels, or pixels of 32 bits, of which nobody knows what is white.
    """
    with _opened(path, shape) as image:
        width, height = image.size
        # Photographs lie on their side, with a note to turn them.
        turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
        return (height, width) if turned else (width, height), image.mode in _GREY or _has_16_bits(image)


def decoded_image(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Decodes an image and resizes it (bilinear). Grey images of 16 bits are divided by 257: 65,535 is white.

    Args:
        path: File of the image.
        shape: `(rows, columns, channels)` of the result, with 1 channel or 3.

    Raises:
        ValueError: As in `image_header`.
    """
    rows, columns, channels = shape
    with _opened(path, shape) as image:
        upright = ImageOps.exif_transpose(image)
        if _has_16_bits(image):
            # Pillow would convert whatever is above 255 to white.
            upright = Image.fromarray((np.asarray(upright) // _LEVELS).astype(np.uint8))
        converted = upright.convert("L" if channels == 1 else "RGB").resize((columns, rows), Image.Resampling.BILINEAR)
        return np.asarray(converted, np.uint8).reshape(shape)


@contextlib.contextmanager
def _opened(path: Path, shape: tuple[int, ...] | None) -> Iterator[Image.Image]:
    try:
        # Our own limit is lower than the one that Pillow warns of.
        with (
            warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning),
            Image.open(path) as image,
        ):
            if image.width * image.height > MOST_PIXELS:
                wanted = "" if shape is None else f": the model takes {shape[1]} x {shape[0]}"
                raise ValueError(
                    f"{str(path)!r} has {image.width} x {image.height} pixels; at most {MOST_PIXELS:,} are "
                    f"read. Make it smaller{wanted}."
                )
            if image.mode in ("I", "F") and not _has_16_bits(image):
                kind = "whole numbers" if image.mode == "I" else "floating-point numbers"
                raise ValueError(
                    f"{str(path)!r} has pixels of 32 bits, {kind}; 8 or 16 bits were expected, of which white is "
                    "known. Rescale them to 0 to 255 and save the image with 8 bits, or pass all as an array in an "
                    ".npz file."
                )
            yield image
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError, SyntaxError) as error:
        raise ValueError(f"{str(path)!r} cannot be read as an image: {error}") from None


def _has_16_bits(image: Image.Image) -> bool:
    # Pillow before 11 opens those of PNG files as 32 bits, which PNG does not have.
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")

"""Decoding of image files: grey images of more than 8 bits."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from zoo.datasets.image_files import decoded_image, image_header


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("ending", "dtype"), [("png", "<u2"), ("tif", "<u2"), ("tif", ">u2")])
def test_grey_images_of_16_bits_are_scaled_and_not_clipped(tmp_path, channels, ending, dtype):
    levels = np.arange(256).reshape(16, 16)
    path = tmp_path / f"x.{ending}"
    Image.fromarray((levels * 257).astype(dtype)).save(path)
    assert image_header(path) == ((16, 16), True)
    assert np.array_equal(decoded_image(path, (16, 16, channels)), np.repeat(levels[..., None], channels, axis=2))


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_images_whose_white_nobody_knows_are_refused(tmp_path, dtype):
    Image.fromarray(np.ones((4, 4), dtype)).save(tmp_path / "x.tif")
    with pytest.raises(ValueError, match=r"x\.tif' has pixels of 32 bits, .* save the image with 8 bits"):
        image_header(tmp_path / "x.tif")

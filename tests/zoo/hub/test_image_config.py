"""Every network for images converts raw RGB pixels of another size itself."""

from __future__ import annotations

import numpy as np
import pytest

import zoo

SMALL = {
    "lenet5_flipout": {"widths": (2, 2, 4, 4)},
    "seedcnn_flipout": {"widths": (2, 2, 4)},
    "vgg_small_flipout": {"widths": (2, 2), "units": 4},
    "resnet20_flipout": {"widths": (2, 3, 4)},
}


@pytest.mark.parametrize("name", [*list(SMALL)[:-1], pytest.param("resnet20_flipout", marks=pytest.mark.slow)])
def test_grey_images_in_rgb_are_predicted_as_without_colours(name):
    settings = {**SMALL[name], "num_outputs": 2, "resize": (16, 16)}
    of_rgb = zoo.create_model(name, input_shape=(24, 20, 3), grey=True, **settings)
    of_grey = zoo.create_model(name, input_shape=(24, 20, 1), **settings)
    of_grey.set_weights(of_rgb.get_weights())
    pixels = np.random.default_rng(0).integers(0, 256, (3, 24, 20, 1)).astype(np.float32)
    expected = of_grey.plug_in_predictive(pixels).mean()
    np.testing.assert_allclose(of_rgb.plug_in_predictive(np.repeat(pixels, 3, -1)).mean(), expected, rtol=1e-4)
    # Green is lighter than blue.
    green, blue = (np.eye(3)[k] * np.full((1, 24, 20, 1), 255.0) for k in (1, 2))
    lightness = of_rgb.network.get_layer("grey")
    assert float(np.mean(lightness(green))) == pytest.approx(0.587 * 255, rel=1e-5)
    assert float(np.mean(lightness(blue))) == pytest.approx(0.114 * 255, rel=1e-5)


def test_grey_needs_colours():
    with pytest.raises(ValueError, match="grey is for images of 3 channels, but input_shape is"):
        zoo.create_model("lenet5_flipout", input_shape=(28, 28, 1), grey=True)

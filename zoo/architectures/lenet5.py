"""LeNet-5 (LeCun et al. 1998)."""

from __future__ import annotations

from typing import Annotated

import keras
from pydantic import Field, model_validator

from zoo.architectures.base import Activation, ConvolutionalConfig, PixelMax, Width, register_architecture, rescaled

# === Config ===


class LeNet5FlipoutConfig(ConvolutionalConfig):
    """The arguments of `lenet5_flipout`.

    Attributes:
        widths: Filters of the two convolutions and units of the two hidden dense layers.
        activation: Activation of the hidden layers.
        pixel_max: Maximum of raw pixels, which start at 0; they are divided by it. None for no rescaling.
        resize: Rows and columns to which the model resizes the images (bilinear); None for no resizing.
    """

    input_shape: Annotated[tuple[Width, ...], Field(min_length=3, max_length=3)] = (28, 28, 1)
    num_outputs: Annotated[int, Field(strict=True, ge=1, le=10_000)] = 10
    widths: tuple[Width, Width, Width, Width] = (6, 16, 120, 84)
    activation: Activation = "relu"
    pixel_max: PixelMax = 255.0
    resize: tuple[Width, Width] | None = None

    @model_validator(mode="after")
    def _large_enough(self) -> LeNet5FlipoutConfig:
        rows, columns = self.resize or self.input_shape[:2]
        if min(rows, columns) < 12:
            raise ValueError(
                f"images of {rows}x{columns} are too small: the second pooling would leave nothing. Expected at least "
                "12x12; use resize, as in resize=(28, 28)"
            )
        return self


# === Functional Model ===


@register_architecture("lenet5_flipout", LeNet5FlipoutConfig)
def lenet5_flipout(config: LeNet5FlipoutConfig, inputs: keras.KerasTensor) -> keras.KerasTensor:
    """LeNet-5 of flipout layers: conv 6 5x5 same, pool, conv 16 5x5 valid, pool, dense 120, dense 84, classes."""
    x = rescaled(config.pixel_max, inputs)
    if config.resize is not None:
        x = keras.layers.Resizing(*config.resize, name="resize")(x)
    first, second, third, fourth = config.widths
    hidden = {"activation": config.activation}
    x = config.convolution(2, first, 5, padding="same", name="conv1", **hidden)(x)
    x = config.after_activation(x, "conv1")
    x = keras.layers.MaxPooling2D(name="pool1")(x)
    x = config.convolution(2, second, 5, name="conv2", **hidden)(x)
    x = config.after_activation(x, "conv2")
    x = keras.layers.MaxPooling2D(name="pool2")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = config.after_activation(config.dense(third, name="dense1", **hidden)(x), "dense1")
    x = config.after_activation(config.dense(fourth, name="dense2", **hidden)(x), "dense2")
    return config.dense(config.num_outputs, name="logits")(x)

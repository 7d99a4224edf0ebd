"""A convolutional network of two wide tanh layers."""

from __future__ import annotations

from typing import Annotated

import keras
from pydantic import Field, model_validator

from zoo.architectures.base import Activation, ConvolutionalConfig, PixelMax, Width, register_architecture, rescaled

# === Config ===


class SeedCNNFlipoutConfig(ConvolutionalConfig):
    """The arguments of `seedcnn_flipout`.

    Attributes:
        widths: Filters of the two convolutions and units of the hidden dense layer.
        activation: Activation of the hidden layers.
        pixel_max: Maximum of raw pixels, which start at 0; they are divided by it. None for no rescaling.
    """

    input_shape: Annotated[tuple[Width, ...], Field(min_length=3, max_length=3)] = (28, 28, 1)
    num_outputs: Annotated[int, Field(strict=True, ge=1, le=10_000)] = 10
    widths: tuple[Width, Width, Width] = (32, 32, 64)
    activation: Activation = "tanh"
    pixel_max: PixelMax = 255.0

    @model_validator(mode="after")
    def _large_enough(self) -> SeedCNNFlipoutConfig:
        rows, columns = self.input_shape[:2]
        if min(rows, columns) < 16:
            raise ValueError(
                f"images of {rows}x{columns} are too small: the second pooling would leave nothing. Expected at least "
                "16x16"
            )
        return self


# === Functional Model ===


@register_architecture("seedcnn_flipout", SeedCNNFlipoutConfig)
def seedcnn_flipout(config: SeedCNNFlipoutConfig, inputs: keras.KerasTensor) -> keras.KerasTensor:
    """Flipout network: conv 32 5x5 valid tanh, pool, conv 32 5x5 valid tanh, pool, dense 64 tanh, classes."""
    x = rescaled(config.pixel_max, inputs)
    first, second, third = config.widths
    hidden = {"activation": config.activation}
    x = config.convolution(2, first, 5, name="conv1", **hidden)(x)
    x = config.after_activation(x, "conv1")
    x = keras.layers.MaxPooling2D(name="pool1")(x)
    x = config.convolution(2, second, 5, name="conv2", **hidden)(x)
    x = config.after_activation(x, "conv2")
    x = keras.layers.MaxPooling2D(name="pool2")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = config.after_activation(config.dense(third, name="dense1", **hidden)(x), "dense1")
    return config.dense(config.num_outputs, name="logits")(x)

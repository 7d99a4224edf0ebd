"""LeNet-5 (LeCun et al. 1998)."""

from __future__ import annotations

import keras
from pydantic import model_validator

from zoo.architectures.base import Activation, Width, register_architecture
from zoo.architectures.image_config import ImageConfig

# === Config ===


class LeNet5FlipoutConfig(ImageConfig):
    """The arguments of `lenet5_flipout`.

    Attributes:
        widths: Filters of the two convolutions and units of the two hidden dense layers.
        activation: Activation of the hidden layers.
    """

    widths: tuple[Width, Width, Width, Width] = (6, 16, 120, 84)
    activation: Activation = "relu"

    @model_validator(mode="after")
    def _large_enough(self) -> LeNet5FlipoutConfig:
        self.check_size(12, ": the second pooling would leave nothing")
        return self


# === Functional Model ===


@register_architecture("lenet5_flipout", LeNet5FlipoutConfig)
def lenet5_flipout(config: LeNet5FlipoutConfig, inputs: keras.KerasTensor) -> keras.KerasTensor:
    """LeNet-5 of flipout layers: conv 6 5x5 same, pool, conv 16 5x5 valid, pool, dense 120, dense 84, classes."""
    x = config.images(inputs)
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

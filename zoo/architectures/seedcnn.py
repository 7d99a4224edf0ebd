"""A convolutional network of two wide tanh layers."""

from __future__ import annotations

import keras
from pydantic import model_validator

from zoo.architectures.base import Activation, Width, register_architecture
from zoo.architectures.image_config import ImageConfig

# === Config ===


class SeedCNNFlipoutConfig(ImageConfig):
    """The arguments of `seedcnn_flipout`.

    Attributes:
        widths: Filters of the two convolutions and units of the hidden dense layer.
        activation: Activation of the hidden layers.
    """

    widths: tuple[Width, Width, Width] = (32, 32, 64)
    activation: Activation = "tanh"

    @model_validator(mode="after")
    def _large_enough(self) -> SeedCNNFlipoutConfig:
        self.check_size(16, ": the second pooling would leave nothing")
        return self


# === Functional Model ===


@register_architecture("seedcnn_flipout", SeedCNNFlipoutConfig)
def seedcnn_flipout(config: SeedCNNFlipoutConfig, inputs: keras.KerasTensor) -> keras.KerasTensor:
    """Flipout network: conv 32 5x5 valid tanh, pool, conv 32 5x5 valid tanh, pool, dense 64 tanh, classes."""
    x = config.images(inputs)
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

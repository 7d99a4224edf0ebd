"""One-dimensional convolutional networks for signals and series."""

from __future__ import annotations

from typing import Annotated

import keras
from pydantic import Field, model_validator

from zoo.architectures.base import Activation, Width, register_architecture
from zoo.architectures.convolutional import ConvolutionalConfig

# === Config ===


class CNN1DFlipoutConfig(ConvolutionalConfig):
    """The arguments of `cnn1d_flipout`.

    Attributes:
        input_shape: Time steps, or time steps and channels.
        widths: Filters of the convolutions, each with a stride of 2.
        sizes: Sizes of their kernels.
        activation: Activation of the hidden layers.
    """

    input_shape: Annotated[tuple[Width, ...], Field(min_length=1, max_length=2)]
    widths: Annotated[tuple[Width, ...], Field(min_length=1, max_length=8)] = (25, 25, 25)
    sizes: Annotated[tuple[Annotated[int, Field(strict=True, ge=1, le=64)], ...], Field(min_length=1)] = (5, 3, 3)
    activation: Activation = "relu"

    @model_validator(mode="after")
    def _one_size_each(self) -> CNN1DFlipoutConfig:
        if len(self.sizes) != len(self.widths):
            raise ValueError(f"there are {len(self.widths)} widths, but {len(self.sizes)} sizes. Give one for each")
        return self


# === Functional Model ===


@register_architecture("cnn1d_flipout", CNN1DFlipoutConfig)
def cnn1d_flipout(config: CNN1DFlipoutConfig, inputs: keras.KerasTensor) -> keras.KerasTensor:
    """One-dimensional convolutions with a stride of 2, named `conv1`, `conv2`, ..., then classes or targets."""
    x = inputs
    if len(config.input_shape) == 1:
        x = keras.layers.Reshape((*config.input_shape, 1), name="channel")(x)
    for index, (filters, size) in enumerate(zip(config.widths, config.sizes, strict=True), start=1):
        layer = config.convolution(
            1, filters, size, strides=2, padding="same", activation=config.activation, name=f"conv{index}"
        )
        x = config.after_activation(layer(x), layer.name)
    x = keras.layers.Flatten(name="flatten")(x)
    return config.dense(config.num_outputs, name="logits")(x)

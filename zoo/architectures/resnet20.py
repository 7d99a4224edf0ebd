"""The residual network of 20 layers for small images (He et al. 2016)."""

from __future__ import annotations

from typing import Annotated, Literal

import keras
from pydantic import Field, model_validator

from tfp_bnn.layers import FilterResponseNormalization
from zoo.architectures.base import Activation, Width, register_architecture
from zoo.architectures.image_config import ImageConfig

_BLOCKS = 3

# === Config ===


class ResNet20FlipoutConfig(ImageConfig):
    """The arguments of `resnet20_flipout`.

    Attributes:
        widths: Filters of the three stages. The second and the third begin with a stride of 2.
        activation: Activation of the hidden layers.
        normalization: `"filter_response"` normalizes each channel of each example by itself. With `"batch"`, the
            outputs of an example depend on its batch in training, and there is no likelihood of one example.
    """

    input_shape: Annotated[tuple[Width, ...], Field(min_length=3, max_length=3)] = (32, 32, 3)
    widths: tuple[Width, Width, Width] = (16, 32, 64)
    activation: Activation = "silu"
    normalization: Literal["filter_response", "batch"] = "filter_response"

    @model_validator(mode="after")
    def _large_enough(self) -> ResNet20FlipoutConfig:
        self.check_size(8, " for two strides of 2")
        return self


# === Functional Model ===


@register_architecture("resnet20_flipout", ResNet20FlipoutConfig)
def resnet20_flipout(config: ResNet20FlipoutConfig, inputs: keras.KerasTensor) -> keras.KerasTensor:
    """Residual network of 20 layers: conv 16, 3 x 3 blocks of 16, 32, 64 filters, mean over the pixels, classes."""

    def convolution(x: keras.KerasTensor, filters: int, size: int, strides: int, name: str) -> keras.KerasTensor:
        layer = config.convolution(
            2,
            filters,
            size,
            strides=strides,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            name=name,
        )
        return layer(x)

    def normalized(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        if config.normalization == "batch":
            return keras.layers.BatchNormalization(name=name)(x)
        return FilterResponseNormalization(threshold=False, name=name)(x)

    def activated(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        return keras.layers.Activation(config.activation, name=f"{name}_activation")(x)

    def block(x: keras.KerasTensor, filters: int, strides: int, name: str) -> keras.KerasTensor:
        y = activated(normalized(convolution(x, filters, 3, strides, f"{name}_conv1"), f"{name}_norm1"), f"{name}_1")
        y = config.after_activation(y, f"{name}_1")
        y = normalized(convolution(y, filters, 3, 1, f"{name}_conv2"), f"{name}_norm2")
        if strides > 1:
            x = convolution(x, filters, 1, strides, f"{name}_shortcut")
        return activated(keras.layers.Add(name=f"{name}_add")([x, y]), name)

    x = config.images(inputs)
    x = activated(normalized(convolution(x, config.widths[0], 3, 1, "conv1"), "norm1"), "conv1")
    for stage, filters in enumerate(config.widths, start=1):
        for number in range(1, _BLOCKS + 1):
            strides = 2 if stage > 1 and number == 1 else 1
            x = block(x, filters, strides, f"stage{stage}_block{number}")
    x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    return config.dense(config.num_outputs, name="logits")(x)

"""EfficientNet-Lite0: an EfficientNet (Tan and Le 2019) with ReLU6 and without squeeze-and-excite."""

from __future__ import annotations

from typing import ClassVar

import keras

from zoo.architectures.base import register_architecture
from zoo.architectures.converted import ConvertedConfig

# Of each stage: blocks, size of the depthwise kernel, stride of the first block, expansion, filters.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, TOP = 32, 1280

# === Config ===


class EfficientNetLite0FlipoutConfig(ConvertedConfig):
    """The arguments of `efficientnet_lite0_flipout`."""

    FIRST_OF_LAST_STAGE: ClassVar[str] = "block16_expand"


# === Functional Model ===


@register_architecture("efficientnet_lite0_flipout", EfficientNetLite0FlipoutConfig)
def efficientnet_lite0_flipout(config: EfficientNetLite0FlipoutConfig, inputs: keras.KerasTensor) -> keras.KerasTensor:
    """EfficientNet-Lite0 for RGB images: 16 inverted residual blocks, mean over the pixels, classes.

    The batch normalization of the published network is part of the convolutions, which is the same function once it is
    trained, and the likelihood of an image does not depend on the others in its batch. So the network is made for
    pretrained weights: without normalization it trains poorly from scratch.
    """

    def convolution(x: keras.KerasTensor, filters: int, size: int, strides: int, name: str) -> keras.KerasTensor:
        return keras.layers.Conv2D(filters, size, strides=strides, padding="same", name=name)(x)

    def activated(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        return keras.layers.ReLU(6.0, name=f"{name}_relu6")(x)

    def block(
        x: keras.KerasTensor, size: int, strides: int, expansion: int, filters: int, name: str
    ) -> keras.KerasTensor:
        y = x
        if expansion > 1:
            y = activated(convolution(y, expansion * x.shape[-1], 1, 1, f"{name}_expand"), f"{name}_expand")
        depthwise = keras.layers.DepthwiseConv2D(size, strides=strides, padding="same", name=f"{name}_depthwise")
        y = convolution(activated(depthwise(y), f"{name}_depthwise"), filters, 1, 1, f"{name}_project")
        return keras.layers.Add(name=f"{name}_add")([x, y]) if strides == 1 and filters == x.shape[-1] else y

    # As its publisher does: (pixel - 127) / 128.
    x = keras.layers.Rescaling(1 / 128, -127 / 128, name="normalize")(inputs)
    x = activated(convolution(x, STEM, 3, 2, "stem"), "stem")
    number = 0
    for blocks, size, strides, expansion, filters in STAGES:
        for place in range(blocks):
            number += 1
            x = block(x, size, strides if place == 0 else 1, expansion, filters, f"block{number}")
    x = activated(convolution(x, TOP, 1, 1, "top"), "top")
    x = config.after_activation(keras.layers.GlobalAveragePooling2D(name="mean")(x), "mean")
    return keras.layers.Dense(config.num_outputs, name="logits")(x)

"""MobileNetV2 as `keras.applications` builds it (Sandler et al. 2018)."""

from __future__ import annotations

from typing import ClassVar

import keras

from zoo.architectures.base import register_architecture
from zoo.architectures.converted import ConvertedConfig

# === Config ===


class MobileNetV2FlipoutConfig(ConvertedConfig):
    """The arguments of `mobilenet_v2_flipout`."""

    FIRST_OF_LAST_STAGE: ClassVar[str] = "block_16_expand"
    LEAST_SIZE: ClassVar[int] = 32


# === Functional Model ===


@register_architecture("mobilenet_v2_flipout", MobileNetV2FlipoutConfig)
def mobilenet_v2_flipout(config: MobileNetV2FlipoutConfig, inputs: keras.KerasTensor) -> keras.KerasTensor:
    """MobileNetV2 of keras.applications for RGB images: 17 inverted residual blocks, mean over the pixels, classes.

    Its batch normalization is frozen, so the likelihood of an image does not depend on the others in its batch.
    """
    x = keras.layers.Rescaling(1 / 127.5, -1.0, name="normalize")(inputs)
    net = keras.applications.MobileNetV2(input_tensor=x, include_top=False, weights=None, pooling="avg")
    x = config.after_activation(net.output, "mean")
    return keras.layers.Dense(config.num_outputs, name="logits")(x)

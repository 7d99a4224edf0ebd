"""A small network in the manner of VGG (Simonyan and Zisserman 2015)."""

from __future__ import annotations

from typing import Annotated

import keras
from pydantic import Field, model_validator

from tfp_bnn.layers import FilterResponseNormalization
from zoo.architectures.base import Activation, Width, register_architecture
from zoo.architectures.image_config import ImageConfig

# === Config ===


class VGGSmallFlipoutConfig(ImageConfig):
    """The arguments of `vgg_small_flipout`.

    Attributes:
        widths: Filters of each stage, which has two convolutions and a pooling.
        units: Units of the hidden dense layer.
        activation: Activation of the hidden layers.
    """

    widths: Annotated[tuple[Width, ...], Field(min_length=1, max_length=5)] = (32, 64, 128)
    units: Width = 128
    activation: Activation = "silu"

    @model_validator(mode="after")
    def _large_enough(self) -> VGGSmallFlipoutConfig:
        self.check_size(2 ** len(self.widths), f" for {len(self.widths)} poolings")
        return self


# === Functional Model ===


@register_architecture("vgg_small_flipout", VGGSmallFlipoutConfig)
def vgg_small_flipout(config: VGGSmallFlipoutConfig, inputs: keras.KerasTensor) -> keras.KerasTensor:
    """Stages of two 3x3 convolutions with filter response normalization and a pooling, then dense 128, classes."""
    x = config.images(inputs)
    for stage, filters in enumerate(config.widths, start=1):
        for number in (1, 2):
            name = f"conv{stage}_{number}"
            layer = config.convolution(
                2, filters, 3, padding="same", use_bias=False, kernel_initializer="he_normal", name=name
            )
            x = FilterResponseNormalization(threshold=False, name=f"{name}_norm")(layer(x))
            x = keras.layers.Activation(config.activation, name=f"{name}_activation")(x)
            x = config.after_activation(x, name)
        x = keras.layers.MaxPooling2D(name=f"pool{stage}")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = config.dense(config.units, activation=config.activation, name="dense1")(x)
    x = config.after_activation(x, "dense1")
    return config.dense(config.num_outputs, name="logits")(x)

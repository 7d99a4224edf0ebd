"""Multilayer perceptrons."""

from __future__ import annotations

from typing import Annotated, Literal

import keras
from pydantic import Field

from zoo.architectures.base import Activation, ArchitectureConfig, PixelMax, Width, register_architecture, rescaled

# === Config ===


class MLPFlipoutConfig(ArchitectureConfig):
    """The arguments of `mlp_flipout`.

    Attributes:
        estimator: Estimator of the layers in training.
        hidden: Widths of the hidden layers; empty for a linear model.
        activation: Activation of the hidden layers.
        pixel_max: Maximum of raw pixels, which start at 0; they are divided by it. None for no rescaling.
    """

    estimator: Literal["flipout", "reparameterization"] = "flipout"
    hidden: Annotated[tuple[Width, ...], Field(max_length=16)] = (100,)
    activation: Activation = "relu"
    pixel_max: PixelMax = None


# === Functional Model ===


@register_architecture("mlp_flipout", MLPFlipoutConfig)
def mlp_flipout(config: MLPFlipoutConfig, inputs: keras.KerasTensor) -> keras.KerasTensor:
    """Multilayer perceptron of Bayesian dense layers, named `dense1`, `dense2`, ..., `logits`."""
    x = rescaled(config.pixel_max, inputs)
    if len(config.input_shape) > 1:
        x = keras.layers.Flatten(name="flatten")(x)
    for index, width in enumerate(config.hidden, start=1):
        layer = config.dense(width, activation=config.activation, name=f"dense{index}")
        x = config.after_activation(layer(x), layer.name)
    return config.dense(config.num_outputs, name="logits")(x)

"""A small network whose first layer sees the squared inputs too."""

from typing import Annotated

import keras
from pydantic import Field

import zoo
from tfp_bnn.layers import DenseFlipout
from zoo.architectures import ArchitectureConfig


class OutsideMLPConfig(ArchitectureConfig):
    """The arguments of `outside_mlp`.

    Attributes:
        hidden: Width of the hidden layer.
    """

    hidden: Annotated[int, Field(strict=True, ge=1, le=512)] = 16


@zoo.register_architecture("outside_mlp", OutsideMLPConfig)
def outside_mlp(config, inputs):
    """One hidden layer on the inputs and their squares."""
    x = keras.layers.Concatenate(name="features")([inputs, inputs * inputs])
    x = DenseFlipout(config.hidden, activation="relu", name="hidden", **config.kernel_arguments)(x)
    return DenseFlipout(config.num_outputs, name="logits", **config.kernel_arguments)(x)

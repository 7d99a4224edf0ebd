"""Recurrent networks for series."""

from __future__ import annotations

from typing import Annotated, Literal

import keras
from pydantic import Field

from tfp_bnn.layers import LSTMFlipout
from zoo.architectures.base import ArchitectureConfig, Width, register_architecture

# === Config ===


class LSTMFlipoutConfig(ArchitectureConfig):
    """The arguments of `lstm_flipout`.

    Attributes:
        input_shape: Time steps, or time steps and channels.
        estimator: The only one of these layers.
        units: Units of each LSTM layer.
    """

    input_shape: Annotated[tuple[Width, ...], Field(min_length=1, max_length=2)]
    estimator: Literal["flipout"] = "flipout"
    units: Annotated[tuple[Width, ...], Field(min_length=1, max_length=8)] = (32,)


# === Functional Model ===


@register_architecture("lstm_flipout", LSTMFlipoutConfig)
def lstm_flipout(config: LSTMFlipoutConfig, inputs: keras.KerasTensor) -> keras.KerasTensor:
    """LSTM layers, named `lstm1`, `lstm2`, ..., whose last state gives classes or targets."""
    x = inputs
    if len(config.input_shape) == 1:
        x = keras.layers.Reshape((*config.input_shape, 1), name="channel")(x)
    of_kernel = config.kernel_arguments
    of_recurrent = {name.replace("kernel", "recurrent"): value for name, value in of_kernel.items()}
    for index, units in enumerate(config.units, start=1):
        more = index < len(config.units)
        x = LSTMFlipout(units, return_sequences=more, name=f"lstm{index}", **of_kernel, **of_recurrent)(x)
        x = config.after_activation(x, f"lstm{index}")
    return config.dense(config.num_outputs, name="logits")(x)

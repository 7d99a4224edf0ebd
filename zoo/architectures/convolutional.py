"""What the architectures of convolutions share."""

from __future__ import annotations

from typing import Annotated, Any

import keras
from pydantic import Field

from tfp_bnn.layers import (
    Convolution1DFlipout,
    Convolution1DReparameterization,
    Convolution2DFlipout,
    Convolution2DReparameterization,
)
from zoo.architectures.base import ArchitectureConfig

_CONVOLUTIONS = {
    1: (Convolution1DFlipout, Convolution1DReparameterization),
    2: (Convolution2DFlipout, Convolution2DReparameterization),
}


class ConvolutionalConfig(ArchitectureConfig):
    """Config shared by architectures of convolutions.

    Attributes:
        groups_of_noise: Number of groups of the estimator `"grouped"`, in the convolutions.
    """

    groups_of_noise: Annotated[int, Field(strict=True, ge=2, le=128)] = 4

    def convolution(self, rank: int, filters: int, size: int, **arguments: Any) -> keras.layers.Layer:
        """Makes a Bayesian convolution of the estimator and the distributions of the config.

        Args:
            rank: Number of positional axes, 1 or 2.
            filters: Number of filters.
            size: Size of the kernel along each axis.
            **arguments: Further arguments of the layer.
        """
        flipout, reparameterization = _CONVOLUTIONS[rank]
        filters = self.layer_units.get(arguments.get("name", ""), filters)
        arguments |= self.kernel_arguments
        if self.estimator == "reparameterization":
            return reparameterization(filters, size, **arguments)
        if self.estimator == "grouped":
            arguments["groups_of_noise"] = self.groups_of_noise
        return flipout(filters, size, **arguments)

"""Bayesian layers for Keras 3."""

from tfp_bnn.layers.base import VariationalLayer
from tfp_bnn.layers.convolution import (
    Conv2DFlipout,
    Conv2DReparameterization,
    Convolution2DFlipout,
    Convolution2DReparameterization,
)
from tfp_bnn.layers.dense import DenseFlipout, DenseReparameterization

__all__ = [
    "Conv2DFlipout",
    "Conv2DReparameterization",
    "Convolution2DFlipout",
    "Convolution2DReparameterization",
    "DenseFlipout",
    "DenseReparameterization",
    "VariationalLayer",
]

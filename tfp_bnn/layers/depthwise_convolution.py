"""Bayesian depthwise and separable convolutions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import keras
import tensorflow as tf

from tfp_bnn.core.noise import NoiseSource
from tfp_bnn.layers.estimators import Estimator
from tfp_bnn.layers.grouped_flipout import FlipoutConvolution
from tfp_bnn.layers.operations import Convolution, DepthwiseConvolution, LinearOperation


@keras.saving.register_keras_serializable(package="tfp_bnn")
class DepthwiseConvolution2DFlipout(FlipoutConvolution, keras.layers.DepthwiseConv2D):
    """Two-dimensional depthwise Bayesian convolution, trained with flipout.

    Alias: `DepthwiseConv2DFlipout`.

    kernel ~ q(kernel);   outputs = activation(depthwise_convolution(inputs, kernel) + bias)

    Every input channel is convolved separately, with `depth_multiplier` kernels. In training, each example sees its own
    perturbation of the mean, with signs of exactly +1 or -1 for each input and each output channel. Costs two
    convolutions; requires a posterior that is symmetric and independent per weight.

    `kl()` is KL(q || prior) in nats, summed over the weights and not scaled. A `VariationalModel` divides it by N.

    Args: Those of `keras.layers.DepthwiseConv2D`; initializer, regularizer and constraint of the kernel act on its
        posterior mean. `kernel_prior`, `kernel_posterior`, `bias_prior`, `bias_posterior`, `groups_of_noise`,
        `seed` and `kl_weight` are those of `Convolution2DFlipout`.

    Input shape: `(batch, rows, columns, channels)`, or channels first.
    Output shape: `(batch, new_rows, new_columns, channels * depth_multiplier)`, or channels first, in the compute
    dtype; variational parameters and KL are float32 under any dtype policy.

    The noise is that of `Convolution2DFlipout`.

    Example:
        >>> import numpy as np, tfp_bnn
        >>> layer = tfp_bnn.layers.DepthwiseConvolution2DFlipout(3, depth_multiplier=2, seed=0)
        >>> layer(np.ones((2, 8, 8, 3), "float32"), training=True).shape
        TensorShape([2, 6, 6, 6])

    References:
        Wen et al. 2018, https://arxiv.org/abs/1803.04386
        Chollet 2017, Xception, https://arxiv.org/abs/1610.02357
    """

    @property
    def operation(self) -> LinearOperation:
        """The depthwise convolution, with the layer's strides, padding and dilation."""
        return DepthwiseConvolution(self.strides, self.padding, self.dilation_rate, self.data_format)


@keras.saving.register_keras_serializable(package="tfp_bnn")
class SeparableConvolution2DFlipout(FlipoutConvolution, keras.layers.SeparableConv2D):
    """Two-dimensional depthwise separable Bayesian convolution, trained with flipout.

    Alias: `SeparableConv2DFlipout`.

    depthwise_kernel ~ q(depthwise_kernel);   pointwise_kernel ~ q(pointwise_kernel)
    outputs = activation(convolution(depthwise_convolution(inputs, depthwise_kernel), pointwise_kernel) + bias)

    In training, each example sees its own perturbations of both means, with signs of exactly +1 or -1 per channel,
    drawn separately for each kernel. Costs four convolutions; requires a posterior that is symmetric and independent
    per weight.

    `kl()` is KL(q || prior) in nats, summed over the weights of both kernels and not scaled. A `VariationalModel`
    divides it by N.

    Args: Those of `keras.layers.SeparableConv2D`; initializers, regularizers and constraints of the kernels act on
        their posterior means. `depthwise_prior`, `depthwise_posterior`, `pointwise_prior` and `pointwise_posterior`
        correspond to `kernel_prior` and `kernel_posterior` of `Convolution2DFlipout`; `bias_prior`, `bias_posterior`,
        `groups_of_noise`, for both kernels, `seed` and `kl_weight` are the same.

    Input shape: `(batch, rows, columns, channels)`, or channels first.
    Output shape: `(batch, new_rows, new_columns, filters)`, or channels first, in the compute dtype; variational
    parameters and KL are float32 under any dtype policy.

    The noise is that of `Convolution2DFlipout`.

    Example:
        >>> import numpy as np, tfp_bnn
        >>> layer = tfp_bnn.layers.SeparableConvolution2DFlipout(4, 3, pointwise_prior="laplace", seed=0)
        >>> layer(np.ones((2, 8, 8, 3), "float32"), training=True).shape
        TensorShape([2, 6, 6, 4])

    References:
        Wen et al. 2018, https://arxiv.org/abs/1803.04386
        Chollet 2017, Xception, https://arxiv.org/abs/1610.02357
    """

    bayesian_weights: ClassVar[Mapping[str, str]] = {
        "depthwise_kernel": "depthwise",
        "pointwise_kernel": "pointwise",
        "bias": "bias",
    }

    def transform(self, estimator: Estimator, inputs: tf.Tensor, noise: NoiseSource) -> tf.Tensor:
        """Computes the two convolutions, before the activation."""
        weights = self.variational_weights
        depthwise = DepthwiseConvolution(self.strides, self.padding, self.dilation_rate, self.data_format)
        pointwise = Convolution((1, 1), "valid", (1, 1), self.data_format)
        between = estimator(depthwise, inputs, weights["depthwise_kernel"], None, noise)
        return estimator(pointwise, between, weights["pointwise_kernel"], weights.get("bias", self.bias), noise)


DepthwiseConv2DFlipout = DepthwiseConvolution2DFlipout
SeparableConv2DFlipout = SeparableConvolution2DFlipout

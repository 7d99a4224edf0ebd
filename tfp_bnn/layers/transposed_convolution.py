"""Bayesian transposed convolution."""

from __future__ import annotations

import keras

from tfp_bnn.layers.base import VariationalLayer
from tfp_bnn.layers.estimators import Flipout
from tfp_bnn.layers.operations import LinearOperation, TransposedConvolution


@keras.saving.register_keras_serializable(package="tfp_bnn")
class Convolution2DTransposeFlipout(VariationalLayer, keras.layers.Conv2DTranspose):
    """Two-dimensional transposed Bayesian convolution, trained with flipout, for decoders and segmentation.

    Alias: `Conv2DTransposeFlipout`.

    kernel ~ q(kernel);   outputs = activation(transposed_convolution(inputs, kernel) + bias)

    In training, each example sees its own perturbation of the mean, with signs of exactly +1 or -1 for each input and
    each output channel. Costs two transposed convolutions; requires a posterior that is symmetric and independent per
    weight.

    `kl()` is KL(q || prior) in nats, summed over the weights and not scaled. A `VariationalModel` divides it by N.

    Args: Those of `keras.layers.Conv2DTranspose`; initializer, regularizer and constraint of the kernel act on its
        posterior mean. `kernel_prior`, `kernel_posterior`, `bias_prior`, `bias_posterior`, `seed` and `kl_weight` are
        those of `Convolution2DFlipout`.

    Input shape: `(batch, rows, columns, channels)`, or channels first.
    Output shape: `(batch, new_rows, new_columns, filters)`, or channels first, in the compute dtype; variational
    parameters and KL are float32 under any dtype policy.

    The noise is that of `Convolution2DFlipout`.

    Example:
        >>> import numpy as np, tfp_bnn
        >>> layer = tfp_bnn.layers.Convolution2DTransposeFlipout(4, 3, strides=2, padding="same", seed=0)
        >>> layer(np.ones((2, 8, 8, 3), "float32"), training=True).shape
        TensorShape([2, 16, 16, 4])

    References:
        Wen et al. 2018, https://arxiv.org/abs/1803.04386
    """

    estimator = Flipout()

    @property
    def operation(self) -> LinearOperation:
        """The transposed convolution, with the layer's strides, padding and dilation."""
        return TransposedConvolution(
            self.strides, self.padding, self.dilation_rate, self.data_format, self.output_padding
        )


Conv2DTransposeFlipout = Convolution2DTransposeFlipout

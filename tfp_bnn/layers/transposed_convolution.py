"""Bayesian transposed convolutions."""

from __future__ import annotations

import keras

from tfp_bnn.layers.grouped_flipout import FlipoutConvolution
from tfp_bnn.layers.operations import LinearOperation, TransposedConvolution


class _VariationalTransposedConvolution(FlipoutConvolution):
    """A transposed Keras convolution with a distribution over its kernel."""

    @property
    def operation(self) -> LinearOperation:
        """The transposed convolution, with the layer's strides, padding and dilation."""
        return TransposedConvolution(
            self.strides, self.padding, self.dilation_rate, self.data_format, self.output_padding
        )


@keras.saving.register_keras_serializable(package="tfp_bnn")
class Convolution1DTransposeFlipout(_VariationalTransposedConvolution, keras.layers.Conv1DTranspose):
    """One-dimensional transposed Bayesian convolution, trained with flipout, for decoders of sequences.

    Alias: `Conv1DTransposeFlipout`.

    kernel ~ q(kernel);   outputs = activation(transposed_convolution(inputs, kernel) + bias)

    Estimator, cost, KL, args, dtypes and randomness are those of `Convolution2DTransposeFlipout`.

    Input shape: `(batch, steps, channels)`, or channels first.
    Output shape: `(batch, new_steps, filters)`, or channels first.

    Example:
        >>> import numpy as np, tfp_bnn
        >>> layer = tfp_bnn.layers.Convolution1DTransposeFlipout(4, 3, strides=2, padding="same", seed=0)
        >>> layer(np.ones((2, 8, 3), "float32"), training=True).shape
        TensorShape([2, 16, 4])

    References:
        Wen et al. 2018, https://arxiv.org/abs/1803.04386
    """


@keras.saving.register_keras_serializable(package="tfp_bnn")
class Convolution2DTransposeFlipout(_VariationalTransposedConvolution, keras.layers.Conv2DTranspose):
    """Two-dimensional transposed Bayesian convolution, trained with flipout, for decoders and segmentation.

    Alias: `Conv2DTransposeFlipout`.

    kernel ~ q(kernel);   outputs = activation(transposed_convolution(inputs, kernel) + bias)

    In training, each example sees its own perturbation of the mean, with signs of exactly +1 or -1 for each input and
    each output channel. Costs two transposed convolutions; requires a posterior that is symmetric and independent per
    weight.

    `kl()` is KL(q || prior) in nats, summed over the weights and not scaled. A `VariationalModel` divides it by N.

    Args: Those of `keras.layers.Conv2DTranspose`; initializer, regularizer and constraint of the kernel act on its
        posterior mean. `kernel_prior`, `kernel_posterior`, `bias_prior`, `bias_posterior`, `groups_of_noise`, `seed`
        and `kl_weight` are those of `Convolution2DFlipout`.

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


Conv1DTransposeFlipout = Convolution1DTransposeFlipout
Conv2DTransposeFlipout = Convolution2DTransposeFlipout

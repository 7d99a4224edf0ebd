"""Bayesian convolutions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from tfp_bnn.layers.base import VariationalLayer
from tfp_bnn.layers.estimators import Flipout, Reparameterization
from tfp_bnn.layers.operations import Convolution, LinearOperation
from tfp_bnn.posteriors import Posterior
from tfp_bnn.priors import Prior


class _VariationalConvolution2D(VariationalLayer, keras.layers.Conv2D):
    """`keras.layers.Conv2D` with a distribution over its kernel."""

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        strides: int | tuple[int, int] = (1, 1),
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: int | tuple[int, int] = (1, 1),
        groups: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        kernel_prior: str | Mapping[str, Any] | Prior = "normal",
        kernel_posterior: str | Mapping[str, Any] | Posterior = "mean_field_normal",
        bias_prior: str | Mapping[str, Any] | Prior | None = None,
        bias_posterior: str | Mapping[str, Any] | Posterior | None = None,
        seed: int | None = None,
        kl_weight: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            filters,
            kernel_size,
            strides=strides,
            padding=padding,
            data_format=data_format,
            dilation_rate=dilation_rate,
            groups=groups,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            kernel_prior=kernel_prior,
            kernel_posterior=kernel_posterior,
            bias_prior=bias_prior,
            bias_posterior=bias_posterior,
            seed=seed,
            kl_weight=kl_weight,
            **kwargs,
        )

    @property
    def operation(self) -> LinearOperation:
        """The convolution, with the layer's strides, padding and dilation."""
        return Convolution(self.strides, self.padding, self.dilation_rate, self.data_format)


@keras.saving.register_keras_serializable(package="tfp_bnn")
class Convolution2DFlipout(_VariationalConvolution2D):
    """Two-dimensional Bayesian convolution, trained with flipout.

    Alias: `Conv2DFlipout`.

    kernel ~ q(kernel);   outputs = activation(convolution(inputs, kernel) + bias)

    In training each example n sees its own perturbation of the mean:
    convolution(inputs_n, mean) + convolution(inputs_n * s_n, perturbation) * r_n, with signs s_n, r_n of exactly +1 or
    -1, one per channel. Two convolutions; exists for posteriors that are symmetric and independent per weight.

    `kl()` is KL(q || prior) in nats, summed over the weights, not scaled; a `VariationalModel` divides it by N.

    Args:
        filters: positive integer, the number of output channels.
        kernel_size: an integer or a pair.
        strides: an integer or a pair. Default: 1.
        padding: `"valid"` or `"same"`. Default: `"valid"`.
        data_format: `"channels_last"` or `"channels_first"`. Default: Keras' image data format.
        dilation_rate: an integer or a pair. Default: 1.
        groups: number of groups, dividing input channels and filters. Default: 1.
        activation: as in `keras.layers.Conv2D`. Default: none.
        use_bias: whether there is a bias. Default: True.
        kernel_initializer: initializer of the posterior mean of the kernel. Default: `"glorot_uniform"`.
        bias_initializer: initializer of the bias, or of its posterior mean. Default: `"zeros"`.
        kernel_regularizer: acts on the posterior mean, beside the prior. Default: none.
        bias_regularizer: acts on the bias, or on its posterior mean. Default: none.
        activity_regularizer: as in Keras. Default: none.
        kernel_constraint: acts on the posterior mean. Default: none.
        bias_constraint: acts on the bias, or on its posterior mean. Default: none.
        kernel_prior: a name, config or object of `tfp_bnn.priors`. Default: `"normal"`, N(0, 1).
        kernel_posterior: a name, config or object of `tfp_bnn.posteriors`. Default: `"mean_field_normal"`.
        bias_prior: prior of a Bayesian bias. Default: `"normal"` where `bias_posterior` is given.
        bias_posterior: posterior family of the bias. Default: None, a deterministic bias.
        seed: integer for the noise of the layer used outside of a `VariationalModel`. Default: drawn from Keras' global
            seed.
        kl_weight: see `VariationalLayer`; for plain `keras.Model`s only. Default: None.

    Input shape: `(batch, rows, columns, channels)`, or `(batch, channels, rows, columns)` with `"channels_first"`.
    Output shape: `(batch, new_rows, new_columns, filters)`, or channels first, in the compute dtype; variational
    parameters and KL are float32 under any dtype policy.

    Noise is counter-based: in a `VariationalModel` from the model's seed, step and layer; elsewhere from two counters
    of the layer, one for training and one for evaluation, saved with it. `training=False` takes one plain draw
    for the whole batch.

    Example:
        >>> import numpy as np, tfp_bnn
        >>> layer = tfp_bnn.layers.Convolution2DFlipout(4, 3, padding="same", seed=0)
        >>> layer(np.ones((2, 8, 8, 1), "float32"), training=True).shape
        TensorShape([2, 8, 8, 4])

    References:
        Wen et al. 2018, Flipout: Efficient Pseudo-Independent Weight Perturbations on Mini-Batches,
        https://arxiv.org/abs/1803.04386
    """

    estimator = Flipout()


@keras.saving.register_keras_serializable(package="tfp_bnn")
class Convolution2DReparameterization(_VariationalConvolution2D):
    """Two-dimensional Bayesian convolution, trained with the reparameterization estimator.

    Alias: `Conv2DReparameterization`.

    kernel ~ q(kernel);   outputs = activation(convolution(inputs, kernel) + bias)

    One draw of the kernel serves the whole batch: one convolution, but the noise of the gradient does not fall with the
    batch size.

    `kl()` is KL(q || prior) in nats, summed over the weights, not scaled; a `VariationalModel` divides it by N.

    Args, shapes, dtypes and randomness are those of `Convolution2DFlipout`, with any posterior.

    Example:
        >>> import numpy as np, tfp_bnn
        >>> layer = tfp_bnn.layers.Convolution2DReparameterization(4, 3, strides=2, seed=0)
        >>> layer(np.ones((2, 9, 9, 1), "float32")).shape
        TensorShape([2, 4, 4, 4])

    References:
        Kingma and Welling 2014, Auto-Encoding Variational Bayes, https://arxiv.org/abs/1312.6114
        Blundell et al. 2015, Weight Uncertainty in Neural Networks, https://arxiv.org/abs/1505.05424
    """

    estimator = Reparameterization()


Conv2DFlipout = Convolution2DFlipout
Conv2DReparameterization = Convolution2DReparameterization

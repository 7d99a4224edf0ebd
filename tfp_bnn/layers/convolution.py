"""Bayesian convolutions in one, two and three dimensions."""

from __future__ import annotations

import keras

from tfp_bnn.layers.base import VariationalLayer
from tfp_bnn.layers.estimators import Flipout, LocalReparameterization, Reparameterization
from tfp_bnn.layers.operations import Convolution, LinearOperation


class _VariationalConvolution(VariationalLayer):
    """A Keras convolution with a distribution over its kernel."""

    @property
    def operation(self) -> LinearOperation:
        """The convolution, with the layer's strides, padding and dilation."""
        return Convolution(self.strides, self.padding, self.dilation_rate, self.data_format)


@keras.saving.register_keras_serializable(package="tfp_bnn")
class Convolution2DFlipout(_VariationalConvolution, keras.layers.Conv2D):
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
class Convolution1DFlipout(_VariationalConvolution, keras.layers.Conv1D):
    """One-dimensional Bayesian convolution, trained with flipout.

    Alias: `Conv1DFlipout`.

    kernel ~ q(kernel);   outputs = activation(convolution(inputs, kernel) + bias)

    Estimator, cost, KL, args (`padding` may be `"causal"`), dtypes and randomness are those of `Convolution2DFlipout`.

    Input shape: `(batch, steps, channels)`, or channels first.
    Output shape: likewise, with `filters` channels.

    Example:
        >>> import numpy as np, tfp_bnn
        >>> layer = tfp_bnn.layers.Convolution1DFlipout(4, 3, padding="causal", seed=0)
        >>> layer(np.ones((2, 8, 1), "float32"), training=True).shape
        TensorShape([2, 8, 4])

    References:
        Wen et al. 2018, https://arxiv.org/abs/1803.04386
    """

    estimator = Flipout()


@keras.saving.register_keras_serializable(package="tfp_bnn")
class Convolution3DFlipout(_VariationalConvolution, keras.layers.Conv3D):
    """Three-dimensional Bayesian convolution, trained with flipout.

    Alias: `Conv3DFlipout`.

    kernel ~ q(kernel);   outputs = activation(convolution(inputs, kernel) + bias)

    Estimator, cost, KL, args, dtypes and randomness are those of `Convolution2DFlipout`.

    Input shape: `(batch, dim1, dim2, dim3, channels)`, or channels first.
    Output shape: likewise, with `filters` channels.

    Example:
        >>> import numpy as np, tfp_bnn
        >>> layer = tfp_bnn.layers.Convolution3DFlipout(4, 3, padding="same", seed=0)
        >>> layer(np.ones((2, 5, 5, 5, 1), "float32"), training=True).shape
        TensorShape([2, 5, 5, 5, 4])

    References:
        Wen et al. 2018, https://arxiv.org/abs/1803.04386
    """

    estimator = Flipout()


@keras.saving.register_keras_serializable(package="tfp_bnn")
class Convolution1DReparameterization(_VariationalConvolution, keras.layers.Conv1D):
    """One-dimensional Bayesian convolution, trained with the reparameterization estimator.

    Alias: `Conv1DReparameterization`.

    kernel ~ q(kernel);   outputs = activation(convolution(inputs, kernel) + bias)

    One draw of the kernel serves the whole batch: one convolution, but the noise of the gradient does not fall with the
    batch size.

    `kl()` is KL(q || prior) in nats, summed over the weights, not scaled; a `VariationalModel` divides it by N.

    Args, shapes, dtypes and randomness are those of `Convolution1DFlipout`, with any posterior.

    Example:
        >>> import numpy as np, tfp_bnn
        >>> layer = tfp_bnn.layers.Convolution1DReparameterization(4, 3, strides=2, seed=0)
        >>> layer(np.ones((2, 9, 1), "float32")).shape
        TensorShape([2, 4, 4])

    References:
        Kingma and Welling 2014, Auto-Encoding Variational Bayes, https://arxiv.org/abs/1312.6114
        Blundell et al. 2015, Weight Uncertainty in Neural Networks, https://arxiv.org/abs/1505.05424
    """

    estimator = Reparameterization()


@keras.saving.register_keras_serializable(package="tfp_bnn")
class Convolution1DLocalReparameterization(_VariationalConvolution, keras.layers.Conv1D):
    """One-dimensional Bayesian convolution, trained with the local reparameterization estimator.

    Alias: `Conv1DLocalReparameterization`.

    kernel ~ q(kernel);   outputs = activation(convolution(inputs, kernel) + bias)

    In training the outputs are drawn instead of the kernel: N(convolution(inputs, mean), convolution(inputs^2,
    variance)), independent for each example, position and filter. Two convolutions; exists for the posterior
    `mean_field_normal`. Every output has its exact marginal, but two positions are drawn independently where one kernel
    would make them correlated: an approximation of the joint distribution.

    `kl()` is KL(q || prior) in nats, summed over the weights, not scaled; a `VariationalModel` divides it by N.

    Args, shapes, dtypes and randomness are those of `Convolution1DFlipout`.

    Example:
        >>> import numpy as np, tfp_bnn
        >>> layer = tfp_bnn.layers.Convolution1DLocalReparameterization(4, 3, strides=2, seed=0)
        >>> layer(np.ones((2, 9, 1), "float32"), training=True).shape
        TensorShape([2, 4, 4])

    References:
        Kingma, Salimans and Welling 2015, https://arxiv.org/abs/1506.02557
        Shridhar et al. 2019, A Comprehensive guide to Bayesian Convolutional Neural Networks,
        https://arxiv.org/abs/1901.02731
    """

    estimator = LocalReparameterization()


@keras.saving.register_keras_serializable(package="tfp_bnn")
class Convolution2DReparameterization(_VariationalConvolution, keras.layers.Conv2D):
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


@keras.saving.register_keras_serializable(package="tfp_bnn")
class Convolution2DLocalReparameterization(_VariationalConvolution, keras.layers.Conv2D):
    """Two-dimensional Bayesian convolution, trained with the local reparameterization estimator.

    Alias: `Conv2DLocalReparameterization`.

    kernel ~ q(kernel);   outputs = activation(convolution(inputs, kernel) + bias)

    In training the outputs are drawn instead of the kernel: N(convolution(inputs, mean), convolution(inputs^2,
    variance)), independent for each example, position and filter. Two convolutions; exists for the posterior
    `mean_field_normal`. Every output has its exact marginal, but two positions are drawn independently where one kernel
    would make them correlated: an approximation of the joint distribution.

    `kl()` is KL(q || prior) in nats, summed over the weights, not scaled; a `VariationalModel` divides it by N.

    Args, shapes, dtypes and randomness are those of `Convolution2DFlipout`.

    Example:
        >>> import numpy as np, tfp_bnn
        >>> layer = tfp_bnn.layers.Convolution2DLocalReparameterization(4, 3, strides=2, seed=0)
        >>> layer(np.ones((2, 9, 9, 1), "float32"), training=True).shape
        TensorShape([2, 4, 4, 4])

    References:
        Kingma, Salimans and Welling 2015, https://arxiv.org/abs/1506.02557
        Shridhar et al. 2019, A Comprehensive guide to Bayesian Convolutional Neural Networks,
        https://arxiv.org/abs/1901.02731
    """

    estimator = LocalReparameterization()


@keras.saving.register_keras_serializable(package="tfp_bnn")
class Convolution3DReparameterization(_VariationalConvolution, keras.layers.Conv3D):
    """Three-dimensional Bayesian convolution, trained with the reparameterization estimator.

    Alias: `Conv3DReparameterization`.

    kernel ~ q(kernel);   outputs = activation(convolution(inputs, kernel) + bias)

    One draw of the kernel serves the whole batch: one convolution, but the noise of the gradient does not fall with the
    batch size.

    `kl()` is KL(q || prior) in nats, summed over the weights, not scaled; a `VariationalModel` divides it by N.

    Args, shapes, dtypes and randomness are those of `Convolution3DFlipout`, with any posterior.

    Example:
        >>> import numpy as np, tfp_bnn
        >>> layer = tfp_bnn.layers.Convolution3DReparameterization(4, 3, strides=2, seed=0)
        >>> layer(np.ones((2, 5, 5, 5, 1), "float32")).shape
        TensorShape([2, 2, 2, 2, 4])

    References:
        Kingma and Welling 2014, Auto-Encoding Variational Bayes, https://arxiv.org/abs/1312.6114
        Blundell et al. 2015, Weight Uncertainty in Neural Networks, https://arxiv.org/abs/1505.05424
    """

    estimator = Reparameterization()


@keras.saving.register_keras_serializable(package="tfp_bnn")
class Convolution3DLocalReparameterization(_VariationalConvolution, keras.layers.Conv3D):
    """Three-dimensional Bayesian convolution, trained with the local reparameterization estimator.

    Alias: `Conv3DLocalReparameterization`.

    kernel ~ q(kernel);   outputs = activation(convolution(inputs, kernel) + bias)

    In training the outputs are drawn instead of the kernel: N(convolution(inputs, mean), convolution(inputs^2,
    variance)), independent for each example, position and filter. Two convolutions; exists for the posterior
    `mean_field_normal`. Every output has its exact marginal, but two positions are drawn independently where one kernel
    would make them correlated: an approximation of the joint distribution.

    `kl()` is KL(q || prior) in nats, summed over the weights, not scaled; a `VariationalModel` divides it by N.

    Args, shapes, dtypes and randomness are those of `Convolution3DFlipout`.

    Example:
        >>> import numpy as np, tfp_bnn
        >>> layer = tfp_bnn.layers.Convolution3DLocalReparameterization(4, 3, strides=2, seed=0)
        >>> layer(np.ones((2, 5, 5, 5, 1), "float32"), training=True).shape
        TensorShape([2, 2, 2, 2, 4])

    References:
        Kingma, Salimans and Welling 2015, https://arxiv.org/abs/1506.02557
        Shridhar et al. 2019, A Comprehensive guide to Bayesian Convolutional Neural Networks,
        https://arxiv.org/abs/1901.02731
    """

    estimator = LocalReparameterization()


Conv1DFlipout = Convolution1DFlipout
Conv1DReparameterization = Convolution1DReparameterization
Conv1DLocalReparameterization = Convolution1DLocalReparameterization
Conv2DFlipout = Convolution2DFlipout
Conv2DReparameterization = Convolution2DReparameterization
Conv2DLocalReparameterization = Convolution2DLocalReparameterization
Conv3DFlipout = Convolution3DFlipout
Conv3DReparameterization = Convolution3DReparameterization
Conv3DLocalReparameterization = Convolution3DLocalReparameterization

"""Bayesian convolutions in one, two and three dimensions."""

from __future__ import annotations

import keras

from tfp_bnn.layers.base import VariationalLayer
from tfp_bnn.layers.estimators import LocalReparameterization, Reparameterization
from tfp_bnn.layers.grouped_flipout import FlipoutConvolution
from tfp_bnn.layers.operations import Convolution, LinearOperation


class _VariationalConvolution(VariationalLayer):
    """A Keras convolution with a distribution over its kernel."""

    @property
    def operation(self) -> LinearOperation:
        """The convolution, with the layer's strides, padding and dilation."""
        return Convolution(self.strides, self.padding, self.dilation_rate, self.data_format)


@keras.saving.register_keras_serializable(package="tfp_bnn")
class Convolution2DFlipout(FlipoutConvolution, _VariationalConvolution, keras.layers.Conv2D):
    """Two-dimensional Bayesian convolution, trained with flipout.

    Alias: `Conv2DFlipout`.

    kernel ~ q(kernel);   outputs = activation(convolution(inputs, kernel) + bias)

    In training, each example n sees its own perturbation of the mean:
    convolution(inputs_n, mean) + convolution(inputs_n * s_n, perturbation) * r_n, with signs s_n, r_n of exactly +1 or
    -1, one per channel. Costs two convolutions; requires a posterior that is symmetric and independent per weight.

    With `groups_of_noise=K` the estimator is grouped flipout: the examples n with the same n mod K = k share the kernel
    mean + perturbation * s_j r_j^T for even k = 2j, and mean - perturbation * s_j r_j^T for odd k = 2j + 1. Costs one
    convolution; what is odd in the perturbation cancels within each pair of groups of the gradient.

    `kl()` is KL(q || prior) in nats, summed over the weights and not scaled. A `VariationalModel` divides it by N.

    Args:
        filters: Positive integer, the number of output channels.
        kernel_size: An integer or a pair.
        strides: An integer or a pair. Default: 1.
        padding: `"valid"` or `"same"`. Default: `"valid"`.
        data_format: `"channels_last"` or `"channels_first"`. Default: Keras' image data format.
        dilation_rate: An integer or a pair. Default: 1.
        groups: Number of groups; must divide the input channels and the filters. Default: 1.
        activation: As in `keras.layers.Conv2D`. Default: none.
        use_bias: Whether the layer has a bias. Default: True.
        kernel_initializer: Initializer of the posterior mean of the kernel. Default: `"glorot_uniform"`.
        bias_initializer: Initializer of the bias, or of its posterior mean. Default: `"zeros"`.
        kernel_regularizer: Regularizer of the posterior mean, in addition to the prior. Default: none.
        bias_regularizer: Regularizer of the bias, or of its posterior mean. Default: none.
        activity_regularizer: As in Keras. Default: none.
        kernel_constraint: Constraint on the posterior mean. Default: none.
        bias_constraint: Constraint on the bias, or on its posterior mean. Default: none.
        kernel_prior: Prior of the kernel: a name, config or object of `tfp_bnn.priors`. Default: `"normal"`, N(0, 1).
        kernel_posterior: Posterior family of the kernel: a name, config or object of `tfp_bnn.posteriors`. Default:
            `"mean_field_normal"`.
        bias_prior: Prior of a Bayesian bias. Default: `"normal"` if `bias_posterior` is given.
        bias_posterior: Posterior family of the bias. Default: None, a deterministic bias.
        groups_of_noise: Integer of at least 2, the number K of groups of grouped flipout, such as 4. Default: None,
            flipout. Not to be confused with `groups`, which divides the channels.
        seed: Integer seed of the layer's noise outside a `VariationalModel`. Default: drawn from Keras' global seed.
        kl_weight: Weight of the KL, only for a plain `keras.Model`; see `VariationalLayer`. Default: None.

    Input shape: `(batch, rows, columns, channels)`, or `(batch, channels, rows, columns)` with `"channels_first"`.
    Output shape: `(batch, new_rows, new_columns, filters)`, or channels first, in the compute dtype; variational
    parameters and KL are float32 under any dtype policy.

    Noise is counter-based. In a `VariationalModel` it comes from the model's seed, step and layer; elsewhere from two
    counters of the layer, one for training and one for evaluation, which are saved with it. With `training=False` the
    whole batch shares one plain draw.

    Example:
        >>> import numpy as np, tfp_bnn
        >>> layer = tfp_bnn.layers.Convolution2DFlipout(4, 3, padding="same", seed=0)
        >>> layer(np.ones((2, 8, 8, 1), "float32"), training=True).shape
        TensorShape([2, 8, 8, 4])

    References:
        Wen et al. 2018, Flipout: Efficient Pseudo-Independent Weight Perturbations on Mini-Batches,
        https://arxiv.org/abs/1803.04386
    """


@keras.saving.register_keras_serializable(package="tfp_bnn")
class Convolution1DFlipout(FlipoutConvolution, _VariationalConvolution, keras.layers.Conv1D):
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


@keras.saving.register_keras_serializable(package="tfp_bnn")
class Convolution3DFlipout(FlipoutConvolution, _VariationalConvolution, keras.layers.Conv3D):
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


@keras.saving.register_keras_serializable(package="tfp_bnn")
class Convolution1DReparameterization(_VariationalConvolution, keras.layers.Conv1D):
    """One-dimensional Bayesian convolution, trained with the reparameterization estimator.

    Alias: `Conv1DReparameterization`.

    kernel ~ q(kernel);   outputs = activation(convolution(inputs, kernel) + bias)

    The whole batch shares one draw of the kernel. This costs one convolution, but the gradient noise does not decrease
    with the batch size.

    `kl()` is KL(q || prior) in nats, summed over the weights and not scaled. A `VariationalModel` divides it by N.

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

    In training, the outputs are drawn instead of the kernel: N(convolution(inputs, mean), convolution(inputs^2,
    variance)), independent for each example, position and filter. Costs two convolutions; requires the posterior
    `mean_field_normal`. Every output has its exact marginal distribution, but two positions are drawn independently
    although a shared kernel would correlate them. The joint distribution is therefore approximate.

    `kl()` is KL(q || prior) in nats, summed over the weights and not scaled. A `VariationalModel` divides it by N.

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

    The whole batch shares one draw of the kernel. This costs one convolution, but the gradient noise does not decrease
    with the batch size.

    `kl()` is KL(q || prior) in nats, summed over the weights and not scaled. A `VariationalModel` divides it by N.

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

    In training, the outputs are drawn instead of the kernel: N(convolution(inputs, mean), convolution(inputs^2,
    variance)), independent for each example, position and filter. Costs two convolutions; requires the posterior
    `mean_field_normal`. Every output has its exact marginal distribution, but two positions are drawn independently
    although a shared kernel would correlate them. The joint distribution is therefore approximate.

    `kl()` is KL(q || prior) in nats, summed over the weights and not scaled. A `VariationalModel` divides it by N.

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

    The whole batch shares one draw of the kernel. This costs one convolution, but the gradient noise does not decrease
    with the batch size.

    `kl()` is KL(q || prior) in nats, summed over the weights and not scaled. A `VariationalModel` divides it by N.

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

    In training, the outputs are drawn instead of the kernel: N(convolution(inputs, mean), convolution(inputs^2,
    variance)), independent for each example, position and filter. Costs two convolutions; requires the posterior
    `mean_field_normal`. Every output has its exact marginal distribution, but two positions are drawn independently
    although a shared kernel would correlate them. The joint distribution is therefore approximate.

    `kl()` is KL(q || prior) in nats, summed over the weights and not scaled. A `VariationalModel` divides it by N.

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

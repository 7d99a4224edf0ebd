"""Bayesian densely-connected layers."""

from __future__ import annotations

import keras

from tfp_bnn.layers.base import VariationalLayer
from tfp_bnn.layers.estimators import Flipout, LocalReparameterization, Reparameterization
from tfp_bnn.layers.operations import LinearOperation, MatMul


class _VariationalDense(VariationalLayer, keras.layers.Dense):
    """`keras.layers.Dense` with a distribution over its kernel."""

    @property
    def operation(self) -> LinearOperation:
        """Matrix multiplication over the last axis."""
        return MatMul()


@keras.saving.register_keras_serializable(package="tfp_bnn")
class DenseFlipout(_VariationalDense):
    """Densely-connected Bayesian layer, trained with flipout.

    kernel ~ q(kernel);   outputs = activation(inputs @ kernel + bias)

    In training, each example n sees its own perturbation of the mean:
    inputs_n @ mean + ((inputs_n * s_n) @ perturbation) * r_n, with signs s_n, r_n of exactly +1 or -1 per channel. The
    gradient variance then decreases as 1 / batch. Costs two matrix multiplications; requires a posterior that is
    symmetric and independent per weight.

    `kl()` is KL(q || prior) in nats, summed over the weights and not scaled. A `VariationalModel` divides it by N.

    Args:
        units: Positive integer, the dimension of the outputs.
        activation: As in `keras.layers.Dense`. Default: none.
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
        seed: Integer seed of the layer's noise outside a `VariationalModel`. Default: drawn from Keras' global seed.
        kl_weight: Weight of the KL, only for a plain `keras.Model`; see `VariationalLayer`. Default: None.

    Input shape: `(batch, ..., channels)`, rank 2 or more.
    Output shape: `(batch, ..., units)`, in the compute dtype; variational parameters and KL are float32 under any dtype
    policy.

    Noise is counter-based. In a `VariationalModel` it comes from the model's seed, step and layer; elsewhere from two
    counters of the layer, one for training and one for evaluation, which are saved with it. With `training=False` the
    whole batch shares one plain draw.

    Example:
        >>> import numpy as np, tfp_bnn
        >>> layer = tfp_bnn.layers.DenseFlipout(3, kernel_prior="scale_mixture", activation="relu", seed=0)
        >>> layer(np.ones((2, 5), "float32"), training=True).shape
        TensorShape([2, 3])
        >>> layer.kernel_posterior.event_shape
        TensorShape([5, 3])

    References:
        Wen et al. 2018, Flipout: Efficient Pseudo-Independent Weight Perturbations on Mini-Batches,
        https://arxiv.org/abs/1803.04386
    """

    estimator = Flipout()


@keras.saving.register_keras_serializable(package="tfp_bnn")
class DenseReparameterization(_VariationalDense):
    """Densely-connected Bayesian layer, trained with the reparameterization estimator.

    kernel ~ q(kernel);   outputs = activation(inputs @ kernel + bias)

    The whole batch shares one draw of the kernel. This costs one matrix multiplication, but the gradient noise does not
    decrease with the batch size.

    `kl()` is KL(q || prior) in nats, summed over the weights and not scaled. A `VariationalModel` divides it by N.

    Args, shapes, dtypes and randomness are those of `DenseFlipout`, with any posterior.

    Example:
        >>> import numpy as np, tfp_bnn
        >>> layer = tfp_bnn.layers.DenseReparameterization(3, bias_posterior="mean_field_normal", seed=0)
        >>> layer(np.ones((2, 5), "float32"), training=True).shape
        TensorShape([2, 3])

    References:
        Kingma and Welling 2014, Auto-Encoding Variational Bayes, https://arxiv.org/abs/1312.6114
        Blundell et al. 2015, Weight Uncertainty in Neural Networks, https://arxiv.org/abs/1505.05424
    """

    estimator = Reparameterization()


@keras.saving.register_keras_serializable(package="tfp_bnn")
class DenseLocalReparameterization(_VariationalDense):
    """Densely-connected Bayesian layer, trained with the local reparameterization estimator.

    kernel ~ q(kernel);   outputs = activation(inputs @ kernel + bias)

    In training, the outputs are drawn instead of the kernel: N(inputs @ mean, inputs^2 @ variance), independent for
    each example and unit. Costs two matrix multiplications; requires the posterior `mean_field_normal`. On inputs of
    rank 2 this is the exact distribution, and no other estimator here has a smaller gradient variance. On inputs of
    higher rank every output has its exact marginal distribution, but the outputs at two positions of one example are
    drawn independently although a shared kernel would correlate them. The joint distribution is then approximate. So
    it is for the outputs of a layer that is used several times.

    `kl()` is KL(q || prior) in nats, summed over the weights and not scaled. A `VariationalModel` divides it by N.

    Args, shapes, dtypes and randomness are those of `DenseFlipout`.

    Example:
        >>> import numpy as np, tfp_bnn
        >>> layer = tfp_bnn.layers.DenseLocalReparameterization(3, activation="relu", seed=0)
        >>> layer(np.ones((2, 5), "float32"), training=True).shape
        TensorShape([2, 3])

    References:
        Kingma, Salimans and Welling 2015, Variational Dropout and the Local Reparameterization Trick,
        https://arxiv.org/abs/1506.02557
    """

    estimator = LocalReparameterization()

"""Bayesian layer and group normalization."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import keras
import tensorflow as tf

from tfp_bnn.core.noise import NoiseSource
from tfp_bnn.layers.base import VariationalLayer
from tfp_bnn.layers.estimators import Estimator, Reparameterization
from tfp_bnn.layers.operations import Scaling


class VariationalNormalization(VariationalLayer):
    """A normalization with a distribution over its gain. Abstract.

    Mixed in before its twin, which has weights `gamma` and `beta` and arguments `scale` and `center`.
    """

    estimator = Reparameterization()
    bayesian_weights: ClassVar[Mapping[str, str]] = {"gamma": "gamma", "beta": "beta"}
    optional_weights = frozenset({"beta"})
    normalize: Callable[[tf.Tensor], tf.Tensor]
    """Returns the normalized inputs, given in float32, before gain and offset. A method of the layer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # An argument without a name, which the config of `keras.layers.LayerNormalization` has.
        if kwargs.get("rms_scaling"):
            raise ValueError("Got rms_scaling=True, which Keras deprecates and this layer does not support.")
        super().__init__(*args, **kwargs)
        if not getattr(self, "scale", True):
            raise ValueError(
                f"Got scale=False, but the gain is what {type(self).__name__} has a distribution over. Use the "
                "deterministic layer."
            )

    @property
    def operation(self) -> Scaling:
        """The product with the gain."""
        return Scaling([self.axis] if isinstance(self.axis, int) else self.axis)

    def transform(self, estimator: Estimator, inputs: tf.Tensor, noise: NoiseSource) -> tf.Tensor:
        """Normalizes in float32, and applies one draw of the gain."""
        weights = self.variational_weights
        normalized = self.normalize(tf.cast(inputs, tf.float32))
        outputs = estimator(self.operation, normalized, weights["gamma"], weights.get("beta", self.beta), noise)
        return tf.cast(outputs, self.compute_dtype)

    def _absent_weights(self) -> dict[str, str]:
        return {} if getattr(self, "center", True) else {"beta": "center=False"}


@keras.saving.register_keras_serializable(package="tfp_bnn")
class LayerNormalizationReparameterization(VariationalNormalization, keras.layers.LayerNormalization):
    """Layer normalization with a Bayesian gain.

    gamma ~ q(gamma);   outputs = gamma * (inputs - mean) / sqrt(variance + epsilon) + beta

    Mean and variance are those of an example along `axis`. The whole batch shares one draw of the gain, also in
    training: reparameterization, which costs no more than the deterministic layer. For a deterministic gain use
    `keras.layers.LayerNormalization`.

    `kl()` is KL(q || prior) in nats, summed over the weights and not scaled. A `VariationalModel` divides it by N.

    Args: Those of `keras.layers.LayerNormalization`; `scale` must be True, and initializer, regularizer and constraint
        of the gain act on its posterior mean, which starts at 1.
        gamma_prior: Prior of the gain: a name, config or object of `tfp_bnn.priors`. Default: `"normal"`, N(0, 1).
        gamma_posterior: Posterior family of the gain. Default: `"mean_field_normal"`.
        beta_prior: Prior of a Bayesian offset. Default: `"normal"` if `beta_posterior` is given.
        beta_posterior: Posterior family of the offset. Default: None, a deterministic offset.
        seed: Integer seed of the layer's noise outside a `VariationalModel`. Default: drawn from Keras' global seed.
        kl_weight: Weight of the KL, only for a plain `keras.Model`; see `VariationalLayer`. Default: None.

    Raises:
        ValueError: For `scale=False`, or a posterior of an offset with `center=False`.

    Input shape: any, `(batch, ...)`; the sizes along `axis` must be known.
    Output shape: the same, in the compute dtype. The computation, variational parameters and KL are float32 under any
    dtype policy.

    Noise is counter-based. In a `VariationalModel` it comes from the model's seed, step and layer; elsewhere from two
    counters of the layer, one for training and one for evaluation, which are saved with it.

    Example:
        >>> import numpy as np, tfp_bnn
        >>> layer = tfp_bnn.layers.LayerNormalizationReparameterization(seed=0)
        >>> layer(np.ones((2, 7, 5), "float32")).shape
        TensorShape([2, 7, 5])
        >>> layer.gamma_posterior.event_shape
        TensorShape([5])

    References:
        Ba et al. 2016, Layer Normalization, https://arxiv.org/abs/1607.06450
        Kingma and Welling 2014, https://arxiv.org/abs/1312.6114
    """

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Creates gain and offset.

        Args:
            input_shape: Shape of the inputs.
        """
        super().build(input_shape)
        self.input_spec = keras.InputSpec(
            ndim=len(input_shape), axes={axis: input_shape[axis] for axis in self.operation.axes}
        )

    def normalize(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns inputs of mean 0 and variance 1 along the axes."""
        return keras.ops.layer_normalization(inputs, axis=self.axis, epsilon=self.epsilon)


@keras.saving.register_keras_serializable(package="tfp_bnn")
class GroupNormalizationReparameterization(VariationalNormalization, keras.layers.GroupNormalization):
    """Group normalization with a Bayesian gain.

    gamma ~ q(gamma);   outputs = gamma * (inputs - mean) / sqrt(variance + epsilon) + beta

    Mean and variance are those of an example over all positions and the channels of a group. Estimator, cost, KL, the
    arguments of priors and posteriors, dtypes and randomness are those of `LayerNormalizationReparameterization`. For a
    deterministic gain use `keras.layers.GroupNormalization`.

    Args: Those of `keras.layers.GroupNormalization`; `scale` must be True, and initializer, regularizer and constraint
        of the gain act on its posterior mean. `gamma_prior`, `gamma_posterior`, `beta_prior`, `beta_posterior`, `seed`
        and `kl_weight` are those of `LayerNormalizationReparameterization`.

    Raises:
        ValueError: For `scale=False`, a posterior of an offset with `center=False`, or groups that do not divide the
            channels.

    Input shape: any, `(batch, ...)`; the number of channels must be known.
    Output shape: the same, in the compute dtype.

    Example:
        >>> import numpy as np, tfp_bnn
        >>> layer = tfp_bnn.layers.GroupNormalizationReparameterization(groups=2, seed=0)
        >>> layer(np.ones((2, 8, 8, 4), "float32")).shape
        TensorShape([2, 8, 8, 4])

    References:
        Wu and He 2018, Group Normalization, https://arxiv.org/abs/1803.08494
        Kingma and Welling 2014, https://arxiv.org/abs/1312.6114
    """

    def normalize(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns inputs of mean 0 and variance 1 in each group."""
        channels = inputs.shape[self.axis]
        last = keras.ops.moveaxis(inputs, self.axis, -1)
        in_groups = keras.ops.reshape(last, (*keras.ops.shape(last)[:-1], self.groups, channels // self.groups))
        axes = [axis for axis in range(1, len(in_groups.shape)) if axis != len(in_groups.shape) - 2]
        mean, variance = keras.ops.moments(in_groups, axes, keepdims=True)
        normalized = (in_groups - mean) * keras.ops.rsqrt(variance + self.epsilon)
        return keras.ops.moveaxis(keras.ops.reshape(normalized, keras.ops.shape(last)), -1, self.axis)

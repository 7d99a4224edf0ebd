"""Filter response normalization, with a deterministic or a Bayesian gain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfp_bnn.core.arguments import require_positive
from tfp_bnn.layers.normalization import VariationalNormalization


@keras.saving.register_keras_serializable(package="tfp_bnn")
class FilterResponseNormalization(keras.layers.Layer):
    """Filter response normalization with a thresholded linear unit (TLU). Keras has no such layer.

    outputs = max(gamma * inputs / sqrt(nu2 + epsilon) + beta, tau),   nu2 = mean of inputs^2 over the positions

    Each channel of each example is normalized by itself, without a mean and without other examples, so that the layer
    does the same in training and prediction: unlike batch normalization, it does not make the likelihood of an example
    depend on its batch. The TLU takes the place of the activation that follows a normalization.

    Args:
        axis: Integer, the axis of the channels. Default: -1.
        epsilon: Number > 0, added to nu2. Default: 1e-6.
        threshold: Whether to apply the TLU with a learned threshold `tau` per channel. Default: True.
        gamma_initializer: Initializer of the gain. Default: `"ones"`.
        beta_initializer: Initializer of the offset. Default: `"zeros"`.
        tau_initializer: Initializer of the threshold. Default: `"zeros"`, a ReLU.
        gamma_regularizer: Regularizer of the gain. Default: none.
        beta_regularizer: Regularizer of the offset. Default: none.
        tau_regularizer: Regularizer of the threshold. Default: none.
        gamma_constraint: Constraint on the gain. Default: none.
        beta_constraint: Constraint on the offset. Default: none.
        tau_constraint: Constraint on the threshold. Default: none.
        **kwargs: As in `keras.layers.Layer`.

    Raises:
        ValueError: If `epsilon` is not positive; on build, for inputs without positions or with only one, each of which
            would become its sign, or with an unknown number of channels.

    Input shape: `(batch, positions..., channels)`, rank 3 or more, or with the channels on another axis.
    Output shape: the same, in the compute dtype. The computation is in float32 under any dtype policy.

    Example:
        >>> import numpy as np, tfp_bnn
        >>> layer = tfp_bnn.layers.FilterResponseNormalization()
        >>> layer(np.full((1, 2, 2, 1), -3.0, "float32")).numpy().ravel().tolist()
        [0.0, 0.0, 0.0, 0.0]

    References:
        Singh and Krishnan 2020, Filter Response Normalization Layer, https://arxiv.org/abs/1911.09737
    """

    def __init__(
        self,
        axis: int = -1,
        epsilon: float = 1e-6,
        threshold: bool = True,
        gamma_initializer: Any = "ones",
        beta_initializer: Any = "zeros",
        tau_initializer: Any = "zeros",
        gamma_regularizer: Any = None,
        beta_regularizer: Any = None,
        tau_regularizer: Any = None,
        gamma_constraint: Any = None,
        beta_constraint: Any = None,
        tau_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.axis = axis
        self.epsilon = require_positive("`FilterResponseNormalization`", "epsilon", epsilon)
        self.threshold = threshold
        self.gamma_initializer = keras.initializers.get(gamma_initializer)
        self.beta_initializer = keras.initializers.get(beta_initializer)
        self.tau_initializer = keras.initializers.get(tau_initializer)
        self.gamma_regularizer = keras.regularizers.get(gamma_regularizer)
        self.beta_regularizer = keras.regularizers.get(beta_regularizer)
        self.tau_regularizer = keras.regularizers.get(tau_regularizer)
        self.gamma_constraint = keras.constraints.get(gamma_constraint)
        self.beta_constraint = keras.constraints.get(beta_constraint)
        self.tau_constraint = keras.constraints.get(tau_constraint)
        self.supports_masking = True
        # The computation is in float32, like that of the normalizations of Keras.
        self.autocast = False

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Creates gain, offset and threshold.

        Args:
            input_shape: Shape of the inputs.
        """
        rank = len(input_shape)
        if rank < 3 or not -rank < self.axis < rank or self.axis == 0:
            raise ValueError(
                f"The layer {self.name!r} with axis={self.axis} takes inputs of shape (batch, positions..., channels), "
                f"of rank 3 or more, but got {tuple(input_shape)}."
            )
        positions = [size for axis, size in enumerate(input_shape) if axis not in (0, self.axis % rank)]
        if all(size == 1 for size in positions):
            raise ValueError(
                f"The layer {self.name!r} with axis={self.axis} takes inputs of shape (batch, positions..., channels), "
                f"with more than one position, but got {tuple(input_shape)}: each input would become its sign. Put the "
                "layer before the last pooling."
            )
        channels = input_shape[self.axis]
        if channels is None:
            raise ValueError(
                f"The number of channels of the layer {self.name!r} must be known, but its input shape is "
                f"{tuple(input_shape)}, and its axis {self.axis}."
            )
        self.input_spec = keras.InputSpec(ndim=rank, axes={self.axis: channels})
        self.gamma, self.beta = self._add("gamma", channels), self._add("beta", channels)
        self.tau = self._add("tau", channels) if self.threshold else None

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Normalizes the inputs, scales and shifts them, and applies the TLU.

        Args:
            inputs: Tensor of shape `(batch, positions..., channels)`.

        Returns:
            A tensor of the same shape, in the compute dtype.
        """
        inputs = tf.cast(inputs, tf.float32)
        along = self._along_channels(len(inputs.shape))
        gamma, beta = (tf.cast(keras.ops.reshape(of, along), tf.float32) for of in (self.gamma, self.beta))
        # One pass over the inputs less than with `normalize`.
        outputs = inputs * (self._inverse_rms(inputs) * gamma) + beta
        return tf.cast(self.activation(outputs), self.compute_dtype)

    def normalize(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the inputs divided by their root mean square over the positions.

        Args:
            inputs: Inputs in float32.
        """
        return inputs * self._inverse_rms(inputs)

    def activation(self, outputs: tf.Tensor) -> tf.Tensor:
        """Applies the TLU: outputs below the threshold become the threshold.

        Args:
            outputs: Tensor of the shape of the inputs.
        """
        if self.tau is None:
            return outputs
        tau = keras.ops.reshape(self.tau, self._along_channels(len(outputs.shape)))
        return keras.ops.maximum(outputs, keras.ops.cast(tau, outputs.dtype))

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """Returns the shape of the outputs, which is that of the inputs."""
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        config = {**super().get_config(), "axis": self.axis, "epsilon": self.epsilon, "threshold": self.threshold}
        for weight in ("gamma", "beta", "tau"):
            for kind in ("initializer", "regularizer", "constraint"):
                name = f"{weight}_{kind}"
                config[name] = getattr(keras, f"{kind}s").serialize(getattr(self, name))
        return config

    def _add(self, name: str, channels: int) -> keras.Variable:
        return self.add_weight(
            name=name,
            shape=(channels,),
            initializer=getattr(self, f"{name}_initializer"),
            regularizer=getattr(self, f"{name}_regularizer"),
            constraint=getattr(self, f"{name}_constraint"),
            autocast=False,
        )

    def _inverse_rms(self, inputs: tf.Tensor) -> tf.Tensor:
        rank = len(inputs.shape)
        positions = [axis for axis in range(1, rank) if axis != self.axis % rank]
        mean_square = keras.ops.mean(keras.ops.square(inputs), positions, keepdims=True)
        return keras.ops.rsqrt(mean_square + self.epsilon)

    def _along_channels(self, rank: int) -> list[int]:
        shape = [1] * rank
        shape[self.axis] = -1
        return shape


@keras.saving.register_keras_serializable(package="tfp_bnn")
class FilterResponseNormalizationReparameterization(VariationalNormalization, FilterResponseNormalization):
    """Filter response normalization with a Bayesian gain.

    gamma ~ q(gamma);   outputs = max(gamma * inputs / sqrt(nu2 + epsilon) + beta, tau)

    The whole batch shares one draw of the gain, also in training. The threshold is deterministic. Estimator, cost, KL,
    the arguments of priors and posteriors, dtypes and randomness are those of `LayerNormalizationReparameterization`.
    For a deterministic gain use `FilterResponseNormalization`.

    Args: Those of `FilterResponseNormalization`; initializer, regularizer and constraint of the gain act on its
        posterior mean. `gamma_prior`, `gamma_posterior`, `beta_prior`, `beta_posterior`, `seed` and `kl_weight` are
        those of `LayerNormalizationReparameterization`.

    Input shape: `(batch, positions..., channels)`, rank 3 or more, or with the channels on another axis.
    Output shape: the same, in the compute dtype.

    Example:
        >>> import numpy as np, tfp_bnn
        >>> layer = tfp_bnn.layers.FilterResponseNormalizationReparameterization(gamma_prior="laplace", seed=0)
        >>> layer(np.ones((2, 8, 8, 4), "float32"), training=True).shape
        TensorShape([2, 8, 8, 4])

    References:
        Singh and Krishnan 2020, https://arxiv.org/abs/1911.09737
        Kingma and Welling 2014, https://arxiv.org/abs/1312.6114
    """

"""Dropout as approximate inference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfp_bnn.core.arguments import is_integer, is_number
from tfp_bnn.layers.stochastic import StochasticLayer


@keras.saving.register_keras_serializable(package="tfp_bnn")
class MCDropout(StochasticLayer):
    """Monte Carlo dropout: dropout that stays active at prediction time.

    mask ~ Bernoulli(1 - rate);   outputs = inputs * mask / (1 - rate)

    In training, every example has its own mask. Otherwise the whole batch shares one mask, so the network is one
    function, and S samples of `posterior_predictive` are S functions, as with Bayesian weights. The plug-in prediction
    uses the expectation of the mask, which leaves the inputs unchanged. Costs one random number per entry of the mask.

    The layer has no weights and no KL. The regularization that makes dropout approximate inference is weight decay on
    the neighbouring layers, which the user chooses.

    Args:
        rate: Fraction of the inputs to drop, 0 <= rate < 1.
        noise_shape: Shape of the mask, as in `keras.layers.Dropout`, with the rank of the inputs: 1 for an axis that
            shares one value, None for the size of the inputs. With inputs `(batch, steps, features)`, `(None, 1, None)`
            drops the same features at all steps. Default: the shape of the inputs.
        seed: Integer seed of the layer's noise outside a `VariationalModel`. Default: drawn from Keras' global seed.
        **kwargs: As in `keras.layers.Layer`.

    Raises:
        AttributeError: If `rate` or `noise_shape` is set later, which compiled models would not notice.
        ValueError: For a rate or a noise shape out of range; on call, for inputs that are not floating-point or do not
            match the noise shape.

    Input shape: any, `(batch, ...)`.
    Output shape: the same, in the compute dtype, like the mask. Keras masks for time steps are passed on.

    Noise is counter-based. In a `VariationalModel` it comes from the model's seed, step and layer; elsewhere from two
    counters of the layer, one for training and one for evaluation, which are saved with it.

    Example:
        >>> import numpy as np, tfp_bnn
        >>> layer = tfp_bnn.layers.MCDropout(0.5, seed=0)
        >>> outputs = layer(np.ones((2, 100), "float32"), training=False).numpy()
        >>> set(outputs.ravel().tolist()) == {0.0, 2.0}
        True
        >>> (outputs[0] == outputs[1]).all()
        np.True_

    References:
        Gal and Ghahramani 2016, Dropout as a Bayesian Approximation, https://arxiv.org/abs/1506.02142
        Gal and Ghahramani 2016, A Theoretically Grounded Application of Dropout in Recurrent Neural Networks,
        https://arxiv.org/abs/1512.05287
    """

    def __init__(
        self, rate: float, noise_shape: Sequence[int | None] | None = None, seed: int | None = None, **kwargs: Any
    ) -> None:
        if not is_number(rate) or not 0 <= rate < 1:
            raise ValueError(f"`rate` of MCDropout must be a number with 0 <= rate < 1, but got {rate!r}.")
        sizes = _noise_shape(noise_shape)
        super().__init__(seed=seed, **kwargs)
        self._rate = float(rate)
        self._noise_shape = sizes
        self.supports_masking = True
        self.built = True

    @property
    def rate(self) -> float:
        """Fraction of the inputs that are dropped. It cannot be set."""
        return self._rate

    @rate.setter
    def rate(self, value: Any) -> None:
        self._refuse_to_set("rate")

    @property
    def noise_shape(self) -> tuple[int | None, ...] | None:
        """Shape of the mask, or None. It cannot be set."""
        return self._noise_shape

    @noise_shape.setter
    def noise_shape(self, value: Any) -> None:
        self._refuse_to_set("noise_shape")

    @property
    def is_random(self) -> bool:
        """Whether anything is dropped at all."""
        return self.rate > 0

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Drops a fraction of the inputs and scales the others up by 1 / (1 - rate).

        Args:
            inputs: Floating-point tensor of shape `(batch, ...)`.
            training: If True, one mask per example. Otherwise one mask for the whole batch.

        Returns:
            A tensor with the shape and dtype of the inputs.
        """
        if not inputs.dtype.is_floating:
            raise ValueError(f"MCDropout takes floating-point inputs, but got {inputs.dtype.name}. Cast them first.")
        self._check_rank(inputs.shape)
        if not self.rate:
            return inputs
        keep = 1 - self.rate
        mask = self._noise(bool(training)).keep("mask", self._mask_shape(inputs, bool(training)), keep)
        return inputs * tf.cast(mask / keep, inputs.dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape of the outputs, which is that of the inputs."""
        self._check_rank(input_shape)
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "rate": self.rate, "noise_shape": self.noise_shape}

    def _refuse_to_set(self, name: str) -> None:
        raise AttributeError(
            f"`{name}` of the layer {self.name!r} cannot be set: training and prediction are compiled with it, and "
            "would not change. Build the model with another one, and copy the weights with "
            "other.set_weights(model.get_weights())."
        )

    def _mask_shape(self, inputs: tf.Tensor, training: bool) -> list[Any]:
        sizes = self.noise_shape or (None,) * len(inputs.shape)
        # Sizes that are known are not read from the inputs, so the mask does not depend on them.
        actual = keras.ops.shape(inputs)
        shape = [actual[axis] if size is None else size for axis, size in enumerate(sizes)]
        return shape if training else [1, *shape[1:]]

    def _check_rank(self, shape: Sequence[int | None]) -> None:
        sizes = self.noise_shape
        fits = sizes is None or (
            len(sizes) == len(shape)
            and all(size in (None, 1) or n in (None, size) for size, n in zip(sizes, shape, strict=True))
        )
        if not fits or len(shape) == 0:
            raise ValueError(
                f"The layer {self.name!r} has noise_shape={sizes}, which does not fit inputs of shape {tuple(shape)}. "
                "Expected inputs with a batch axis and, in `noise_shape`, for each of their axes 1, None or its size."
            )


def _noise_shape(noise_shape: Any) -> tuple[int | None, ...] | None:
    if noise_shape is None:
        return None
    is_sequence = isinstance(noise_shape, Sequence) and not isinstance(noise_shape, str)
    if not is_sequence or not all(size is None or (is_integer(size) and size >= 1) for size in noise_shape):
        raise ValueError(
            f"`noise_shape` of MCDropout must be None or a sequence of positive integers and None, but got "
            f"{noise_shape!r}."
        )
    return tuple(None if size is None else int(size) for size in noise_shape)

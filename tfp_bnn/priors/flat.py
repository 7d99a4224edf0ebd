"""The flat prior: maximum likelihood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.priors.base import PRIORS, Prior


@PRIORS.register("flat")
class Flat(Prior):
    """Constant p(w). It can only be used with a `delta` posterior, which gives maximum likelihood.

    The prior is improper. Its density is taken as 1, so its KL is exactly 0.
    """

    improper = True

    def distribution(
        self, shape: Sequence[int], weights: Mapping[str, tf.Tensor], noise: tf.Tensor | float = 0.0
    ) -> tfd.Distribution:
        """Builds the prior; see `Prior.distribution`.

        Args:
            shape: Shape of the weight tensor.
            weights: Not used: nothing is learned.
            noise: Not used.

        Returns:
            A float32 `ImproperUniform` with event shape `shape`, whose `log_prob` is 0 everywhere.
        """
        return ImproperUniform(shape)


class ImproperUniform(tfd.Distribution):
    """The measure with density 1 over all tensors of one shape. It has no draws and no mean.

    Args:
        shape: Event shape.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        parameters = {"shape": tuple(shape)}
        self._shape = tuple(shape)
        super().__init__(
            dtype=tf.float32,
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=False,
            parameters=parameters,
            name="ImproperUniform",
        )

    def _event_shape(self) -> tf.TensorShape:
        return tf.TensorShape(self._shape)

    def _event_shape_tensor(self) -> tf.Tensor:
        return tf.constant(self._shape, tf.int32)

    def _batch_shape(self) -> tf.TensorShape:
        return tf.TensorShape([])

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        return tf.zeros(tf.shape(x)[: len(x.shape) - len(self._shape)])

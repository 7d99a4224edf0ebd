"""The distribution of a weight tensor, some of whose weights are pruned."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tensorflow_probability import distributions as tfd


class PrunedDistribution(tfd.Distribution):
    """A distribution that is independent per weight, with the pruned weights replaced by the constant 0.

    A pruned weight is no weight of the network any more. It is exactly 0 in every draw, under posterior and prior, so
    it contributes nothing to entropy, log-density and KL: these are those of the weights that are kept.

    Args:
        whole: Distribution without pruning: a `tfd.Independent` or `tfd.Sample` with the shape of the weight as its
            event shape.
        mask: 1 for a weight that is kept, 0 for one that is pruned; float32, with the same shape.
    """

    def __init__(self, whole: Any, mask: tf.Tensor) -> None:
        parameters = {"whole": whole, "mask": mask}
        self.whole = whole
        self.kept = tf.convert_to_tensor(mask) > 0
        super().__init__(
            dtype=whole.dtype,
            reparameterization_type=whole.reparameterization_type,
            validate_args=False,
            allow_nan_stats=False,
            parameters=parameters,
            name="Pruned",
        )

    def sum_over_kept(self, values: tf.Tensor) -> tf.Tensor:
        """The sum over the weights that are kept, of values `(..., *shape)` or ones that are equal for all weights."""
        rank = len(self.kept.shape)
        return tf.reduce_sum(self._or_zero(values), axis=list(range(-rank, 0)))

    def _or_zero(self, values: tf.Tensor) -> tf.Tensor:
        return tf.where(self.kept, values, tf.zeros([], values.dtype))

    def _event_shape(self) -> tf.TensorShape:
        return self.kept.shape

    def _event_shape_tensor(self) -> tf.Tensor:
        return tf.shape(self.kept)

    def _batch_shape(self) -> tf.TensorShape:
        return tf.TensorShape([])

    def _sample_n(self, n: int, seed: object = None) -> tf.Tensor:
        return self._or_zero(self.whole.sample(n, seed=seed))

    def _log_prob(self, w: tf.Tensor) -> tf.Tensor:
        # Densities such as that of the horseshoe are infinite at 0, where a pruned weight is.
        somewhere = tf.where(self.kept, w, tf.ones([], w.dtype))
        of_kept = self.sum_over_kept(self.whole.distribution.log_prob(somewhere))
        axes = list(range(-len(self.kept.shape), 0))
        possible = tf.reduce_all(self.kept | tf.equal(w, 0), axis=axes)
        return tf.where(possible, of_kept, -tf.constant(float("inf"), of_kept.dtype))

    def _entropy(self) -> tf.Tensor:
        return self.sum_over_kept(self.whole.distribution.entropy())

    def _mean(self) -> tf.Tensor:
        return self._or_zero(self.whole.mean())

    def _variance(self) -> tf.Tensor:
        return self._or_zero(self.whole.variance())


@tfd.RegisterKL(PrunedDistribution, PrunedDistribution)
def _kl(q: PrunedDistribution, p: PrunedDistribution, name: str | None = None) -> tf.Tensor:
    return q.sum_over_kept(tfd.kl_divergence(q.whole.distribution, p.whole.distribution))

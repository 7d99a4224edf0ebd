"""The normal likelihood: numbers with Gaussian noise."""

from __future__ import annotations

import math

import keras
import numpy as np
import scipy.special
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.likelihoods.base import LIKELIHOODS, Likelihood, Weights
from tfp_bnn.likelihoods.noise_scale import LocationScale, untransformed
from tfp_bnn.likelihoods.targets import check_shape, like_outputs

_HERMITE_NODES = 16
# Quadrature around each of S draws costs 16 S x S densities, the lattice 1,024 x S.
_MOST_DRAWS_BY_QUADRATURE = 128
_LATTICE_POINTS = 1024
_GOLDEN_RATIO = (math.sqrt(5.0) - 1.0) / 2.0


@LIKELIHOODS.register("normal")
class Normal(LocationScale):
    """y ~ N(mean, scale^2), independent per output given the weights.

    Targets have the shape `(batch,)` for one output, or `(batch, outputs)`. Uncertainty is decomposed by the law of
    total variance, per output and in squared units of the target: aleatoric = E[scale^2], epistemic = Var[mean] over
    the weight draws. The predictive entropy is that of the mixture, per output. Up to 128 draws, it is computed by
    Gauss-Hermite quadrature around each component, exact to 3e-4 nats if all draws have the same scale, to 0.005 if
    scales differ by a factor of 2, and rough if they differ by an order of magnitude. For more draws, it is the
    mean of -log p at 1,024 points spread over draws and noise, at a cost that grows with S and not S^2: exact to 0.005
    nats if all draws have the same scale, to 0.03 if scales differ by a factor of 2.

    Args:
        scale: A number > 0 (known noise, in units of the target), `"learned"` (one scale for all examples, fitted with
            the weights), or `"per_example"` (the network has two outputs for each target, `[means, untransformed
            scales]`, scale = 1e-6 + softplus(.)).
        initial_scale: Initial value of a learned scale, in units of the target.
        missing: What marks a missing target: `"nan"`, a number, or None if all targets are there.
    """

    def targets(self, y: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """Targets of shape `(batch, targets)`, float32."""
        return like_outputs(y, self.num_targets(outputs.shape[-1]))

    def check_targets(self, y: np.ndarray, num_outputs: int) -> None:
        """Refuses targets of another shape."""
        check_shape(y, self.num_targets(num_outputs))

    def entropy(self, outputs: tf.Tensor, weights: Weights) -> tf.Tensor:
        """Entropy of the predictive mixture, in nats, of shape `(batch, targets)`."""
        loc, scale = self._parameters(tf.cast(outputs, tf.float32), weights)
        if loc.shape[0] > _MOST_DRAWS_BY_QUADRATURE:
            return _entropy_at_lattice(loc, tf.broadcast_to(scale, tf.shape(loc)))
        nodes, node_weights = np.polynomial.hermite_e.hermegauss(_HERMITE_NODES)
        total = tf.zeros_like(loc[0])
        for node, weight in zip(nodes, node_weights / node_weights.sum(), strict=True):
            points = (loc + scale * np.float32(node))[:, None]
            log_density = tf.reduce_logsumexp(tfd.Normal(loc, scale).log_prob(points), axis=1) - math.log(loc.shape[0])
            total -= np.float32(weight) * tf.reduce_mean(log_density, axis=0)
        return total

    def aleatoric(self, outputs: tf.Tensor, weights: Weights) -> tf.Tensor:
        """E[scale^2], squared units of the target, of shape `(batch, targets)`."""
        loc, scale = self._parameters(tf.cast(outputs, tf.float32), weights)
        return tf.reduce_mean(tf.broadcast_to(scale**2, tf.shape(loc)), axis=0)

    def epistemic(self, outputs: tf.Tensor, weights: Weights) -> tf.Tensor:
        """Var[mean] over the weight draws, squared units of the target, of shape `(batch, targets)`."""
        return tf.math.reduce_variance(self.mean(outputs), axis=0)

    def with_normal_outputs(
        self, mean: tf.Tensor, variance: tf.Tensor, weights: Weights
    ) -> tuple[Likelihood, tf.Tensor]:
        """A normal likelihood with the variance of noise and outputs together; exact. No closed form per example."""
        if self.scale == "per_example":
            return super().with_normal_outputs(mean, variance, weights)
        _, noise = self._parameters(mean, weights)
        return Normal("per_example", missing=self.missing), tf.concat(
            [mean, untransformed(tf.sqrt(noise**2 + variance))], axis=-1
        )

    def expected_log_prob(self, y: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor, weights: Weights) -> tf.Tensor:
        """Exact: log N(y | mean, scale^2) - variance / (2 scale^2). There is none for a scale per example."""
        if self.scale == "per_example":
            return super().expected_log_prob(y, mean, variance, weights)
        _, scale = self._parameters(mean, weights)
        return self.log_prob(y, mean, weights) - tf.reduce_sum(0.5 * variance / scale**2, axis=-1)

    def _noise(self, loc: tf.Tensor, scale: tf.Tensor, weights: Weights) -> tfd.Distribution:
        return tfd.Normal(loc, scale)

    def _parameters(self, outputs: tf.Tensor, weights: Weights) -> tuple[tf.Tensor, tf.Tensor]:
        normal = self.distribution(outputs, weights).distribution
        return normal.loc, normal.scale


def _entropy_at_lattice(loc: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """Entropy of mixtures of many normals, along the first axis: the mean of -log p at the points of a lattice.

    A point is a quantile of one component. A Fibonacci lattice spreads the points evenly over the square of the
    components, ordered by their mean or by their scale, whichever differs more, and the levels of their quantiles.
    """
    draws = loc.shape[0]
    steps = (np.arange(_LATTICE_POINTS) + 0.5) / _LATTICE_POINTS
    levels = np.arange(1, _LATTICE_POINTS + 1) * _GOLDEN_RATIO % 1.0
    differs_more = tf.math.reduce_variance(loc, axis=0) > tf.math.reduce_variance(scale, axis=0)
    order = tf.argsort(tf.where(differs_more, loc, scale), axis=0)
    component = tf.gather(order, (steps * draws).astype(np.int32))
    noise = scipy.special.ndtri(levels).astype(np.float32).reshape(-1, *[1] * (len(loc.shape) - 1))
    points = keras.ops.take_along_axis(loc, component, axis=0)
    points += keras.ops.take_along_axis(scale, component, axis=0) * noise
    total = tf.zeros_like(loc[0])
    for start in range(0, _LATTICE_POINTS, draws):
        log_density = tfd.Normal(loc, scale).log_prob(points[start : start + draws, None])
        total -= tf.reduce_sum(tf.reduce_logsumexp(log_density, axis=1), axis=0)
    return total / _LATTICE_POINTS + math.log(draws)

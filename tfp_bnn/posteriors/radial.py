"""The radial posterior."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd
from tensorflow_probability import random as tfp_random

from tfp_bnn.posteriors.base import POSTERIORS, NormalNoise, ScaledPosterior, kl_to_independent_normal

_LEAST_RADIUS = 1e-10


@POSTERIORS.register("radial")
class Radial(ScaledPosterior):
    """Radial posterior: its draws stay near the mean in high dimensions, unlike those of a normal.

    w = loc + scale * e / ||e|| * r,  e ~ N(0, 1) per weight,  r ~ N(0, 1) one for the tensor

    The distance from the mean, in units of `scale`, is |r| for any number D of weights, whereas draws from a normal lie
    on a distant shell. The marginal variance of a weight is scale^2 / D. The weights of a draw depend on each other.
    The KL to a normal prior has a closed form.

    Args are those of `ScaledPosterior`.

    References:
        Farquhar, Osborne and Gal 2020, Radial Bayesian Neural Networks, https://arxiv.org/abs/1907.00865
    """

    def distribution(self, weights: Mapping[str, tf.Tensor]) -> tfd.Distribution:
        """Builds the posterior q from the current values.

        Args:
            weights: Variables from `add_weights`.

        Returns:
            A float32 `RadialDistribution` with the shape of the weight as its event shape. Its `log_prob` is in nats.
        """
        return RadialDistribution(tf.convert_to_tensor(weights["loc"]), self.scale(weights))

    def perturbation(self, weights: Mapping[str, tf.Tensor], noise: NormalNoise, name: str) -> tf.Tensor:
        """Draws scale * e / ||e|| * r.

        Args:
            weights: Variables from `add_weights`.
            noise: Source of standard normal noise. It is asked for e, with the shape of the weight,
                and for the scalar r.
            name: Name of the weight, under which the noise is requested.

        Returns:
            A float32 tensor with the shape of the weight.
        """
        scale = self.scale(weights)
        direction = noise.normal(name, tuple(scale.shape))
        # Without noise there is no direction.
        unit = tf.math.divide_no_nan(direction, tf.norm(direction))
        return scale * unit * noise.normal(f"{name}_radius", ())


class RadialDistribution(tfd.Distribution):
    """The distribution of `Radial`, over tensors with the shape of `loc`.

    For more than one weight the density has a pole at the mean. It is taken as constant within a radius of 1e-10.

    Args:
        loc: Mean, with the shape of the weight.
        scale: Scale, > 0, with the same shape.
    """

    def __init__(self, loc: tf.Tensor, scale: tf.Tensor) -> None:
        parameters = {"loc": loc, "scale": scale}
        self.loc, self.scale = loc, scale
        self._size = int(np.prod(loc.shape))
        # The area of the unit sphere in D dimensions, as a logarithm.
        self._log_area = math.log(2) + self._size / 2 * math.log(math.pi) - math.lgamma(self._size / 2)
        super().__init__(
            dtype=loc.dtype,
            reparameterization_type=tfd.FULLY_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=False,
            parameters=parameters,
            name="Radial",
        )

    def _event_shape(self) -> tf.TensorShape:
        return self.loc.shape

    def _event_shape_tensor(self) -> tf.Tensor:
        return tf.shape(self.loc)

    def _batch_shape(self) -> tf.TensorShape:
        return tf.TensorShape([])

    def _sample_n(self, n: int, seed: object = None) -> tf.Tensor:
        of_direction, of_radius = tfp_random.split_seed(seed, n=2)
        flat = tf.random.stateless_normal([n, self._size], of_direction)
        radius = tf.random.stateless_normal([n, 1], of_radius)
        steps = flat / tf.norm(flat, axis=1, keepdims=True) * radius
        return self.loc + self.scale * tf.reshape(steps, [n, *self.loc.shape])

    def _log_prob(self, w: tf.Tensor) -> tf.Tensor:
        axes = list(range(-len(self.loc.shape), 0))
        squared = tf.reduce_sum(((w - self.loc) / self.scale) ** 2, axes)
        log_radius = 0.5 * tf.math.log(tf.maximum(squared, _LEAST_RADIUS**2))
        log_density = 0.5 * (math.log(2 / math.pi) - squared) - (self._size - 1) * log_radius
        return log_density - self._log_area - tf.reduce_sum(tf.math.log(self.scale))

    def _entropy(self) -> tf.Tensor:
        # The sum of two entropies: of the half-normal radius, and of the direction, uniform on a sphere of that radius.
        mean_log_radius = -(np.euler_gamma + math.log(2)) / 2
        constant = 0.5 * math.log(math.pi / 2) + 0.5 + (self._size - 1) * mean_log_radius + self._log_area
        return constant + tf.reduce_sum(tf.math.log(self.scale))

    def _mean(self) -> tf.Tensor:
        return self.loc

    def _variance(self) -> tf.Tensor:
        return self.scale**2 / self._size


@tfd.RegisterKL(RadialDistribution, tfd.Independent)
def _kl_radial(q: RadialDistribution, p: tfd.Independent, name: str | None = None) -> tf.Tensor:
    return kl_to_independent_normal(q.entropy(), q.loc, q.variance(), p)

"""The low-rank normal posterior."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd
from tensorflow_probability import random as tfp_random

from tfp_bnn.core.arguments import is_integer, require_array
from tfp_bnn.posteriors.base import POSTERIORS, NormalNoise, ScaledPosterior, kl_to_independent_normal

_LOG_2_PI = math.log(2 * math.pi)


@POSTERIORS.register("low_rank_normal")
class LowRankNormal(ScaledPosterior):
    """Joint normal over all weights of a tensor, with a diagonal plus low-rank covariance.

    w = loc + scale * e + factor @ z,  e ~ N(0, 1) per weight,  z ~ N(0, 1) of length rank

    The covariance is diag(scale^2) + factor @ factor^T. `factor` has shape `(*weight.shape, rank)` and is initialized
    with small noise. Costs `rank` additional parameters per weight. The KL to a normal prior has a closed form,
    computed in O(weights * rank^2).

    Args:
        rank: Rank of the low-rank part, 1 to 256. Default: 2.
        initial_scale: See `ScaledPosterior`.
        trainable: See `ScaledPosterior`. The factor is trained with the scales.

    References:
        Ong, Nott and Smith 2018, Gaussian variational approximation with a factor covariance structure,
        https://arxiv.org/abs/1701.03208
    """

    def __init__(self, rank: int = 2, initial_scale: float = 0.05, trainable: str = "both") -> None:
        super().__init__(initial_scale, trainable)
        if not is_integer(rank) or not 1 <= rank <= 256:
            raise ValueError(
                f"`rank` of the posterior 'low_rank_normal' must be an integer between 1 and 256, but got {rank!r}."
            )
        self.rank = int(rank)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, JSON-serializable."""
        return {"rank": self.rank, **super().get_config()}

    def add_weights(
        self, add_weight: Callable[..., keras.Variable], name: str, loc: keras.Variable
    ) -> dict[str, keras.Variable]:
        """Creates the variables of the posterior of one weight tensor.

        Args:
            add_weight: The `add_weight` of the layer, with dtype float32 and no autocast.
            name: Name of the weight, such as `"kernel"`.
            loc: Variable of the posterior mean, with the shape of the weight.

        Returns:
            `"loc"` and `"untransformed_scale"` with the shape of the weight, and `"factor"` of shape `(*loc.shape,
            rank)`; float32 variables.
        """
        # At 0 the factor would have no gradient, because the ELBO is even in it.
        start = keras.initializers.RandomNormal(stddev=self.initial_scale / np.sqrt(10 * self.rank))
        factor = add_weight(
            name=f"{name}_factor", shape=(*loc.shape, self.rank), initializer=start, trainable=self.trains_scale
        )
        return {**super().add_weights(add_weight, name, loc), "factor": factor}

    def distribution(self, weights: Mapping[str, tf.Tensor]) -> tfd.Distribution:
        """Builds the posterior q from the current values.

        Args:
            weights: Variables from `add_weights`.

        Returns:
            A float32 `LowRankNormalDistribution` with the shape of the weight as its event shape. Its `log_prob` is in
            nats.
        """
        loc, factor = (tf.convert_to_tensor(weights[role]) for role in ("loc", "factor"))
        return LowRankNormalDistribution(loc, self.scale(weights), factor)

    def perturbation(self, weights: Mapping[str, tf.Tensor], noise: NormalNoise, name: str) -> tf.Tensor:
        """Draws scale * e + factor @ z.

        Args:
            weights: Variables from `add_weights`.
            noise: Source of standard normal noise. It is asked for e, with the shape of the weight,
                and for z, of shape `(rank,)`.
            name: Name of the weight, under which the noise is requested.

        Returns:
            A float32 tensor with the shape of the weight.
        """
        scale, factor = self.scale(weights), tf.convert_to_tensor(weights["factor"])
        correlated = tf.linalg.matvec(factor, noise.normal(f"{name}_factor", (self.rank,)))
        return scale * noise.normal(name, tuple(scale.shape)) + correlated

    def parameters(self, weights: Mapping[str, tf.Tensor]) -> dict[str, np.ndarray]:
        """Returns the parameters, in the units of the weight.

        Args:
            weights: Variables from `add_weights`.

        Returns:
            Float32 arrays `"loc"` and `"scale"`, with the shape of the weight, and `"factor"` of shape
            `(*loc.shape, rank)`.
        """
        return {**super().parameters(weights), "factor": np.asarray(weights["factor"])}

    def assign_parameters(self, weights: Mapping[str, keras.Variable], values: Mapping[str, np.ndarray]) -> None:
        """Sets the means, scales and the factor; the inverse of `parameters`.

        Args:
            weights: Variables from `add_weights`.
            values: Arrays `"loc"`, `"scale"` and `"factor"`, with the shapes that `parameters` gives.

        Raises:
            ValueError: If a value is missing, has a different shape or is not finite, or a scale is below eps. Nothing
                is changed then.
        """
        factor = require_array("posterior", values, "factor", weights["factor"].shape)
        super().assign_parameters(weights, values)
        weights["factor"].assign(factor)


class LowRankNormalDistribution(tfd.Distribution):
    """N(loc, diag(scale^2) + factor @ factor^T) over tensors with the shape of `loc`.

    With V = factor / scale, flattened to a matrix with D rows, everything follows from the QR decomposition of [V; I].
    It replaces the inverse of I + V^T V in Woodbury's formula, which `tfd.MultivariateNormalDiagPlusLowRankCovariance`
    uses and which in float32 is off by hundreds of nats if the factor is a thousand times the scale.

    Args:
        loc: Mean, with the shape of the weight.
        scale: Scale of the diagonal part, > 0, with the shape of the weight.
        factor: Low-rank factor of shape `(*loc.shape, rank)`.
    """

    def __init__(self, loc: tf.Tensor, scale: tf.Tensor, factor: tf.Tensor) -> None:
        parameters = {"loc": loc, "scale": scale, "factor": factor}
        self.loc, self.scale, self.factor = loc, scale, factor
        self._size = int(np.prod(loc.shape))
        super().__init__(
            dtype=loc.dtype,
            reparameterization_type=tfd.FULLY_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=False,
            parameters=parameters,
            name="LowRankNormal",
        )

    def _event_shape(self) -> tf.TensorShape:
        return self.loc.shape

    def _event_shape_tensor(self) -> tf.Tensor:
        return tf.shape(self.loc)

    def _batch_shape(self) -> tf.TensorShape:
        return tf.TensorShape([])

    def _sample_n(self, n: int, seed: object = None) -> tf.Tensor:
        of_weights, of_factor = tfp_random.split_seed(seed, n=2)
        rank = self.factor.shape[-1]
        independent = self.scale * tf.random.stateless_normal([n, *self.loc.shape], of_weights)
        of_rank = tf.random.stateless_normal([n, rank], of_factor)
        correlated = tf.matmul(of_rank, tf.reshape(self.factor, [-1, rank]), transpose_b=True)
        return self.loc + independent + tf.reshape(correlated, [n, *self.loc.shape])

    def _log_prob(self, w: tf.Tensor) -> tf.Tensor:
        q, r = self._decomposition()
        prefix = w.shape[: len(w.shape) - len(self.loc.shape)]
        z = tf.reshape((w - self.loc) / self.scale, [*prefix, self._size])
        padded = tf.pad(z, [[0, 0]] * len(prefix) + [[0, self.factor.shape[-1]]])
        # The residual of [z; 0] on [V; I]: its squared length is the Mahalanobis distance, without cancellation.
        residual = padded - tf.linalg.matvec(q, tf.linalg.matvec(q, padded, transpose_a=True))
        return -0.5 * (self._size * _LOG_2_PI + tf.reduce_sum(residual**2, axis=-1)) - self._log_scale(r)

    def _entropy(self) -> tf.Tensor:
        _, r = self._decomposition()
        return 0.5 * self._size * (_LOG_2_PI + 1) + self._log_scale(r)

    def _mean(self) -> tf.Tensor:
        return self.loc

    def _variance(self) -> tf.Tensor:
        return self.scale**2 + tf.reduce_sum(self.factor**2, axis=-1)

    def _decomposition(self) -> tuple[tf.Tensor, tf.Tensor]:
        rank = self.factor.shape[-1]
        v = tf.reshape(self.factor / self.scale[..., None], [self._size, rank])
        return tf.linalg.qr(tf.concat([v, tf.eye(rank, dtype=v.dtype)], axis=0))

    def _log_scale(self, r: tf.Tensor) -> tf.Tensor:
        """Returns half the log-determinant of the covariance, a scalar."""
        return tf.reduce_sum(tf.math.log(self.scale)) + tf.reduce_sum(tf.math.log(tf.abs(tf.linalg.diag_part(r))))


@tfd.RegisterKL(LowRankNormalDistribution, tfd.Independent)
def _kl_low_rank_normal(q: LowRankNormalDistribution, p: tfd.Independent, name: str | None = None) -> tf.Tensor:
    return kl_to_independent_normal(q.entropy(), q.loc, q.variance(), p)

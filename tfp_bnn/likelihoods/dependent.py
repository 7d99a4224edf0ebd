"""Likelihoods of several targets that depend on one another even if the weights are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.likelihoods.base import Likelihood, Weights


class DependentTargets(Likelihood):
    """Targets that are dependent given the weights, each with a marginal distribution in closed form. Abstract.

    A subclass defines `distribution` and `marginals`. Means, variances, quantiles and the probability integral
    transform are those of each target, from the closed form. The entropy is joint: `(batch, 1)`, in nats.
    """

    def marginals(self, outputs: tf.Tensor, weights: Weights) -> tfd.Distribution:
        """The distribution of each target by itself: batch shape `(..., batch)`, event shape `(targets,)`."""
        raise NotImplementedError

    def mean(self, outputs: tf.Tensor, weights: Weights | None = None) -> tf.Tensor:
        """Means in units of the target, `(..., batch, targets)`, float32."""
        return _EachTarget(self).mean(outputs, weights)

    def aleatoric(self, outputs: tf.Tensor, weights: Weights) -> tf.Tensor:
        """The expected variance of each target, in squared units of the target, `(batch, targets)`."""
        return _EachTarget(self).aleatoric(outputs, weights)

    def quantiles(self, outputs: tf.Tensor, weights: Weights, levels: Sequence[float]) -> np.ndarray:
        """Quantiles of each target under the predictive mixture, `(levels, batch, targets)`, in units of the target."""
        return _EachTarget(self).quantiles(outputs, weights, levels)

    def levels(self, outputs: tf.Tensor, weights: Weights, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """P(Y < y) and P(Y <= y) of each target under each component, both `(S, batch, targets)`."""
        return _EachTarget(self).levels(outputs, weights, y)


class _EachTarget(Likelihood):
    """The marginal distributions of another likelihood, as if its targets were independent."""

    def __init__(self, joint: DependentTargets) -> None:
        super().__init__(joint.missing)
        self._joint = joint

    def add_weights(self, add_weight: Callable[..., keras.Variable]) -> dict[str, keras.Variable]:
        return self._joint.add_weights(add_weight)

    def distribution(self, outputs: tf.Tensor, weights: Weights) -> tfd.Distribution:
        return self._joint.marginals(outputs, weights)

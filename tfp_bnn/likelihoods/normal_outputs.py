"""Likelihoods of outputs that are normal themselves, as those of a network that is linear in its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

import tensorflow as tf


class NormalOutputs:
    """The distribution of a target whose outputs are uncertain. Abstract: a base of `Likelihood`."""

    def with_normal_outputs(
        self, mean: tf.Tensor, variance: tf.Tensor, weights: Mapping[str, Any]
    ) -> tuple[Any, tf.Tensor]:
        """The predictive p(y) = E[p(y | f)] for outputs f ~ N(mean, variance), in closed form.

        Args:
            mean: Means of the raw outputs, `(batch, outputs)`.
            variance: Their variances, of the same shape.
            weights: Learned parameters of the likelihood, by role.

        Returns:
            A likelihood that learns nothing, and raw outputs for it.

        Raises:
            ValueError: If there is no closed form.
        """
        raise ValueError(
            f"The likelihood {self!r} has no closed form for normal outputs. Use the draws of `posterior_predictive`."
        )


class ProbitOutputs(NormalOutputs):
    """The probit approximation, for likelihoods of logits. Abstract.

    References:
        MacKay 1992, The Evidence Framework Applied to Classification Networks, equation 10
    """

    def with_normal_outputs(
        self, mean: tf.Tensor, variance: tf.Tensor, weights: Mapping[str, Any]
    ) -> tuple[Self, tf.Tensor]:
        """The likelihood itself and logits mean (1 + pi variance / 8)^-1/2, an approximation."""
        return self, mean / tf.sqrt(1.0 + math.pi / 8.0 * variance)

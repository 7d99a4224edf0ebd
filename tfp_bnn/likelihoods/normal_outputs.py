"""Likelihoods of outputs that are normal themselves, as those of a network that is linear in its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

import tensorflow as tf

_VARIANCE = "_tfp_bnn_variance"


def set_variance(outputs: tf.Tensor, variance: tf.Tensor) -> tf.Tensor:
    """Marks outputs as the means of a normal distribution, as Keras marks tensors with masks, and returns them.

    `log_likelihood` is then its expectation under N(outputs, variance). The mark does not outlast an operation.
    """
    setattr(outputs, _VARIANCE, variance)
    return outputs


def variance_of(outputs: tf.Tensor) -> tf.Tensor | None:
    """The variance that `set_variance` gave the outputs, or None."""
    return getattr(outputs, _VARIANCE, None)


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

    def expected_log_prob(self, y: Any, mean: tf.Tensor, variance: tf.Tensor, weights: Mapping[str, Any]) -> tf.Tensor:
        """E[log p(y | f)] for outputs f ~ N(mean, variance), or a lower bound of it, without sampling.

        Args:
            y: Targets, one row for each row of `mean`.
            mean: Means of the raw outputs, `(batch, outputs)`.
            variance: Their variances, of the same shape.
            weights: Learned parameters of the likelihood, by role.

        Returns:
            A float32 tensor `(batch,)`, in nats.

        Raises:
            ValueError: If there is no such formula.
        """
        raise ValueError(
            f"The likelihood {self!r} has no expectation over normal outputs without sampling. Use 'normal', "
            "'categorical' or 'bernoulli', or a variational model that samples."
        )


class LogitOutputs(NormalOutputs):
    """The probit approximation and Jensen's bound, for likelihoods of logits. Abstract.

    References:
        MacKay 1992, The Evidence Framework Applied to Classification Networks, equation 10; Harrison, Willes and Snoek
        2024, Variational Bayesian Last Layers, https://arxiv.org/abs/2404.11599
    """

    def with_normal_outputs(
        self, mean: tf.Tensor, variance: tf.Tensor, weights: Mapping[str, Any]
    ) -> tuple[Self, tf.Tensor]:
        """The likelihood itself and logits mean (1 + pi variance / 8)^-1/2, an approximation."""
        return self, mean / tf.sqrt(1.0 + math.pi / 8.0 * variance)

"""Likelihoods of a user's own, which lack what those of the library have."""

from __future__ import annotations

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.likelihoods import Likelihood


class JointNormal(Likelihood):
    """Two dependent targets. There is no `cdf`, so quantiles are sampled."""

    def distribution(self, outputs, weights):
        return tfd.MultivariateNormalTriL(outputs, scale_tril=[[1.0, 0.0], [0.8, 0.6]])


class Hurdle(Likelihood):
    """Zero with probability 1/2, else a positive number. Its support has no bijector."""

    def distribution(self, outputs, weights):
        zero = tf.zeros_like(outputs[..., 0])
        choice = tfd.Categorical(logits=tf.stack([zero, zero], axis=-1))
        return tfd.Mixture(choice, [tfd.Deterministic(zero), tfd.Gamma(2.0 + zero, log_rate=outputs[..., 0])])

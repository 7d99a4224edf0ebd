"""The Laplace likelihood: numbers, judged by their absolute error."""

from __future__ import annotations

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.likelihoods.base import LIKELIHOODS, Weights
from tfp_bnn.likelihoods.noise_scale import LocationScale


@LIKELIHOODS.register("laplace")
class Laplace(LocationScale):
    """p(y) = exp(-|y - location| / scale) / (2 scale), independent per target given the weights.

    With a known scale, the NLL is the absolute error plus a constant: the location is fitted to the median, and
    outliers pull it less than with 'normal'. The variance is 2 scale^2.

    Args:
        scale: As for the likelihood 'normal': a number > 0 in units of the target, `"learned"` or `"per_example"`. With
            `"per_example"` the outputs are `[locations, untransformed scales]`, scale = 1e-6 + softplus(.).
        initial_scale: Initial value of a learned scale, in units of the target.
    """

    def _noise(self, loc: tf.Tensor, scale: tf.Tensor, weights: Weights) -> tfd.Distribution:
        return tfd.Laplace(loc, scale)

"""A likelihood for targets with outliers."""

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.likelihoods import LIKELIHOODS, Likelihood


@LIKELIHOODS.register("outside_laplace")
class Laplace(Likelihood):
    """y ~ Laplace(outputs, scale), independent per output given the weights; targets of the shape of the outputs."""

    task = "regression"

    def __init__(self, scale=1.0):
        self.scale = float(scale)

    def get_config(self):
        return {"scale": self.scale}

    def distribution(self, outputs, weights):
        return tfd.Independent(tfd.Laplace(tf.cast(outputs, tf.float32), self.scale), 1)

    def targets(self, y, outputs):
        return tf.cast(y, tf.float32)

    def mean(self, outputs):
        return tf.cast(outputs, tf.float32)

    def check_targets(self, y, num_outputs):
        if np.shape(y)[1:] != (num_outputs,):
            raise ValueError(f"The targets have the shape {np.shape(y)}; (n, {num_outputs}) was expected.")

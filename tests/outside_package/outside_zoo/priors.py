"""A prior whose class has the name of one of ours, and an argument without a default."""

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.priors import PRIORS, Prior


@PRIORS.register("outside_normal")
class Normal(Prior):
    """w ~ N(0, width^2), independent per weight."""

    def __init__(self, width):
        self.width = float(width)

    def get_config(self):
        return {"width": self.width}

    def distribution(self, shape, weights, noise=0.0):
        return tfd.Independent(tfd.Normal(tf.zeros(shape), self.width), len(shape))

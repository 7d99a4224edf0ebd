"""Keras models that are trained on the ELBO: functional, sequential, and the mixin for models of your own."""

from tfp_bnn.models.elbo_step import elbo_step
from tfp_bnn.models.functional import VariationalModel, VariationalSequential
from tfp_bnn.models.predictive_model import PredictiveModel
from tfp_bnn.models.training_state import restore_training_state, training_state
from tfp_bnn.models.variational_mixin import VariationalMixin

__all__ = [
    "PredictiveModel",
    "VariationalMixin",
    "VariationalModel",
    "VariationalSequential",
    "elbo_step",
    "restore_training_state",
    "training_state",
]

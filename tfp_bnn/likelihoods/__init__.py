"""Likelihoods: how the targets are distributed given the outputs of a network.

One object provides the training NLL, the predictions that metrics receive, the predictive distribution with its
quantiles and the decomposition of its uncertainty, the scores, and the name of the calibrator. Methods take `outputs`,
the raw outputs of a network (logits or means), and `weights`, the parameters that the likelihood itself has learned.
Log-probabilities and entropies are in nats. To add a likelihood, define `distribution` and register the class; see
docs/likelihoods.md.
"""

from tfp_bnn.likelihoods.base import LIKELIHOODS, Likelihood
from tfp_bnn.likelihoods.bernoulli import Bernoulli
from tfp_bnn.likelihoods.categorical import Categorical
from tfp_bnn.likelihoods.discrete import ClassLikelihood
from tfp_bnn.likelihoods.normal import Normal

__all__ = ["LIKELIHOODS", "Bernoulli", "Categorical", "ClassLikelihood", "Likelihood", "Normal"]

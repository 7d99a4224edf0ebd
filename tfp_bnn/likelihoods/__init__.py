"""Likelihoods: one object says how the data are distributed given the outputs of a network.

It gives the training NLL, what metrics receive, the predictive distribution, its quantiles and the decomposition of its
uncertainty, the scores, and the name of its calibrator. All functions take `outputs`, the raw outputs of a network
(logits, or means), and `weights`, what the likelihood itself has learned. All log-probabilities and entropies are in
nats. A likelihood of your own defines `distribution` and is registered; see docs/likelihoods.md.
"""

from tfp_bnn.likelihoods.base import LIKELIHOODS, Likelihood
from tfp_bnn.likelihoods.bernoulli import Bernoulli
from tfp_bnn.likelihoods.categorical import Categorical
from tfp_bnn.likelihoods.discrete import ClassLikelihood
from tfp_bnn.likelihoods.normal import Normal

__all__ = ["LIKELIHOODS", "Bernoulli", "Categorical", "ClassLikelihood", "Likelihood", "Normal"]

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
from tfp_bnn.likelihoods.counts import NegativeBinomial, Poisson
from tfp_bnn.likelihoods.discrete import ClassLikelihood
from tfp_bnn.likelihoods.joint import Joint
from tfp_bnn.likelihoods.laplace import Laplace
from tfp_bnn.likelihoods.mixture_normal import MixtureNormal
from tfp_bnn.likelihoods.multivariate_normal import MultivariateNormal
from tfp_bnn.likelihoods.normal import Normal
from tfp_bnn.likelihoods.ordinal import Ordinal
from tfp_bnn.likelihoods.student_t import StudentT

__all__ = [
    "LIKELIHOODS",
    "Bernoulli",
    "Categorical",
    "ClassLikelihood",
    "Joint",
    "Laplace",
    "Likelihood",
    "MixtureNormal",
    "MultivariateNormal",
    "NegativeBinomial",
    "Normal",
    "Ordinal",
    "Poisson",
    "StudentT",
]

"""Transfer between models: posteriors as priors, and conversion to and from Bayesian networks."""

from tfp_bnn.transfer.from_tfp import from_tfp
from tfp_bnn.transfer.informed_priors import informed_prior, transfer_posterior
from tfp_bnn.transfer.to_bayesian import to_bayesian
from tfp_bnn.transfer.to_deterministic import to_deterministic
from tfp_bnn.transfer.tuning import Candidate, Tuner, choose_inflate
from tfp_bnn.transfer.updating import update

__all__ = [
    "Candidate",
    "Tuner",
    "choose_inflate",
    "from_tfp",
    "informed_prior",
    "to_bayesian",
    "to_deterministic",
    "transfer_posterior",
    "update",
]

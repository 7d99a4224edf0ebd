"""Inference methods. Each gives draws of functions, and so a posterior predictive with the same interface.

Variational inference needs no function: `VariationalModel.fit` does it. The others take models and return models.
"""

from tfp_bnn.inference.chains import Chains
from tfp_bnn.inference.convergence import Convergence
from tfp_bnn.inference.ensemble import Ensemble, ensemble, members_of
from tfp_bnn.inference.fixed_parameters import with_fixed_parameters
from tfp_bnn.inference.laplace import laplace
from tfp_bnn.inference.laplace_posterior import Laplace
from tfp_bnn.inference.map_estimate import map_estimate
from tfp_bnn.inference.maximum_likelihood import maximum_likelihood
from tfp_bnn.inference.mc_dropout import mc_dropout
from tfp_bnn.inference.mcmc import hmc, nuts
from tfp_bnn.inference.sghmc import SGHMC
from tfp_bnn.inference.sgld import sgld
from tfp_bnn.inference.swag import Swag, SwagIterates, swag
from tfp_bnn.inference.variational_normal import VariationalNormal, full_rank, mean_field
from tfp_bnn.inference.vbll import LastLayerModel, vbll
from tfp_bnn.inference.ways import WAYS, way_of

__all__ = [
    "SGHMC",
    "WAYS",
    "Chains",
    "Convergence",
    "Ensemble",
    "Laplace",
    "LastLayerModel",
    "Swag",
    "SwagIterates",
    "VariationalNormal",
    "ensemble",
    "full_rank",
    "hmc",
    "laplace",
    "map_estimate",
    "maximum_likelihood",
    "mc_dropout",
    "mean_field",
    "members_of",
    "nuts",
    "sgld",
    "swag",
    "vbll",
    "way_of",
    "with_fixed_parameters",
]

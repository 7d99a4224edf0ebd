"""Ways to a posterior. Each gives draws of functions, hence the same posterior predictive.

Variational inference needs no function: `VariationalModel.fit` does it. The others take models and give models.
"""

from tfp_bnn.inference.ensemble import Ensemble, ensemble, members_of
from tfp_bnn.inference.map_estimate import map_estimate
from tfp_bnn.inference.mc_dropout import mc_dropout
from tfp_bnn.inference.ways import WAYS, way_of

__all__ = ["WAYS", "Ensemble", "ensemble", "map_estimate", "mc_dropout", "members_of", "way_of"]

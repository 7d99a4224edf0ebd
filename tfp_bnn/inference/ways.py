"""Which way a posterior was found, read off the model."""

from __future__ import annotations

from tfp_bnn.inference.ensemble import Ensemble
from tfp_bnn.layers.base import VariationalLayer
from tfp_bnn.models.predictive_model import PredictiveModel
from tfp_bnn.models.variational_mixin import VariationalMixin

WAYS = ("variational", "map", "mc_dropout", "ensemble")
"""The names of the ways, as recipes and artifacts give them."""


def way_of(model: PredictiveModel) -> str:
    """The name of the way in which a model represents its posterior: one of `WAYS`.

    Args:
        model: `"ensemble"` for an `Ensemble`; else by what is random in its draws: weights (`"variational"`, whether or
            not there is dropout too), dropout masks only (`"mc_dropout"`), nothing (`"map"`).

    Raises:
        TypeError: For anything else.
    """
    if isinstance(model, Ensemble):
        return "ensemble"
    if not isinstance(model, VariationalMixin):
        raise TypeError(f"Expected a model with VariationalMixin or an Ensemble, but got {type(model).__name__}.")
    if any(layer.is_random for layer in model.variational_layers):
        return "variational"
    return "mc_dropout" if dropout_layers(model) else "map"


def dropout_layers(model: VariationalMixin) -> list[str]:
    """The names of the layers without distributions over weights that stay random in prediction."""
    return [
        layer.name for layer in model.stochastic_layers if layer.is_random and not isinstance(layer, VariationalLayer)
    ]

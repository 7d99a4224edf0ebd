"""The inference method of a model, recognized from its layers."""

from __future__ import annotations

from tfp_bnn.inference.chains import Chains
from tfp_bnn.inference.ensemble import Ensemble
from tfp_bnn.inference.laplace import Laplace
from tfp_bnn.inference.point_weights import dropout_layers
from tfp_bnn.inference.swag import Swag
from tfp_bnn.inference.variational_normal import VariationalNormal
from tfp_bnn.models.predictive_model import PredictiveModel
from tfp_bnn.models.variational_mixin import VariationalMixin

WAYS = (
    "variational",
    "map",
    "mc_dropout",
    "ensemble",
    "swag",
    "laplace",
    "full_rank",
    "mean_field",
    "hmc",
    "nuts",
    "sgld",
)
"""The names of the inference methods. Recipes and artifacts use the first four; the others are not stored yet."""

_KINDS = {"ensemble": Ensemble, "swag": Swag, "laplace": Laplace}


def way_of(model: PredictiveModel) -> str:
    """The name of the inference method of a model: one of `WAYS`.

    Args:
        model: A model with `VariationalMixin`, or the result of a function of `tfp_bnn.inference`.

    Returns:
        `"ensemble"`, `"swag"` or `"laplace"` for an `Ensemble`, a `Swag` or a `Laplace`; the `way` of `Chains` and of a
        `VariationalNormal`. Otherwise it depends on what is random in a draw: `"variational"` for weights, with or
        without dropout, `"mc_dropout"` for dropout masks only, and `"map"` for nothing.

    Raises:
        TypeError: If the model is none of these.
    """
    for way, kind in _KINDS.items():
        if isinstance(model, kind):
            return way
    if isinstance(model, Chains | VariationalNormal):
        return model.way
    if not isinstance(model, VariationalMixin):
        raise TypeError(
            f"Expected a model with VariationalMixin, an Ensemble or Chains, but got {type(model).__name__}."
        )
    if any(layer.is_random for layer in model.variational_layers):
        return "variational"
    return "mc_dropout" if dropout_layers(model) else "map"

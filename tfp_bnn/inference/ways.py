"""The inference methods: which one a model is the result of, and what its posterior is."""

from __future__ import annotations

from dataclasses import dataclass

from tfp_bnn.inference.chains import Chains
from tfp_bnn.inference.ensemble import Ensemble
from tfp_bnn.inference.laplace_posterior import Laplace
from tfp_bnn.inference.point_weights import dropout_layers
from tfp_bnn.inference.stored_posterior import StoredPosterior
from tfp_bnn.inference.swag import Swag
from tfp_bnn.inference.variational_normal import VariationalNormal
from tfp_bnn.inference.vbll import LastLayerModel
from tfp_bnn.models.predictive_model import PredictiveModel
from tfp_bnn.models.variational_mixin import VariationalMixin
from tfp_bnn.priors import Flat

STORED_POSTERIORS: dict[str, type[StoredPosterior]] = {
    "ensemble": Ensemble,
    "swag": Swag,
    "laplace": Laplace,
    "full_rank": VariationalNormal,
    "mean_field": VariationalNormal,
    "hmc": Chains,
    "nuts": Chains,
    "sgld": Chains,
}
"""The classes of posteriors that are more than the weights of one network, by the name of their inference method."""

WAYS = ("variational", "map", "mc_dropout", *STORED_POSTERIORS, "maximum_likelihood", "vbll")
"""The names of the inference methods, in recipes, artifacts and `way_of`."""

_NO_DENSITY = "the posterior was not found by minimizing a KL to the prior"


@dataclass(frozen=True)
class Meaning:
    """What `kl` and `elbo` of a model are.

    Attributes:
        kl: What `kl_by_layer` sums up to; empty if there is none.
        reason: Why the ELBO is not defined; empty if it is.
    """

    kl: str = ""
    reason: str = _NO_DENSITY


_OF_POINTS = Meaning("-log p(weights)", "the weights are points, so `kl` is -log p(weights), up to a constant")
_VARIATIONAL = Meaning("KL(posterior || prior)", "")
_OF_ALL_DATA = Meaning(reason="the bound is one of all training data; `posterior.elbo()` estimates it")
_MEANINGS = {
    "full_rank": _OF_ALL_DATA,
    "mean_field": _OF_ALL_DATA,
    "variational": _VARIATIONAL,
    "vbll": _VARIATIONAL,
    "map": _OF_POINTS,
    "mc_dropout": _OF_POINTS,
    "maximum_likelihood": Meaning("-log p(weights)", "the weights are points without a prior, so `kl` is 0"),
}


def way_of(model: PredictiveModel) -> str:
    """The name of the inference method of a model: one of `WAYS`.

    Args:
        model: A model with `VariationalMixin`, or the result of a function of `tfp_bnn.inference`.

    Returns:
        The `way` of a `StoredPosterior`, such as an `Ensemble` or `Chains`, and `"vbll"` for a `LastLayerModel`.
        Otherwise it depends on what is random in a draw: `"variational"` for weights, with or without dropout,
        `"mc_dropout"` for dropout masks only, and for nothing `"maximum_likelihood"` if all priors are flat, else
        `"map"`.

    Raises:
        TypeError: If the model is none of these.
    """
    if isinstance(model, StoredPosterior):
        return model.way
    if not isinstance(model, VariationalMixin):
        raise TypeError(
            f"Expected a model with VariationalMixin, an Ensemble or Chains, but got {type(model).__name__}."
        )
    if isinstance(model, LastLayerModel):
        return "vbll"
    if any(layer.is_random for layer in model.variational_layers):
        return "variational"
    if dropout_layers(model):
        return "mc_dropout"
    priors = [w.prior_spec for layer in model.variational_layers for w in layer.variational_weights.values()]
    return "maximum_likelihood" if priors and all(isinstance(prior, Flat) for prior in priors) else "map"


def meaning_of(model: PredictiveModel) -> Meaning:
    """What `kl` and `elbo` of a model are, for logs, cards and reports."""
    return _MEANINGS.get(way_of(model), Meaning())

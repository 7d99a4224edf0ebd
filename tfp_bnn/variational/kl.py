"""The terms of the KL of a model, by layer and by inferred prior scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from tfp_bnn.core.noise import NoiseSource, scoped_noise
from tfp_bnn.layers.base import VariationalLayer
from tfp_bnn.priors.shared_scales import SharedPrior


def named_layers(model: Any) -> dict[str, VariationalLayer]:
    """The Bayesian layers of a model by name, `name#2` and so on where names repeat."""
    found: dict[str, VariationalLayer] = {}
    for layer in model.variational_layers:
        name, count = layer.name, 1
        while name in found:
            count += 1
            name = f"{layer.name}#{count}"
        found[name] = layer
    return found


def kl_by_layer(
    model: Any, shared_priors: Mapping[str, SharedPrior], next_noise: Callable[[], NoiseSource]
) -> dict[str, tf.Tensor]:
    """The KL of each Bayesian layer and of each inferred prior scale, in nats; see `VariationalMixin.kl_by_layer`.

    Args:
        model: Variational model.
        shared_priors: Shared priors of the model, by name.
        next_noise: Function that returns noise for a scale drawn outside a forward pass.
    """
    of_layers: dict[str, tf.Tensor] = {}
    of_priors: dict[str, tf.Tensor] = {}
    for name, layer in named_layers(model).items():
        terms = layer.kl_terms()
        of_layers[name] = terms.pop("weights")
        of_priors |= {f"prior/{name}/{term.removeprefix('prior/')}": kl for term, kl in terms.items()}
    for name, shared in shared_priors.items():
        if shared.prior.hyperprior is not None:
            noise = scoped_noise(shared)
            of_priors[f"prior/{name}"] = shared.hyper_kl(next_noise() if noise is None else noise)
    return {**of_layers, **of_priors}

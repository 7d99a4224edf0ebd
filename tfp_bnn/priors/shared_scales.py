"""How the layers of a model come to share the scale of a prior.

A prior is a plain description and has no variables. One with `shared="name"` leaves them to the model: once a layer is
built, the model gives all weights of that name one `SharedPrior`, and saves its variables among its own. A loaded model
does the same with the layers that it has built again, so that what was one scale stays one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfp_bnn.core.layer_tree import unlocked
from tfp_bnn.core.noise import NoiseSource, scoped_noise
from tfp_bnn.priors.base import Prior


class SharedPrior:
    """A prior with one learned or inferred scale for several weights. Its variables belong to a model.

    Args:
        prior: of all the weights that share it; `prior.shared` is the name.
        add_weight: makes float32 variables in the model.
    """

    def __init__(self, prior: Prior, add_weight: Callable[..., keras.Variable]) -> None:
        self.prior = prior
        self.weights = prior.add_weights(add_weight, str(prior.shared), ())

    def parameters(self) -> dict[str, np.ndarray]:
        """The parameters of the scale in natural units: `scale`, and `scale_spread` where it is inferred; float32."""
        return self.prior.parameters(self.weights)

    def noise_of_scale(self, noise: NoiseSource) -> tf.Tensor:
        """The standard normal scalar that draws an inferred scale; `noise` serves outside of a forward pass."""
        scoped = scoped_noise(self)
        return (noise if scoped is None else scoped).normal("prior_scale", ())

    def hyper_kl(self, noise: NoiseSource) -> tf.Tensor:
        """KL(q(s) || p(s)) of an inferred scale in nats, float32 scalar; 0 for a learned one."""
        return self.prior.hyper_kl(self.weights, self.noise_of_scale(noise))


def bind_shared_priors(model: Any, owned: dict[str, SharedPrior]) -> None:
    """Gives every built weight of a model whose prior is shared the scale that the model owns.

    Args:
        model: a variational model; the variables of new scales are added to it.
        owned: the shared priors of the model by name; new ones are added.

    Raises:
        ValueError: when two priors of one name differ, or a prior is already shared within another model.
    """
    for layer in model.variational_layers:
        for weight in layer.variational_weights.values():
            name = weight.prior_spec.shared
            if name is None or (weight.shared_prior is not None and weight.shared_prior is owned.get(name)):
                continue
            of = f"{layer.name}/{weight.name}"
            shared = _adopted(model, of, weight, owned) or _made(model, weight, owned)
            if shared.prior != weight.prior_spec:
                raise ValueError(
                    f"Two priors are shared as {name!r}, but they differ: {shared.prior!r}, and {weight.prior_spec!r} "
                    f"of {of!r}. Give them the same arguments, or different names."
                )
            weight.bind(shared)


def _adopted(model: Any, of: str, weight: Any, owned: dict[str, SharedPrior]) -> SharedPrior | None:
    """The shared prior of a model within this one."""
    bound = weight.shared_prior
    if bound is None:
        return None
    name = str(bound.prior.shared)
    variables = {id(variable) for variable in model.variables}
    if not all(id(variable) in variables for variable in bound.weights.values()) or name in owned:
        raise ValueError(
            f"The prior of {of!r} is already shared as {name!r} within another model, which owns its scale. Build the "
            "layer afresh for this model, or rename or remove `shared`."
        )
    owned[name] = bound
    return bound


def _made(model: Any, weight: Any, owned: dict[str, SharedPrior]) -> SharedPrior:
    name = str(weight.prior_spec.shared)
    if name not in owned:
        with unlocked(model):
            owned[name] = SharedPrior(weight.prior_spec, model._add_float32_weight)
    return owned[name]

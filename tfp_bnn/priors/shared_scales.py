"""Prior scales that several layers of a model share.

A prior is a plain description without variables. With `shared="name"` the model owns the variables: once a layer is
built, the model gives all weights with that name one `SharedPrior` and saves its variables with its own. A loaded model
does the same with the layers it rebuilds, so a shared scale remains shared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfp_bnn.core.layer_tree import sublayers, unlocked
from tfp_bnn.core.noise import NoiseSource, scoped_noise
from tfp_bnn.priors.base import Prior


class SharedPrior:
    """A prior with one learned or inferred scale for several weights. Its variables belong to a model.

    Args:
        prior: Prior of all the weights that share the scale; `prior.shared` is the name.
        add_weight: Function that adds float32 variables to the model.
    """

    def __init__(self, prior: Prior, add_weight: Callable[..., keras.Variable]) -> None:
        self.prior = prior
        self.weights = prior.add_weights(add_weight, str(prior.shared), ())

    def parameters(self) -> dict[str, np.ndarray]:
        """Returns `scale` and, if it is inferred, `scale_spread`: float32 arrays of shape `()`."""
        return self.prior.parameters(self.weights)

    def noise_of_scale(self, noise: NoiseSource) -> tf.Tensor:
        """Returns the standard normal scalar that draws an inferred scale.

        Args:
            noise: Source of the noise outside a forward pass.

        Returns:
            Float32 scalar.
        """
        scoped = scoped_noise(self)
        return (noise if scoped is None else scoped).normal("prior_scale", ())

    def hyper_kl(self, noise: NoiseSource) -> tf.Tensor:
        """Estimates KL(q(s) || p(s)) of an inferred scale s with one draw.

        Args:
            noise: Source of the noise outside a forward pass.

        Returns:
            Float32 scalar, in nats; 0 for a learned scale.
        """
        return self.prior.hyper_kl(self.weights, self.noise_of_scale(noise))


def bind_shared_priors(model: Any, owned: dict[str, SharedPrior]) -> None:
    """Connects every built weight that has a shared prior with the scale that the model owns.

    Args:
        model: Variational model. Variables of new scales are added to it.
        owned: Shared priors of the model by name. New ones are added.

    Raises:
        ValueError: If two priors with one name differ, or a prior is already shared within another model.
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
                    f"Two priors are shared as {name!r}, but they differ: {shared.prior!r} and {weight.prior_spec!r} "
                    f"of {of!r}. Give them the same arguments, or different names."
                )
            weight.bind(shared)


def release_shared_priors(model: Any, removed: Any, owned: dict[str, SharedPrior]) -> None:
    """Separates a layer that was removed from a model, and takes the scales that no other layer has out of the model.

    Args:
        model: Variational model, from which the layer was removed.
        removed: The layer. Its weights have no scale until another model, or the same one, binds them.
        owned: Shared priors of the model by name. Those that no layer has are removed.
    """
    variables = {id(variable) for variable in model.variables}
    for layer in (removed, *sublayers(removed)):
        for weight in _weights_of(layer):
            shared = weight.shared_prior
            # That of a nested model stays its own.
            if shared is not None and all(id(variable) in variables for variable in shared.weights.values()):
                weight.bind(None)
    used = {weight.prior_spec.shared for layer in model.variational_layers for weight in _weights_of(layer)}
    for name in owned.keys() - used:
        for variable in owned.pop(name).weights.values():
            if id(variable) in variables:
                # Keras lets go of a variable with the attribute that holds it.
                model._released = variable
                del model._released


def _weights_of(layer: Any) -> Any:
    return getattr(layer, "variational_weights", {}).values()


def _adopted(model: Any, of: str, weight: Any, owned: dict[str, SharedPrior]) -> SharedPrior | None:
    """Returns the shared prior that a nested model has already bound, or None."""
    bound = weight.shared_prior
    if bound is None:
        return None
    name = str(bound.prior.shared)
    variables = {id(variable) for variable in model.variables}
    if not all(id(variable) in variables for variable in bound.weights.values()) or name in owned:
        raise ValueError(
            f"The prior of {of!r} is already shared as {name!r} within another model, which owns its scale. Build the "
            "layer again for this model, or rename or remove `shared`."
        )
    owned[name] = bound
    return bound


def _made(model: Any, weight: Any, owned: dict[str, SharedPrior]) -> SharedPrior:
    name = str(weight.prior_spec.shared)
    if name not in owned:
        with unlocked(model):
            owned[name] = SharedPrior(weight.prior_spec, model._add_float32_weight)
    return owned[name]

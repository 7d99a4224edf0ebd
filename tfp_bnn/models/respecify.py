"""Replaces the priors or posteriors of all Bayesian weights in the config of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import keras

from tfp_bnn.layers.base import VariationalLayer
from tfp_bnn.posteriors import POSTERIORS, Posterior
from tfp_bnn.priors import Prior

Specs = Prior | Posterior | Mapping[str, Prior | Posterior] | Callable[[Posterior], Prior | Posterior]


def respecify(config: Mapping[str, Any], role: Literal["prior", "posterior"], spec: Specs) -> dict[str, Any]:
    """Returns a Keras config of a model in which every Bayesian weight has another prior or posterior.

    Deterministic weights stay deterministic. The model is not what its architecture builds any more, so it has none.

    Args:
        config: Config of a model.
        role: Whether `spec` is a `"prior"` or a `"posterior"`.
        spec: Prior or posterior object; one for each weight, by `<layer>/<weight>`; or a function that returns one for
            a weight with the given posterior.

    Returns:
        A new config. It does not contain layers that a subclassed model creates in its own code.

    Raises:
        ValueError: If weights that have one argument in common, those of groups, are given different ones.
    """
    return {key: _changed(part, role, spec) for key, part in config.items() if key != "architecture"}


def _changed(config: Any, role: Literal["prior", "posterior"], spec: Specs) -> Any:
    if isinstance(config, list | tuple):
        return type(config)(_changed(part, role, spec) for part in config)
    if not isinstance(config, Mapping):
        return config
    changed = {key: _changed(part, role, spec) for key, part in config.items()}
    made = keras.saving.get_registered_object(str(config.get("registered_name")))
    if isinstance(made, type) and issubclass(made, VariationalLayer):
        own = changed["config"]
        given = [key for key in own if key.endswith("_posterior") and own[key] is not None]
        for prefix in (key.removesuffix("_posterior") for key in given):
            if isinstance(spec, Mapping):
                chosen = _one_of(spec, own["name"], prefix, made)
                if chosen is None:
                    continue
            else:
                chosen = spec(POSTERIORS.get(own[f"{prefix}_posterior"])) if callable(spec) else spec
            own[f"{prefix}_{role}"] = keras.saving.serialize_keras_object(chosen)
    return changed


def _one_of(
    specs: Mapping[str, Prior | Posterior], layer: str, prefix: str, made: type[VariationalLayer]
) -> Prior | Posterior | None:
    """The one for the weights of a layer whose arguments begin with a prefix; None if the layer has no such weight."""
    own = [weight for weight, of_weight in made.bayesian_weights.items() if of_weight == prefix]
    own = own or [weight for weight in made.bayesian_weights if weight.startswith(f"{prefix}_")]
    found = [specs[f"{layer}/{weight}"] for weight in own if f"{layer}/{weight}" in specs]
    if not found:
        return None
    chosen, *others = found
    if any(other != chosen for other in others):
        raise ValueError(
            f"{', '.join(own)} of the layer {layer!r} have one argument, {prefix!r}, but would get {chosen!r} and "
            f"{others[0]!r}, as after learning a scale each. Give them a fixed scale."
        )
    return chosen

"""The config of a model with other priors, or other posteriors, of all its Bayesian weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import keras

from tfp_bnn.layers.base import VariationalLayer
from tfp_bnn.posteriors import Posterior
from tfp_bnn.priors import Prior


def respecify(config: Any, role: Literal["prior", "posterior"], spec: Prior | Posterior) -> Any:
    """A config of Keras in which every Bayesian weight has the given prior or posterior.

    Weights that are deterministic stay so.

    Args:
        config: Of a model, or any part of one.
        role: What `spec` is.
        spec: A prior or posterior object.

    Returns:
        A new config. Layers that a subclassed model makes in its own code are not in it.
    """
    if isinstance(config, list | tuple):
        return type(config)(respecify(part, role, spec) for part in config)
    if not isinstance(config, Mapping):
        return config
    changed = {key: respecify(part, role, spec) for key, part in config.items()}
    made = keras.saving.get_registered_object(str(config.get("registered_name")))
    if isinstance(made, type) and issubclass(made, VariationalLayer):
        own = changed["config"]
        bayesian = [key.removesuffix("posterior") for key in own if key.endswith("_posterior") and own[key] is not None]
        own.update({f"{prefix}{role}": keras.saving.serialize_keras_object(spec) for prefix in bayesian})
    return changed

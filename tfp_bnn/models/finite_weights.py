"""Refuses models whose weights are not finite. Their predictions can look fine: ReLU can turn NaN into 0."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from tfp_bnn.core.layer_tree import sublayers
from tfp_bnn.core.values import values_of
from tfp_bnn.models.weight_record import own_weights


def non_finite_weights(model: Any) -> str | None:
    """The first layer whose weights have NaN or infinite values.

    Args:
        model: A variational model, built or not.

    Returns:
        A phrase such as `"the weights of the layer 'conv1'"`, or None if all are finite.
    """
    for owner, weights in _weights_by_owner(model):
        if not all(np.isfinite(values_of(variable)).all() for variable in weights):
            return owner
    return None


def refuse_non_finite_weights(model: Any, consequence: str) -> None:
    """Raises a ValueError for a model whose weights are not all finite.

    Args:
        model: A variational model.
        consequence: End of the message, such as `"It is not saved."`.
    """
    found = non_finite_weights(model)
    if found:
        raise ValueError(
            f"NaN or infinite are {found} of the model {model.name!r}. {consequence} Train it again, with a lower "
            "learning rate or clipped gradients, or load weights from before."
        )


def _weights_by_owner(model: Any) -> Iterator[tuple[str, list[keras.Variable]]]:
    # N and beta are NaN until they are known; a model within the model has its own.
    models = [part for part in (model, *sublayers(model)) if hasattr(part, "beta_schedule")]
    seen = {id(variable) for part in models for variable in (part._num_examples, part._beta)}

    def new(variables: Iterable[keras.Variable]) -> list[keras.Variable]:
        found = [v for v in variables if id(v) not in seen and keras.backend.is_float_dtype(v.dtype)]
        seen.update(map(id, found))
        return found

    for layer in sublayers(model):
        yield f"the weights of the layer {layer.name!r}", new(own_weights(layer))
    yield f"the learned parameters of the likelihood {model.likelihood!r}", new(model.likelihood_weights.values())
    for variable in new(model.weights):
        yield f"values of the weight {variable.path!r}", [variable]

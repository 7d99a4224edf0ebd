"""Copies of models with another config and the same state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from tfp_bnn.models.derived_state import derive_state
from tfp_bnn.models.weight_record import freeze_like, layers_by_name, named_weights

Cut = Callable[[str, npt.NDArray[Any]], npt.NDArray[Any]]
"""Function that returns the part of a weight of a layer that a copy has: `cut(name of the layer, values)`."""


def copy_from(model: Any, config: Mapping[str, Any]) -> Any:
    """Returns a model of the same class from a config, without the calibration, which belongs to the old posterior."""
    return type(model).from_config({**config, "calibration": None, "conformal": None})


def copy_state(model: Any, copy: Any, cut: Cut = lambda _, values: values) -> None:
    """Builds a copy, and sets all that it has learned, what of it is trainable, and the numbers of its training.

    By variables, because parameters such as scales would be rounded on the way. A variable that the model does not
    have, such as a mask, stays as it is.

    Args:
        model: Model with the state.
        copy: Copy, which is changed.
        cut: What to take of each weight of a layer. Default: all of it.

    Raises:
        ValueError: If a layer of the copy has another name than in the model.
    """
    if not copy.built:
        copy.build(model.input_shape)
    known = layers_by_name(model)
    for name, layer in layers_by_name(copy).items():
        if name not in known:
            raise ValueError(
                f"The copy of {model.name!r} has a layer {name!r}, which the model has not: a layer of yours makes it "
                "without a name. Give the layers that it makes names."
            )
        values = named_weights(known[name])
        for key, variable in named_weights(layer).items():
            if key in values:
                variable.assign(cut(name, _value_of(values[key])))
    for name, shared in copy.shared_priors.items():
        for role, variable in shared.weights.items():
            variable.assign(model.shared_priors[name].weights[role])
    for role, variable in copy.likelihood_weights.items():
        variable.assign(model.likelihood_weights[role])
    derive_state(copy)
    freeze_like(copy, model)
    if model.num_examples is not None:
        copy.num_examples = model.num_examples
    copy.num_steps = model.num_steps


def _value_of(variable: keras.Variable) -> npt.NDArray[Any]:
    return np.asarray(variable)

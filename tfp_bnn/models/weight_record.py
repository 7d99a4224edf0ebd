"""The distributions of all weights of a model as named arrays in natural units, to be stored and put back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from tfp_bnn.core.layer_tree import has_sublayers, sublayers
from tfp_bnn.layers.base import VariationalLayer

# Before the name of a prior that layers share.
_SHARED = "prior/"


def weight_distributions(model: keras.Model) -> dict[str, np.ndarray]:
    """All that a model has learned, by names such as `conv1/kernel/loc`, `conv1/kernel/scale` and `conv1/bias`.

    Natural units: `scale` is a standard deviation, `factor` the low-rank part of a covariance, `prior_scale` that of a
    learned prior, `prior/<name>/scale` that of one which layers share, `scale_spread` beside it the standard deviation
    of its logarithm where it is inferred, `likelihood/scale` that of learned noise.

    Args:
        model: a built model; the names of its layers must be unique.

    Returns:
        Arrays by name; float32 for everything Bayesian.

    Raises:
        ValueError: when two layers have the same name.
    """
    arrays: dict[str, np.ndarray] = {}
    for layer in _layers(model):
        for name, value in _layer_arrays(layer).items():
            key = f"{layer.name}/{name}"
            if key in arrays:
                raise ValueError(
                    f"Two layers are named {layer.name!r}, so that {key!r} has two meanings. Give layers unique names."
                )
            arrays[key] = value
    for prior, shared in getattr(model, "shared_priors", {}).items():
        learned = shared.parameters()
        arrays |= {f"{_SHARED}{prior}/{name}": value for name, value in learned.items()}
    if hasattr(model, "likelihood"):
        learned = model.likelihood.parameters(model.likelihood_weights)
        arrays |= {f"likelihood/{name}": value for name, value in learned.items()}
    return arrays


def assign_weight_distributions(model: keras.Model, arrays: Mapping[str, np.ndarray]) -> None:
    """Puts arrays of `weight_distributions` into a model of the same architecture; nothing is changed unless all fit.

    Args:
        model: a built model.
        arrays: by name, float32.

    Raises:
        ValueError: for missing or unexpected names, another shape or dtype, NaN or infinite values, or a scale that is
            not positive.
    """
    expected = weight_distributions(model)
    missing, unexpected = sorted(expected.keys() - arrays.keys()), sorted(arrays.keys() - expected.keys())
    if missing or unexpected:
        raise ValueError(f"The weights do not fit the model: missing {missing}, unexpected {unexpected}.")
    for name, want in expected.items():
        _check_array(name, np.asarray(arrays[name]), want)
    try:
        _assign(model, arrays)
    except ValueError:
        # A prior or posterior may be stricter than the checks above.
        _assign(model, expected)
        raise


def count_weights(model: keras.Model) -> int:
    """The number of weights of the network; one with a distribution counts once, whatever its parameters."""
    return count_stored_weights(weight_distributions(model))


def count_stored_weights(arrays: Mapping[str, np.ndarray]) -> int:
    """As `count_weights`, of arrays by name."""
    return sum(value.size for name, value in arrays.items() if _is_weight(name))


def _is_weight(name: str) -> bool:
    group, _, parameter = name.rpartition("/")
    of_distribution = parameter in ("scale", "factor") or parameter.startswith("prior_")
    return not of_distribution and not group.startswith(_SHARED)


def _assign(model: keras.Model, arrays: Mapping[str, np.ndarray]) -> None:
    for layer in _layers(model):
        _assign_layer(layer, _below(f"{layer.name}/", arrays))
    for prior, shared in getattr(model, "shared_priors", {}).items():
        shared.prior.assign_parameters(shared.weights, _below(f"{_SHARED}{prior}/", arrays))
    if hasattr(model, "likelihood"):
        model.likelihood.assign_parameters(model.likelihood_weights, _below("likelihood/", arrays))


def _below(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


def _layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    return (layer for layer in sublayers(model) if layer.weights and not has_sublayers(layer))


def plain_variables(layer: keras.layers.Layer) -> dict[str, keras.Variable]:
    """The variables of a layer that are no part of a weight with a distribution, by name, such as a bias."""
    bayesian: set[int] = set()
    if isinstance(layer, VariationalLayer):
        bayesian = {id(variable) for weight in layer.variational_weights.values() for variable in weight.variables}
    return {variable.name: variable for variable in layer.weights if id(variable) not in bayesian}


def _layer_arrays(layer: keras.layers.Layer) -> dict[str, np.ndarray]:
    arrays = {name: np.asarray(variable) for name, variable in plain_variables(layer).items()}
    if isinstance(layer, VariationalLayer):
        for weight in layer.variational_weights.values():
            arrays |= {f"{weight.name}/{name}": value for name, value in weight.parameters().items()}
    return arrays


def _assign_layer(layer: keras.layers.Layer, arrays: Mapping[str, np.ndarray]) -> None:
    for name, variable in plain_variables(layer).items():
        variable.assign(arrays[name])
    if isinstance(layer, VariationalLayer):
        for weight in layer.variational_weights.values():
            weight.assign_parameters(_below(f"{weight.name}/", arrays))


def _check_array(name: str, got: np.ndarray, want: Any) -> None:
    if got.shape != want.shape or got.dtype != want.dtype:
        raise ValueError(
            f"The weight {name!r} has shape {got.shape} and dtype {got.dtype}; expected {want.shape} and {want.dtype}."
        )
    bad = ~np.isfinite(got)
    if name.endswith(("scale", "spread")):
        bad |= got <= 0
    if bad.any():
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"The weight {name!r} has {int(bad.sum())} values that are NaN, infinite or no valid scale, of {got.size}; "
            f"the first is {got[index]} at index {index}."
        )

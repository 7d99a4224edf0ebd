"""Which Bayesian layer stands for which Keras layer, and which weights of the two are the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from tfp_bnn import layers as bayesian
from tfp_bnn.core.layer_tree import projections_of
from tfp_bnn.layers.base import VariationalLayer

# By exact class: a subclass may compute something else.
TWINS: Mapping[type[keras.layers.Layer], type[VariationalLayer]] = {
    keras.layers.Dense: bayesian.DenseFlipout,
    keras.layers.EinsumDense: bayesian.EinsumDenseFlipout,
    keras.layers.Conv1D: bayesian.Convolution1DFlipout,
    keras.layers.Conv2D: bayesian.Convolution2DFlipout,
    keras.layers.Conv3D: bayesian.Convolution3DFlipout,
    keras.layers.Conv1DTranspose: bayesian.Convolution1DTransposeFlipout,
    keras.layers.Conv2DTranspose: bayesian.Convolution2DTransposeFlipout,
    keras.layers.DepthwiseConv2D: bayesian.DepthwiseConvolution2DFlipout,
    keras.layers.SeparableConv2D: bayesian.SeparableConvolution2DFlipout,
    keras.layers.LSTM: bayesian.LSTMFlipout,
    keras.layers.GRU: bayesian.GRUFlipout,
    keras.layers.MultiHeadAttention: bayesian.MultiHeadAttentionFlipout,
    keras.layers.Embedding: bayesian.EmbeddingReparameterization,
    keras.layers.LayerNormalization: bayesian.LayerNormalizationReparameterization,
    keras.layers.GroupNormalization: bayesian.GroupNormalizationReparameterization,
    bayesian.FilterResponseNormalization: bayesian.FilterResponseNormalizationReparameterization,
}
"""The Bayesian twin of each layer that has one."""

WRAPPERS: Mapping[type[keras.layers.Layer], Mapping[str, str]] = {
    keras.layers.TimeDistributed: {"layer": "layer"},
    keras.layers.Bidirectional: {"layer": "forward_layer", "backward_layer": "backward_layer"},
}
"""For each layer of Keras that only applies others: their attributes, by the name of the argument."""

_KERAS_CELLS = (keras.layers.LSTM, keras.layers.GRU)
# Weights of a deterministic layer that its twin has too, without a distribution.
_DETERMINISTIC = ("tau",)
# Of a recurrent layer the class below ours is not a layer of Keras.
_TWINS_BACK = {bayesian.LSTMFlipout: keras.layers.LSTM, bayesian.GRUFlipout: keras.layers.GRU}


def inner_layers(layer: keras.Operation) -> list[keras.layers.Layer]:
    """The layers that a wrapper applies, in a fixed order; of any other layer itself."""
    arguments = WRAPPERS.get(type(layer))
    return [layer] if arguments is None else [getattr(layer, name) for name in arguments.values()]


def rewrap(layer: keras.layers.Layer, make: Callable[[keras.layers.Layer], keras.layers.Layer]) -> keras.layers.Layer:
    """Makes a layer, or a wrapper around layers, from what `make` returns for the layers themselves.

    Args:
        layer: Layer, or wrapper.
        make: Function that returns a new layer in place of one that is not a wrapper.

    Returns:
        A new layer, not built.
    """
    arguments = WRAPPERS.get(type(layer))
    if arguments is None:
        return make(layer)
    made = {name: make(getattr(layer, attribute)) for name, attribute in arguments.items()}
    config = {name: keras.saving.serialize_keras_object(inner) for name, inner in made.items()}
    return type(layer).from_config({**layer.get_config(), **config})


def why_no_twin(layer: keras.Operation) -> str | None:
    """The reason why a layer has no Bayesian twin, as words after its class; None if it has one."""
    inner = inner_layers(layer)
    if inner != [layer]:
        reasons = [(found, why_no_twin(found)) for found in inner]
        return next((f" around {_named(found)}{reason}" for found, reason in reasons if reason is not None), None)
    if type(layer) not in TWINS:
        return ""
    if layer.quantization_mode is not None:
        return " that is quantized"
    config = layer.get_config()
    if config.get("lora_rank"):
        return " with LoRA"
    if isinstance(layer, _KERAS_CELLS) and (config["dropout"] or config["recurrent_dropout"]):
        return " with dropout: put an MCDropout before or after it instead"
    if not config.get("scale", True) or config.get("rms_scaling"):
        return " without a gain to have a distribution over"
    return None


def keras_class(cls: type[VariationalLayer]) -> type[keras.layers.Layer] | None:
    """The class of Keras that a class of ours is made from, or None, as for a layer that Keras does not have."""
    for ours, theirs in _TWINS_BACK.items():
        if issubclass(cls, ours):
            return theirs
    found = next(base for base in cls.__mro__ if base.__module__.startswith("keras."))
    return None if found is keras.layers.Layer or cls is bayesian.HierarchicalDenseReparameterization else found


def values_of(layer: keras.layers.Layer, twin: VariationalLayer) -> dict[str, np.ndarray]:
    """The values of the weights of a built Keras layer, by the names that they have in its Bayesian twin."""
    return {name: np.asarray(variable)[part] for name, (variable, part) in _places(layer, twin).items()}


def assign_means(layer: keras.layers.Layer, twin: VariationalLayer) -> None:
    """Sets the weights of a built Keras layer to the posterior means of its twin, and to its deterministic weights."""
    for name, (variable, part) in _places(layer, twin).items():
        weight = twin.variational_weights.get(name)
        value = np.asarray(variable).copy()
        value[part] = getattr(twin, name) if weight is None else weight.mean
        variable.assign(value)


def _places(layer: keras.layers.Layer, twin: VariationalLayer) -> dict[str, tuple[keras.Variable, Any]]:
    """Where each weight of the twin is in a Keras layer: a variable, and the part of it."""
    found: dict[str, tuple[keras.Variable, Any]]
    if isinstance(layer, keras.layers.MultiHeadAttention):
        found = {
            f"{name}_{weight}": (getattr(projection, weight), ...)
            for name, projection in projections_of(layer).items()
            for weight in ("kernel", "bias")
        }
    else:
        owner = layer.cell if isinstance(layer, _KERAS_CELLS) else layer
        names = (*twin.bayesian_weights, *twin.optional_weights, *_DETERMINISTIC)
        found = {name: (getattr(owner, name, None), ...) for name in names}
        if isinstance(layer, keras.layers.GRU) and twin.recurrent_bias is not None:
            found |= {"bias": (owner.bias, 0), "recurrent_bias": (owner.bias, 1)}
    return {name: place for name, place in found.items() if place[0] is not None}


def _named(layer: keras.layers.Layer) -> str:
    return f"{layer.name} ({type(layer).__name__})"

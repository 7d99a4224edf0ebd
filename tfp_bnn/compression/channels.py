"""Which units and filters of a network are the same channel, and which weights lead into it and out of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt

from tfp_bnn import layers as bayesian
from tfp_bnn.core.layer_tree import calls_in_order, graph_of, maker_of
from tfp_bnn.layers.base import VariationalLayer
from tfp_bnn.transfer.twins import keras_class

Indices = npt.NDArray[np.int64]

_DENSE = (keras.layers.Dense,)
_CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
_NORMALIZATIONS = (
    keras.layers.BatchNormalization,
    bayesian.FilterResponseNormalization,
    bayesian.FilterResponseNormalizationReparameterization,
)
_PER_CHANNEL = (
    *(keras.layers.Activation, keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.ELU, keras.layers.Identity),
    *(keras.layers.Dropout, bayesian.MCDropout, keras.layers.GaussianNoise, keras.layers.Rescaling),
    *(keras.layers.MaxPooling1D, keras.layers.MaxPooling2D, keras.layers.MaxPooling3D),
    *(keras.layers.AveragePooling1D, keras.layers.AveragePooling2D, keras.layers.AveragePooling3D),
    *(keras.layers.GlobalMaxPooling1D, keras.layers.GlobalMaxPooling2D, keras.layers.GlobalMaxPooling3D),
    *(keras.layers.GlobalAveragePooling1D, keras.layers.GlobalAveragePooling2D, keras.layers.GlobalAveragePooling3D),
    *(keras.layers.ZeroPadding1D, keras.layers.ZeroPadding2D, keras.layers.ZeroPadding3D),
    *(keras.layers.UpSampling1D, keras.layers.UpSampling2D, keras.layers.UpSampling3D),
    *(keras.layers.Cropping1D, keras.layers.Cropping2D, keras.layers.Cropping3D, keras.layers.Resizing),
)
_MERGES = (
    *(keras.layers.Add, keras.layers.Subtract, keras.layers.Multiply, keras.layers.Average),
    *(keras.layers.Maximum, keras.layers.Minimum),
)
# Their outputs for one channel depend on the others.
_MIXING = ("softmax", "log_softmax", "sparsemax", "glu")


class Ends(NamedTuple):
    """The channels at both ends of a layer."""

    inputs: Indices
    """Channel of each input feature; of a normalization none."""

    outputs: Indices
    """Channel of each unit or filter."""


class Channels:
    """The channels of a graph of layers.

    A channel is made by a unit of a dense layer or by a filter of a convolution, and goes through activations, poolings
    and normalizations as it is. After a `Flatten` it has one feature for each position. An `Add` makes one channel of
    those that it adds. What another layer gets or gives is fixed: it has as many channels as it has.

    Args:
        network: Built Functional or Sequential model.
    """

    def __init__(self, network: keras.Model) -> None:
        self._same: list[int] = []
        self._fixed: dict[int, str] = {}
        self._ends: dict[str, Ends] = {}
        self._of_tensors: dict[int, Indices] = {}
        self.layers: dict[str, keras.layers.Layer] = {}
        """Dense layers, convolutions and normalizations, by name."""
        graph = graph_of(network)
        for tensor in graph.inputs:
            self._of_tensors[id(tensor)] = self._new(tensor, "they are inputs of the network")
        for _, outputs in calls_in_order(network):
            operation, inputs = maker_of(outputs[0])
            self._call(operation, inputs, outputs)
        for tensor in graph.outputs:
            self._fix(self._of_tensors[id(tensor)], "they are outputs of the network")

    @property
    def ends(self) -> dict[str, Ends]:
        """The channels at both ends of each dense layer, convolution and normalization, by its name."""
        root = np.array([self._root(index) for index in range(len(self._same))], np.int64)
        return {name: Ends(root[ends.inputs], root[ends.outputs]) for name, ends in self._ends.items()}

    @property
    def fixed(self) -> dict[int, str]:
        """Why a channel cannot be removed, for those that cannot."""
        return {self._root(index): reason for index, reason in self._fixed.items()}

    def _call(self, operation: Any, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        channels = [self._of_tensors[id(tensor)] for tensor in inputs]
        found = self._passed_through(operation, inputs, channels)
        if found is None:
            reason = f"{operation.name!r} ({type(operation).__name__}) needs all of its channels"
            for taken in channels:
                self._fix(taken, reason)
            for tensor in outputs:
                self._of_tensors[id(tensor)] = self._new(tensor, reason)
        else:
            self._of_tensors[id(outputs[0])] = found

    def _passed_through(self, operation: Any, inputs: Sequence[Any], channels: list[Indices]) -> Indices | None:
        """The channels of the outputs, or None if they cannot be known from those of the inputs."""
        kind = _kind(operation)
        if kind is None or not _channels_last(operation):
            return None
        if issubclass(kind, (*_DENSE, *_CONVOLUTIONS)):
            return self._made_by(operation, channels[0])
        if kind in _NORMALIZATIONS:
            return self._normalized(operation, inputs[0], channels[0])
        if kind in _PER_CHANNEL:
            return None if _mixes(operation) else channels[0]
        if kind is keras.layers.Flatten and None not in inputs[0].shape[1:]:
            return np.resize(channels[0], int(np.prod(inputs[0].shape[1:])))
        if kind in _MERGES and len({len(of_input) for of_input in channels}) == 1:
            for other in channels[1:]:
                self._unite(channels[0], other)
            return channels[0]
        if kind is keras.layers.Concatenate and operation.axis in (-1, len(inputs[0].shape) - 1):
            return np.concatenate(channels)
        return None

    def _made_by(self, layer: Any, taken: Indices) -> Indices | None:
        if getattr(layer, "groups", 1) != 1:
            return None
        if layer.name not in self._ends:
            made = self._some(getattr(layer, "filters", None) or layer.units)
            self._add(layer, Ends(taken, made))
            if _mixes(layer):
                self._fix(made, f"the activation of {layer.name!r} needs all of them")
        self._unite(self._ends[layer.name].inputs, taken)
        return self._ends[layer.name].outputs

    def _normalized(self, layer: Any, tensor: Any, taken: Indices) -> Indices | None:
        axis = layer.axis if isinstance(layer.axis, int) else None
        if axis not in (-1, len(tensor.shape) - 1):
            return None
        if layer.name not in self._ends:
            self._add(layer, Ends(taken[:0], taken))
        self._unite(self._ends[layer.name].outputs, taken)
        return taken

    def _add(self, layer: keras.layers.Layer, ends: Ends) -> None:
        self._ends[layer.name] = ends
        self.layers[layer.name] = layer

    def _new(self, tensor: Any, reason: str) -> Indices:
        size = tensor.shape[-1] if len(tensor.shape) > 1 else 1
        made = self._some(size or 1)
        self._fix(made, reason)
        return made

    def _some(self, number: int) -> Indices:
        made = np.arange(len(self._same), len(self._same) + number)
        self._same.extend(made.tolist())
        return made

    def _fix(self, channels: Indices, reason: str) -> None:
        for index in channels.tolist():
            self._fixed.setdefault(self._root(index), reason)

    def _unite(self, some: Indices, others: Indices) -> None:
        for one, other in zip(some.tolist(), others.tolist(), strict=True):
            self._same[self._root(other)] = self._root(one)

    def _root(self, index: int) -> int:
        while self._same[index] != index:
            index = self._same[index]
        return index


def units_in_use(ends: dict[str, Ends], fixed: set[int], kept: Callable[[str], npt.NDArray[np.bool_]]) -> set[int]:
    """The channels that the outputs depend on: fixed ones, and those that a weight connects with one of them.

    Args:
        ends: The channels at both ends of each layer.
        fixed: The channels that cannot be removed.
        kept: Function that says which weights of a layer are kept, of shape `(inputs, units)`, by its name.
    """
    weights = {name: kept(name) for name, of_layer in ends.items() if of_layer.inputs.size}
    used: set[int] = set()
    more = set(fixed)
    while more:
        used |= more
        more = set()
        for name, connected in weights.items():
            units = np.isin(ends[name].outputs, list(used))
            more |= set(ends[name].inputs[connected[:, units].any(axis=1)].tolist())
        more -= used
    return used


def _kind(operation: Any) -> type | None:
    """The class of Keras, or of ours, that says what an operation computes. A subclass may compute something else."""
    cls = type(operation)
    if cls in (*_NORMALIZATIONS, *_PER_CHANNEL):
        return cls
    if isinstance(operation, VariationalLayer):
        return keras_class(cls) if cls.__module__.startswith("tfp_bnn.") else None
    return cls if cls.__module__.startswith("keras.") and isinstance(operation, keras.layers.Layer) else None


def _channels_last(operation: Any) -> bool:
    return getattr(operation, "data_format", None) in (None, "channels_last")


def _mixes(layer: Any) -> bool:
    activation = getattr(layer, "activation", None)
    return getattr(activation, "__name__", "") in _MIXING or (
        activation is not None and not getattr(activation, "__module__", "").startswith("keras.")
    )

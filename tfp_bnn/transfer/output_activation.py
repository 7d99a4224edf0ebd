"""The activation that ends a model: likelihoods take logits, trained classifiers often give probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from tfp_bnn.core.layer_tree import maker_of
from tfp_bnn.likelihoods import LIKELIHOODS, Likelihood
from tfp_bnn.transfer.rebuilding import count_calls, graph_ends, is_graph

# What takes the logits that an activation at the end makes probabilities of, where nothing else was asked for.
_LIKELIHOODS = {"softmax": "categorical", "sigmoid": "bernoulli"}
_WITHOUT_EFFECT = ("linear",)
# They keep the values, but not where these stand.
_RESHAPING = (keras.layers.Reshape, keras.layers.Flatten, keras.layers.Permute)


@dataclass(frozen=True)
class OutputActivation:
    """What makes the outputs of a model."""

    operation: keras.Operation
    """The last layer, or other operation, that computes anything."""

    activation: str | None
    """`"softmax"` or `"sigmoid"` where it is, or has, one of these; else None."""

    obstacle: str | None
    """Why the activation cannot be taken off, or None."""

    @property
    def name(self) -> str:
        """Of the operation."""
        return self.operation.name

    @property
    def likelihood(self) -> str | None:
        """The likelihood that makes the same probabilities of the logits before the activation; None without one."""
        return _LIKELIHOODS.get(self.activation or "")

    def fitting(self, likelihood: str | Mapping[str, Any] | Likelihood | None) -> Likelihood:
        """The likelihood of a model that ends so.

        Args:
            likelihood: what the user asked for, or None to derive it.

        Raises:
            ValueError: when it cannot be derived, or takes logits of another kind; for what `LIKELIHOODS` refuses.
        """
        wanted = self.likelihood if likelihood is None else likelihood
        if wanted is None:
            raise ValueError(
                f"The model ends with {self.name!r}, not in softmax or sigmoid, so that its likelihood cannot be "
                "derived. Pass likelihood='categorical' or 'bernoulli' if its outputs are logits, or 'normal' for "
                "regression."
            )
        found = LIKELIHOODS.get(wanted)
        if None not in (self.activation, found.output_activation) and not self.is_part_of(found):
            raise ValueError(
                f"The model ends in the {self.activation} of {self.name!r}, which goes with likelihood="
                f"{self.likelihood!r}, but got {found!r}, which takes other logits. Leave `likelihood` out, or remove "
                "the activation."
            )
        return found

    def is_part_of(self, likelihood: Likelihood) -> bool:
        """Whether the likelihood does what the activation does, so that the activation is to be taken off."""
        return self.activation is not None and self.activation == likelihood.output_activation

    def check_removable(self) -> None:
        """Refuses an activation that cannot be taken off.

        Raises:
            ValueError: says why, and how to mend it.
        """
        if self.obstacle is not None:
            raise ValueError(
                f"The likelihood takes logits, but the {self.activation} of {self.name!r} cannot be taken off the "
                f"model, because {self.obstacle}. Build the model with a last layer that gives the logits, and copy "
                "the weights."
            )

    def without_activation(self) -> keras.layers.Layer:
        """A new layer that does the same without the activation, of the same class where there is more to do."""
        layer = self.operation
        if _is_pure(layer):
            # Under the name of the operation, and in the dtype policy that a layer has.
            dtype = {"dtype": layer.dtype_policy} if isinstance(layer, keras.layers.Layer) else {}
            return keras.layers.Activation("linear", name=layer.name, **dtype)
        return type(layer).from_config({**layer.get_config(), "activation": "linear"})


def find_output_activation(model: keras.Model) -> OutputActivation:
    """Looks for the softmax or sigmoid at the end of a model, in nested models too.

    Args:
        model: a built Functional or Sequential model of one output.
    """
    calls = count_calls(model)
    obstacle = None
    _, tensor = graph_ends(model)
    while True:
        (tensor,) = keras.tree.flatten(tensor)
        operation, before = maker_of(tensor)
        if calls[id(operation)] > 1:
            obstacle = f"{operation.name!r} is called {calls[id(operation)]} times in the model"
        if is_graph(operation) and len(operation.outputs) == 1:
            _, tensor = graph_ends(operation)
            continue
        activation = _activation(operation)
        if isinstance(operation, keras.layers.Wrapper):
            obstacle = f"{operation.name!r} wraps it"
        if len(before) > 1:
            obstacle = f"{operation.name!r} has several inputs, such as a mask"
        if activation in _WITHOUT_EFFECT and _is_pure(operation) and before:
            tensor = before[0]
            continue
        if isinstance(operation, _RESHAPING) and before:
            obstacle = f"{operation.name!r} follows it and changes the shape"
            tensor = before[0]
            continue
        if activation == "softmax" and getattr(operation, "axis", -1) not in (-1, len(tensor.shape) - 1):
            obstacle = f"its axis is {operation.axis}, and classes are on the last one"
        return OutputActivation(operation, activation if activation in _LIKELIHOODS else None, obstacle)


def _activation(operation: keras.Operation) -> str | None:
    """The name of the activation that an operation ends with, as far as it can be told."""
    if isinstance(operation, keras.layers.Identity):
        return "linear"
    if isinstance(operation, keras.layers.Softmax) or _is_op(operation, "Softmax"):
        return "softmax"
    if _is_op(operation, "Sigmoid"):
        return "sigmoid"
    if isinstance(operation, keras.layers.RNN):
        # Its activation is one of each time step, and feeds the next.
        return None
    if isinstance(operation, keras.layers.Wrapper):
        return _activation(operation.layer)
    function: Any = getattr(operation, "activation", None)
    return getattr(function, "__name__", None)


def _is_pure(operation: keras.Operation) -> bool:
    """Whether an operation is an activation and nothing else."""
    layers = (keras.layers.Identity, keras.layers.Softmax, keras.layers.Activation)
    return isinstance(operation, layers) or not isinstance(operation, keras.layers.Layer)


def _is_op(operation: keras.Operation, name: str) -> bool:
    """Whether an operation is that of a function of `keras.ops`."""
    return type(operation).__name__ == name and type(operation).__module__.startswith("keras.src.ops")

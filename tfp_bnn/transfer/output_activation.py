"""The final activation of a model, which is removed because likelihoods take logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from tfp_bnn.core.layer_tree import maker_of
from tfp_bnn.likelihoods import LIKELIHOODS, Likelihood
from tfp_bnn.transfer.rebuilding import count_calls, graph_ends, is_graph

# The default likelihood for the logits before each final activation.
_LIKELIHOODS = {"softmax": "categorical", "sigmoid": "bernoulli"}
_WITHOUT_EFFECT = ("linear",)
# These keep the values but move them.
_RESHAPING = (keras.layers.Reshape, keras.layers.Flatten, keras.layers.Permute)


@dataclass(frozen=True)
class OutputActivation:
    """The operation that computes the outputs of a model."""

    operation: keras.Operation
    """The last layer, or other operation, that computes anything."""

    activation: str | None
    """`"softmax"` or `"sigmoid"` if it is, or has, one of these, otherwise None."""

    obstacle: str | None
    """Reason why the activation cannot be removed, or None."""

    @property
    def name(self) -> str:
        """Name of the operation."""
        return self.operation.name

    @property
    def likelihood(self) -> str | None:
        """The likelihood that computes the same probabilities from the logits before the activation, or None."""
        return _LIKELIHOODS.get(self.activation or "")

    def fitting(self, likelihood: str | Mapping[str, Any] | Likelihood | None) -> Likelihood:
        """Returns the likelihood of a model with this final activation.

        Args:
            likelihood: Likelihood that the user passed, or None to derive it.

        Raises:
            ValueError: If it cannot be derived, takes logits of another kind, or is unknown to `LIKELIHOODS`.
        """
        wanted = self.likelihood if likelihood is None else likelihood
        if wanted is None:
            raise ValueError(
                f"The model ends with {self.name!r}, not in softmax or sigmoid: its likelihood cannot be "
                "derived. Pass likelihood='categorical' or 'bernoulli' if its outputs are logits, or 'normal' for "
                "regression."
            )
        found = LIKELIHOODS.get(wanted)
        if None not in (self.activation, found.output_activation) and not self.is_part_of(found):
            raise ValueError(
                f"The model ends in the {self.activation} of {self.name!r}, which implies likelihood="
                f"{self.likelihood!r}, but got {found!r}, which takes other logits. Leave `likelihood` out, or remove "
                "the activation."
            )
        return found

    def is_part_of(self, likelihood: Likelihood) -> bool:
        """Whether the likelihood applies the activation itself, so it must be removed from the model."""
        return self.activation is not None and self.activation == likelihood.output_activation

    def check_removable(self) -> None:
        """Refuses an activation that cannot be removed.

        Raises:
            ValueError: If it cannot be removed. The message says why and how to fix it.
        """
        if self.obstacle is not None:
            raise ValueError(
                f"The likelihood takes logits, but the {self.activation} of {self.name!r} cannot be removed from the "
                f"model, because {self.obstacle}. Build the model with a last layer that gives the logits, and copy "
                "the weights."
            )

    def without_activation(self) -> keras.layers.Layer:
        """Returns a new layer that does the same without the activation, of the same class unless it is a pure one."""
        layer = self.operation
        if _is_pure(layer):
            # With the name of the operation and the dtype policy of a layer.
            dtype = {"dtype": layer.dtype_policy} if isinstance(layer, keras.layers.Layer) else {}
            return keras.layers.Activation("linear", name=layer.name, **dtype)
        return type(layer).from_config({**layer.get_config(), "activation": "linear"})


def find_output_activation(model: keras.Model) -> OutputActivation:
    """Finds the softmax or sigmoid at the end of a model, in nested models too.

    Args:
        model: Built Functional or Sequential model with one output.
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
    """Returns the name of the final activation of an operation, if it can be determined."""
    if isinstance(operation, keras.layers.Identity):
        return "linear"
    if isinstance(operation, keras.layers.Softmax) or _is_op(operation, "Softmax"):
        return "softmax"
    if _is_op(operation, "Sigmoid"):
        return "sigmoid"
    if isinstance(operation, keras.layers.RNN):
        # Its activation applies at each time step and feeds the next.
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
    """Whether an operation belongs to a function of `keras.ops`."""
    return type(operation).__name__ == name and type(operation).__module__.startswith("keras.src.ops")

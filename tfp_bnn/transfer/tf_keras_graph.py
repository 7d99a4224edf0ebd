"""The only file that uses the private API of `tf_keras` (Keras 2), where the graph of layers is not public."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def is_graph(layer: Any) -> bool:
    """Whether a layer is a `tf_keras` model with a known graph of layers."""
    return bool(getattr(layer, "_is_graph_network", False))


def calls_in_order(model: Any) -> Iterator[Any]:
    """Yields the layer calls of a graph in the order of execution: nodes with `layer`, `call_args`, `outputs`."""
    for _, nodes in sorted(model._nodes_by_depth.items(), reverse=True):
        yield from (node for node in nodes if not node.is_input)


def name_of_input(tensor: Any) -> str:
    """Returns the name of the layer that a symbolic input comes from."""
    return tensor._keras_history.layer.name


def has_callable_losses(layer: Any) -> bool:
    """Whether a layer adds its own losses, such as those of regularized weights."""
    return bool(getattr(layer, "_callable_losses", ()))

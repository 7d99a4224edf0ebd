"""The only file that touches the private API of `tf_keras`, Keras 2, in which a graph of layers is not public."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def is_graph(layer: Any) -> bool:
    """Whether it is a model of `tf_keras` whose graph of layers is known."""
    return bool(getattr(layer, "_is_graph_network", False))


def calls_in_order(model: Any) -> Iterator[Any]:
    """The calls of the layers of a graph in the order of execution: nodes with `layer`, `call_args`, `outputs`."""
    for _, nodes in sorted(model._nodes_by_depth.items(), reverse=True):
        yield from (node for node in nodes if not node.is_input)


def name_of_input(tensor: Any) -> str:
    """The name of the layer that a symbolic input comes from."""
    return tensor._keras_history.layer.name


def has_callable_losses(layer: Any) -> bool:
    """Whether a layer adds losses of its own, as one with regularized weights does."""
    return bool(getattr(layer, "_callable_losses", ()))

"""Operations of TensorFlow that tf2onnx does not know, as operations of ONNX."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_Last = tuple[str, list[str], dict[str, Any]]
"""The last of some nodes: its operation, inputs and attributes."""


def _xlogy(graph: Any, x: str, y: str) -> _Last:
    """The product x log(y), and 0 where x is 0."""
    product = graph.make_node("Mul", [x, graph.make_node("Log", [y]).output[0]])
    is_zero = graph.make_node("Equal", [x, _constant(graph, 0)])
    return "Where", [is_zero.output[0], _constant(graph, 0), product.output[0]], {}


def _erfc(graph: Any, x: str) -> _Last:
    """The difference 1 - erf(x), exact to 1e-7, which is far from exact where it is smaller than that."""
    return "Sub", [_constant(graph, 1), graph.make_node("Erf", [x]).output[0]], {}


def _expm1(graph: Any, x: str) -> _Last:
    """The difference exp(x) - 1, exact to 1e-7."""
    return "Sub", [graph.make_node("Exp", [x]).output[0], _constant(graph, 1)], {}


def _broadcast_args(graph: Any, first: str, second: str) -> _Last:
    """The shape to which two shapes are broadcast."""
    from onnx import TensorProto

    of_first, of_second = (
        graph.make_node("Cast", [shape], attr={"to": TensorProto.INT64}).output[0] for shape in (first, second)
    )
    expanded = graph.make_node("Expand", [graph.make_node("ConstantOfShape", [of_first]).output[0], of_second])
    return "Cast", [graph.make_node("Shape", expanded.output).output[0]], {"to": TensorProto.INT32}


@functools.cache
def register_onnx_operations() -> None:
    """Tells tf2onnx of them. It must be installed."""
    from tf2onnx.handler import tf_op
    from tf2onnx.utils import make_name

    def handler(last_operation: Callable[..., _Last]) -> type:
        def replace(cls: type, graph: Any, node: Any, **kwargs: Any) -> None:
            shapes, dtypes, outputs = node.output_shapes, node.output_dtypes, node.output
            graph.remove_node(node.name)
            kind, inputs, attributes = last_operation(graph, *node.input)
            graph.make_node(
                kind, inputs, attributes, outputs=outputs, name=make_name(node.name), shapes=shapes, dtypes=dtypes
            )

        # From version 9 of ONNX on.
        return type("Handler", (), {"version_9": classmethod(replace)})

    known: dict[str, Callable[..., _Last]] = {
        "Xlogy": _xlogy,
        "Erfc": _erfc,
        "Expm1": _expm1,
        "BroadcastArgs": _broadcast_args,
    }
    for kind, last_operation in known.items():
        tf_op(kind)(handler(last_operation))


def check_onnx_file(path: Path) -> None:
    """Refuses a file with operations that ONNX does not know, which tf2onnx writes as they are.

    Args:
        path: Path of the file.

    Raises:
        onnx.checker.ValidationError: The message names the operation.
    """
    import onnx

    onnx.checker.check_model(str(path))


def _constant(graph: Any, value: float) -> str:
    from tf2onnx.utils import make_name

    constant: str = graph.make_const(make_name("constant"), np.float32(value).reshape(())).output[0]
    return constant

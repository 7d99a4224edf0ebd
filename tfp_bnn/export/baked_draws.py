"""The draws of a model with their random numbers computed, for formats that cannot make them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import tensorflow as tf

from tfp_bnn.core.draws import Draws, FiniteDraws, Function

MOST_BYTES = 2**29
"""Most bytes of weights and masks of draws in a file, 512 MiB."""


def baked_draws(draws: Draws, num_samples: int, input_specs: Any) -> FiniteDraws:
    """The first draws, each as operations on its inputs and constants, for the graph of an exported model.

    Args:
        draws: Draws, however they are made.
        num_samples: Number of draws; all, if there are fewer.
        input_specs: The inputs as `tf.TensorSpec`, in the structure that the functions take.

    Raises:
        ValueError: If the draws are larger than `MOST_BYTES` together.
    """
    number = num_samples if draws.num_draws is None else min(num_samples, draws.num_draws)
    weights = [draws.likelihood_weights(index) for index in range(number)]
    if draws.num_draws is None:
        # Traced once, whatever the number of draws.
        of_draw = _PartlyEvaluated(lambda x, index: draws(index)(x), input_specs, tf.TensorSpec([], tf.int32))
        made = (of_draw.at(tf.constant(index)) for index in range(number))
    else:
        made = (_PartlyEvaluated(draws(index), input_specs).at() for index in range(number))
    functions = []
    for index, (function, num_bytes) in enumerate(made):
        if not index and number * num_bytes > MOST_BYTES:
            ways = [f"num_samples={most} or fewer"] if (most := MOST_BYTES // num_bytes) else []
            # Markov chains have no SavedModel.
            ways += [] if getattr(draws, "sampled", False) else ["format='tf_saved_model', which has no such limit"]
            raise ValueError(
                f"{number} draws take {number * num_bytes / 1e6:,.0f} MB in a file, {num_bytes / 1e6:,.1f} MB each; at "
                f"most {MOST_BYTES / 1e6:,.0f} MB are written. Use {', or '.join(ways) or 'a smaller network'}."
            )
        functions.append(function)
    return FiniteDraws(functions, weights)


class _PartlyEvaluated:
    """A function f(x, k) as g(x, h(k)), where h is what a draw determines whatever the inputs: it can be computed now.

    Args:
        function: Function of inputs, and perhaps of the number of a draw.
        input_specs: The inputs as `tf.TensorSpec`, in the structure that the function takes.
        *others: Specs of its other arguments.
    """

    def __init__(self, function: Callable[..., Any], input_specs: Any, *others: tf.TensorSpec) -> None:
        leaves = keras.tree.flatten(input_specs)

        def flat(*arguments: tf.Tensor) -> Any:
            x = keras.tree.pack_sequence_as(input_specs, arguments[: len(leaves)])
            return function(x, *arguments[len(leaves) :])

        with _calls_inlined():
            whole = tf.compat.v1.wrap_function(flat, [*leaves, *others])
        graph = whole.graph
        inputs, numbers = graph.inputs[: len(leaves)], graph.inputs[len(leaves) : len(leaves) + len(others)]
        between = _read_from_draw(graph, inputs, numbers)
        outputs = keras.tree.flatten(whole.structured_outputs)
        self._structure = whole.structured_outputs
        self._first = whole.prune(numbers, between)
        self._second = graph.as_graph_def()
        needed = {operation.name for operation in _leading_to(outputs, [*inputs, *between])}
        for node in [node for node in self._second.node if node.name not in needed]:
            self._second.node.remove(node)
        for node in self._second.node:
            # What is checked about a draw has been checked when it is computed.
            node.input[:] = [name for name in node.input if not name.startswith("^") or name[1:] in needed]
            # Gradients of our own, which are not part of the graph.
            node.attr.pop("_gradient_op_type", None)
        self._arguments = [tensor.name for tensor in [*inputs, *between]]
        self._captures = [(inside.name, outside) for outside, inside in graph.captures if inside.op.name in needed]
        self._variables = graph.variables
        self._outputs = [tensor.name for tensor in outputs]

    def at(self, *numbers: tf.Tensor) -> tuple[Function, int]:
        """The function of inputs alone, for use in a graph, and the size of the constants in it, in bytes."""
        # Not tensors: a graph takes those for further inputs.
        values = [value.numpy() for value in self._first(*numbers)]

        def function(x: Any) -> Any:
            arguments = [*keras.tree.flatten(x), *map(tf.constant, values)]
            given = dict(zip(self._arguments, arguments, strict=True))
            graph = tf.compat.v1.get_default_graph()
            given |= {name: graph.capture(handle) for name, handle in self._captures}
            for variable in self._variables:
                # As reading it would do.
                graph.watch_variable(variable)
            outputs = tf.graph_util.import_graph_def(self._second, given, self._outputs, name="draw")
            return keras.tree.pack_sequence_as(self._structure, outputs)

        # To read an attribute that a node does not have would add it.
        constants = sum(len(n.attr["value"].tensor.tensor_content) for n in self._second.node if n.op == "Const")
        return function, constants + sum(value.nbytes for value in values)


def _read_from_draw(graph: Any, inputs: list[tf.Tensor], numbers: list[tf.Tensor]) -> list[tf.Tensor]:
    """The tensors that operations on the inputs read, that do not depend on the inputs, and that a draw determines.

    What depends on variables alone stays in the graph: it is the same in all draws, and so in a file only once.
    """
    operations = graph.get_operations()
    arrays = [inside for outside, inside in graph.captures if outside.dtype not in (tf.resource, tf.variant)]
    noise = [
        made for operation in operations if operation.type.startswith("StatelessRandom") for made in operation.outputs
    ]
    of_inputs, of_draw = _depending_on(inputs, operations), _depending_on([*numbers, *arrays, *noise], operations)
    read = [tensor for operation in operations if operation in of_inputs for tensor in operation.inputs]
    return list({t.ref(): t for t in read if t.op in of_draw and t.op not in of_inputs}.values())


def _depending_on(tensors: Iterable[tf.Tensor], operations: Iterable[tf.Operation]) -> set[tf.Operation]:
    """The operations that depend on some of the tensors, with those that the tensors come from."""
    found = {tensor.op for tensor in tensors}
    # In the order in which they were made, which is that of dependence.
    for operation in operations:
        if any(tensor.op in found for tensor in operation.inputs):
            found.add(operation)
    return found


def _leading_to(outputs: list[tf.Tensor], known: list[tf.Tensor]) -> set[tf.Operation]:
    """The operations that compute the outputs from tensors that are known."""
    ends = {tensor.ref() for tensor in known}
    found: set[tf.Operation] = set()
    waiting = [tensor for tensor in outputs if tensor.ref() not in ends]
    while waiting:
        operation = waiting.pop().op
        if operation not in found:
            found.add(operation)
            waiting += [tensor for tensor in operation.inputs if tensor.ref() not in ends]
    return found


@contextlib.contextmanager
def _calls_inlined() -> Iterator[None]:
    """Context in which compiled functions add their operations to the graph that calls them, one by one."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)

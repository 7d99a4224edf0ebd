"""The only file that touches the private API of objects of Keras and TensorFlow: layers, models, metrics, datasets.

Each function says why the public API is not enough. `tests/test_rooms.py` finds any other use. (What the two keep
outside their objects is in `tfp_bnn.core.library_state`. The private API of Keras 2, which `from_tfp` reads from a
user's model, is in `tfp_bnn.transfer.tf_keras_graph`.)
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeVar

import keras
import tensorflow as tf

_Metric = TypeVar("_Metric", bound=keras.metrics.Metric)

# === Layers within layers ===


def sublayers(layer: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    """All layers within a layer or model, nested ones included, depth first, in their own order, each once.

    `Model.layers` is public, but layers inside a layer that is not a model are only in `_layers`.
    """
    seen: set[int] = set()
    waiting = list(reversed(layer._layers))
    while waiting:
        found = waiting.pop()
        if id(found) not in seen:
            seen.add(id(found))
            yield found
            waiting.extend(reversed(found._layers))


def has_sublayers(layer: keras.layers.Layer) -> bool:
    """Whether a layer contains other layers with weights, which then own those of the layer."""
    return any(inner.weights for inner in layer._layers)


def seed_generators(layer: keras.layers.Layer) -> list[keras.random.SeedGenerator]:
    """The seed generators of a layer itself. Keras tracks but does not save them, and exposes them nowhere else."""
    return list(layer._seed_generators)


def recurrent_states(layer: keras.layers.Layer) -> list[keras.Variable]:
    """The states of the stateful recurrent layers within a layer or model. Keras lists them with no other variables."""
    states = [part.states for part in sublayers(layer) if isinstance(part, keras.layers.RNN)]
    # None unless the layer is stateful and built.
    return [variable for variable in keras.tree.flatten(states) if variable is not None]


@contextlib.contextmanager
def unlocked(model: keras.Model) -> Iterator[None]:
    """Allows adding variables to a built model, which Keras refuses: its layers only get their weights then."""
    locked = model._tracker.locked
    model._tracker.unlock()
    try:
        yield
    finally:
        if locked:
            model._lock_state()


# === The graph of a model ===


def graph_of(model: keras.Model) -> Any:
    """The private Functional model of a Sequential model, or None before it is built; any other model itself."""
    return model._functional if isinstance(model, keras.Sequential) else model


def is_functional(model: keras.Model) -> bool:
    """Whether a model runs a graph of layers: the class `Functional` is not public."""
    return isinstance(model, keras.Sequential) or hasattr(model, "_run_through_graph")


def run_through_graph(model: keras.Model, inputs: Any, call_of: Callable[[keras.Operation], Callable[..., Any]]) -> Any:
    """Calls a replacement for each operation of a Functional model, as `clone_model` does."""
    return model._run_through_graph(inputs, call_of)


def calls_in_order(model: keras.Model) -> list[tuple[str, list[Any]]]:
    """Each call of an operation in the graph of a model: its name and its outputs, in the order of execution.

    `layer.output` is that of the first call only, which for a nested model is in a separate graph.
    """
    return [(node.operation.name, list(node.outputs)) for node in _nodes_in_order(graph_of(model))]


def _nodes_in_order(graph: Any) -> list[Any]:
    by_depth = graph._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth] if not node.is_input]


def calls_by_operation(model: keras.Model) -> Counter[int]:
    """How often each operation is called in the graph of a model, by `id`, without nested graphs."""
    return Counter(id(node.operation) for nodes in graph_of(model)._nodes_by_depth.values() for node in nodes)


def maker_of(tensor: keras.KerasTensor) -> tuple[keras.Operation, list[keras.KerasTensor]]:
    """The operation that made a symbolic tensor, and the tensors it was called with."""
    operation, node_index, _ = tensor._keras_history
    return operation, list(operation._inbound_nodes[node_index].input_tensors)


class SplitGraph:
    """The graph of a built Functional or Sequential model in two parts, each run on its own.

    A model made from the tensors between them would leave its calls behind in the layers.

    Args:
        model: The model.
        belongs_after: Whether an operation, and so all that depends on it, belongs to the second part.
    """

    def __init__(self, model: keras.Model, belongs_after: Callable[[keras.Operation], bool]) -> None:
        self._graph = graph_of(model)
        self._before, self._after = [], []
        late: set[int] = set()
        for node in _nodes_in_order(self._graph):
            if belongs_after(node.operation) or any(id(tensor) in late for tensor in node.input_tensors):
                late |= {id(tensor) for tensor in node.outputs}
                self._after.append(node)
            else:
                self._before.append(node)
        needed = [*(tensor for node in self._after for tensor in node.input_tensors), *self._graph.outputs]
        self._between = list({id(tensor): tensor for tensor in needed if id(tensor) not in late}.values())

    @property
    def useful(self) -> bool:
        """Whether there is a first part, and nothing but tensors between the two: masks would be lost."""
        return bool(self._before) and all(mask_of(tensor) is None for tensor in self._between)

    def before(self, inputs: Any) -> list[tf.Tensor]:
        """Runs the first part in inference mode, and returns what the second needs of it."""
        policy = self._graph.dtype_policy
        flat = [
            policy.convert_input(x, self._graph.autocast, self._graph.input_dtype) for x in keras.tree.flatten(inputs)
        ]
        flat = self._graph._standardize_inputs(keras.tree.pack_sequence_as(inputs, flat))
        values = {id(symbolic): x for symbolic, x in zip(self._graph.inputs, flat, strict=True)}
        self._run(self._before, values)
        return [values[id(tensor)] for tensor in self._between]

    def after(self, between: list[tf.Tensor]) -> Any:
        """Runs the second part in inference mode on what the first returned."""
        values = {id(symbolic): x for symbolic, x in zip(self._between, between, strict=True)}
        self._run(self._after, values)
        outputs = [values[id(tensor)] for tensor in self._graph.outputs]
        return keras.tree.pack_sequence_as(self._graph._outputs_struct, outputs)

    @staticmethod
    def _run(nodes: list[Any], values: dict[int, Any]) -> None:
        for node in nodes:
            args, kwargs = node.arguments.fill_in(values)
            if "training" in getattr(node.operation, "_call_context_args", ()):
                kwargs["training"] = False
            outputs = keras.tree.flatten(node.operation(*args, **kwargs))
            values.update({id(symbolic): x for symbolic, x in zip(node.outputs, outputs, strict=True)})


# === Layers of Keras that ours are made from ===


def prepare_attention(layer: keras.layers.MultiHeadAttention, rank: int) -> None:
    """Makes a `MultiHeadAttention` ready to attend, as its `build` does after creating its projections.

    Args:
        layer: Layer with projections of its own.
        rank: Rank of the projected queries, `(batch, positions..., heads, key_dim)`.
    """
    layer._build_attention(rank)
    layer.activity_regularizer = layer._activity_regularizer


def attend(
    layer: keras.layers.MultiHeadAttention,
    projected: tuple[tf.Tensor, tf.Tensor, tf.Tensor],
    mask: tf.Tensor | None,
    training: bool,
    return_scores: bool,
) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Dot-product attention over projected queries, keys and values, with the dropout and axes of the layer.

    Keras documents this method for subclasses. Its `call` cannot be reused: it projects with layers of its own.

    Returns:
        The outputs of all heads, and the scores if asked for.
    """
    return layer._compute_attention(*projected, mask, training, return_scores)


def pair_mask(layer: keras.layers.MultiHeadAttention, *args: Any, **kwargs: Any) -> tf.Tensor | None:
    """The mask of queries and keys that follows from all masks, and from the window of the layer."""
    return layer._compute_attention_mask(*args, **kwargs)


def attention_settings(layer: keras.layers.MultiHeadAttention) -> dict[str, Any]:
    """The constructor arguments of a `MultiHeadAttention` that no public attribute has, as objects."""
    names = ("output_shape", "use_gate", *_of_weights("kernel"), *_of_weights("bias"))
    return {name: getattr(layer, f"_{name}") for name in names}


def projections_of(layer: keras.layers.MultiHeadAttention) -> dict[str, keras.layers.EinsumDense]:
    """The projections of a built `MultiHeadAttention` of Keras, by name. That of the gate is not public."""
    names = ("query", "key", "value", "gate", "output")
    found = {name: getattr(layer, f"_{name}_dense", None) for name in names}
    return {name: projection for name, projection in found.items() if projection is not None}


def _of_weights(weight: str) -> tuple[str, ...]:
    return tuple(f"{weight}_{kind}" for kind in ("initializer", "regularizer", "constraint"))


# === Metrics ===


def better(direction: Literal["up", "down"]) -> Callable[[type[_Metric]], type[_Metric]]:
    """A class decorator that says whether a higher or a lower value of a Keras metric is better.

    `EarlyStopping` and `ModelCheckpoint` with `mode="auto"` ask a metric for `_direction`, and refuse to guess without
    it. Keras' own metrics set it, but there is no public way to do so.

    Args:
        direction: `"up"` if higher is better, `"down"` if lower is better.
    """

    def set_direction(metric: type[_Metric]) -> type[_Metric]:
        metric._direction = direction
        return metric

    return set_direction


def replace_metrics(model: keras.Model, replace: Callable[[Any, bool], Any]) -> None:
    """Replaces metrics that were given to `compile`, before their first use; later it does nothing.

    Keras turns a name such as "accuracy" into a metric by the shape of the first batch, and there is no other place to
    choose: a model that overrides `compile` is not compiled when it is loaded.

    Args:
        model: Model, compiled or not.
        replace: Function that returns the metrics for those given, in their structure, and for whether they are
            weighted.
    """
    compiled = model._compile_metrics
    if compiled is None or compiled.built:
        return
    for name, weighted in (("_user_metrics", False), ("_user_weighted_metrics", True)):
        if given := getattr(compiled, name):
            setattr(compiled, name, replace(given, weighted))


# === Training ===


def build_state_of_training(model: keras.Model, batch: Any) -> None:
    """Creates the variables of the optimizer and of the metrics of a compiled model, unless they exist.

    Keras has this for its other backends. With TensorFlow, and without a distribution strategy, it leaves it to the
    first step, which is then traced twice: TensorFlow drops a trace that created variables.

    Args:
        model: Compiled model, whose layers are built.
        batch: `(x, y)` or `(x, y, sample_weight)`: anything with the shapes and dtypes of a batch.
    """
    if model._distribute_strategy is None:
        model._symbolic_build(data_batch=batch)


@contextlib.contextmanager
def replicas_share_any_batch(model: keras.Model, batch: Any) -> Iterator[None]:
    """Creates the same variables under a strategy. In the block Keras does not: a first batch may have any size."""
    with model.distribute_strategy.scope():
        model._symbolic_build(data_batch=batch)
    model._maybe_symbolic_build = lambda **_: None
    try:
        yield
    finally:
        del model._maybe_symbolic_build


def index_in_optimizer(optimizer: keras.optimizers.Optimizer, variable: Any) -> int:
    """The position in an optimizer of a variable, also that of one replica. Keras' guide to optimizers uses it."""
    return optimizer._get_variable_index(variable)


def adam_moments(optimizer: keras.optimizers.Adam, variable: Any) -> tuple[keras.Variable, keras.Variable]:
    """The running means of the gradient and of its square that a built Adam keeps for a variable."""
    index = index_in_optimizer(optimizer, variable)
    return optimizer._momentums[index], optimizer._velocities[index]


# === Data ===


def sources(dataset: tf.data.Dataset) -> list[tf.data.Dataset]:
    """The input datasets of a transformation. TensorFlow has no public accessor."""
    return list(dataset._inputs())


def setting_of(dataset: tf.data.Dataset, name: str) -> int | None:
    """An argument of a transformation, such as `count` of `take`; None unless it is one number. None is public."""
    value = tf.get_static_value(getattr(dataset, f"_{name}"))
    return value if isinstance(value, bool | None) else int(value.item()) if value.size == 1 else None


def set_mask(tensor: Any, mask: Any) -> None:
    """Gives a tensor a mask, which Keras metrics that are means apply; there is no public way to do so."""
    tensor._keras_mask = mask


def mask_of(tensor: Any) -> Any:
    """The mask that Keras gave a tensor, or None; the accessor is not public."""
    return getattr(tensor, "_keras_mask", None)


# === Export ===


class OnlyExportedByItself:
    """Lets `tf.saved_model.save` refuse a Keras model, and `ExportArchive.track` with it. List it before `keras.Model`.

    TensorFlow traces the default signature of a Keras model, whose name is not public, when it saves the model.
    """

    @property
    def _default_save_signature(self) -> Any:
        name = self.name  # type: ignore[attr-defined]

        def serving_default() -> None:
            raise ValueError(
                f"tf.saved_model.save would save one draw of the weights of the model {name!r}, another at each "
                "request. Use model.export(folder), which saves the predictive over many draws."
            )

        return tf.function(serving_default, input_signature=[], autograph=False)

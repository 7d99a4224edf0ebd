"""Rebuilding the graph of a Keras model with new layers, any of which may be replaced."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras

from tfp_bnn.core.layer_tree import (
    calls_by_operation,
    graph_of,
    is_functional,
    maker_of,
    run_through_graph,
    seed_generators,
    sublayers,
)


class Rebuilt(NamedTuple):
    """The result of `rebuild`."""

    model: keras.Model
    """The new model, not compiled: Sequential if the given one is, otherwise Functional."""

    replaced: list[tuple[keras.Operation, keras.layers.Layer]]
    """Each replaced operation with its built replacement, whose weights are still to be set."""


def rebuild(
    model: keras.Model, replace: Callable[[keras.Operation], keras.layers.Layer | None] = lambda operation: None
) -> Rebuilt:
    """Rebuilds the graph of a Functional or Sequential model from new layers. The given model is not changed.

    A layer that is called twice remains one layer and a nested model remains nested. Names of layers, inputs and models
    are kept, and so is `trainable`. Layers that are not replaced are created from their config, with the weights, the
    other state and the seed generators of the original. Unlike `keras.models.clone_model`, this keeps sparse and
    optional inputs and does not compile the result, which would create the slots of an optimizer.

    Args:
        model: Model that passes `check_graph`.
        replace: Function that is called once for each layer or other operation of the graph, except nested models. It
            returns the replacement, not built, or None for a copy.

    Raises:
        ValueError: If a layer cannot be created from its own config.
    """
    rebuilder = _Rebuilder(replace)
    return Rebuilt(rebuilder.rebuild(model), rebuilder.finish())


def check_graph(model: Any, function: str) -> None:
    """Refuses models that `rebuild` does not support.

    Args:
        model: Object to check.
        function: Name of the calling function in the message, such as `"to_bayesian"`.

    Raises:
        TypeError: If the model is not a Keras 3 model.
        ValueError: If the model is subclassed or not built.
    """
    if not isinstance(model, keras.Model):
        hint = " For models of tf_keras see `from_tfp`." if type(model).__module__.startswith("tf_keras") else ""
        raise TypeError(f"`{function}` takes a Functional or Sequential Keras 3 model, but got {model!r}.{hint}")
    if not is_graph(model):
        raise ValueError(
            f"`{function}` rebuilds the graph of a model, but {model.name!r} is a subclassed model "
            f"({type(model).__name__}) whose `call` is code. Make a Functional model of it first, as in "
            "x = keras.Input(shape); keras.Model(x, model.call(x)), which keeps its layers and their weights."
        )
    if graph_of(model) is None:
        raise ValueError(
            f"The model {model.name!r} is not built and has no weights yet. Begin it with a `keras.Input`, or "
            "call model.build(input_shape), with None for the batch axis."
        )


def is_graph(operation: keras.Operation) -> bool:
    """Whether an operation is a Functional or Sequential model that computes what its graph says."""
    if not isinstance(operation, keras.Model) or not is_functional(operation):
        return False
    owner = next(cls for cls in type(operation).__mro__ if "call" in vars(cls))
    return owner.__module__.startswith("keras.")


def operations(model: keras.Model, prefix: str = "") -> Iterator[tuple[str, keras.Operation]]:
    """Yields the layers and other operations of a graph in the order of execution, and those of nested models.

    Args:
        model: Model that passes `check_graph`.
        prefix: Prefix of the paths.

    Yields:
        The path, such as `"nested/dense"`, and the operation. An operation in several models is yielded for each.
    """
    for operation in model.layers if isinstance(model, keras.Sequential) else model.operations:
        if isinstance(operation, keras.layers.InputLayer):
            continue
        yield f"{prefix}{operation.name}", operation
        if is_graph(operation):
            yield from operations(operation, f"{prefix}{operation.name}/")


def graph_ends(model: keras.Model) -> tuple[Any, Any]:
    """Returns the symbolic inputs and outputs of a model, in their original structure."""
    if isinstance(model, keras.Sequential):
        return model.inputs[0], model.outputs[0]
    return model.input, model.output


def count_calls(model: keras.Model) -> Counter[int]:
    """Counts the calls of each operation in a graph and in those of its nested models, by `id`."""
    graphs = {id(model): model, **{id(found): found for _, found in operations(model) if is_graph(found)}}
    calls: Counter[int] = Counter()
    for graph in graphs.values():
        calls.update(calls_by_operation(graph))
    return calls


def copy_state(source: keras.layers.Layer, target: keras.layers.Layer) -> None:
    """Copies weights, other state and seed generators between layers of the same config, including sublayers.

    Args:
        source: Built layer.
        target: Layer to change, built for inputs of the same shape.
    """
    for old, new in zip(_with_sublayers(source), _with_sublayers(target), strict=True):
        # As when loading a saved model, because some layers derive further state from what they load.
        store: dict[str, Any] = {}
        old.save_own_variables(store)
        new.load_own_variables(store)
        if hasattr(old, "save_assets"):
            with tempfile.TemporaryDirectory() as folder:
                old.save_assets(folder)
                new.load_assets(folder)
        for generator, copy in zip(seed_generators(old), seed_generators(new), strict=True):
            copy.state.assign(generator.state)


class _Rebuilder:
    def __init__(self, replace: Callable[[keras.Operation], keras.layers.Layer | None]) -> None:
        self._replace = replace
        self._made: dict[int, keras.Operation] = {}
        self._models: list[tuple[keras.Model, keras.Model]] = []
        self._copies: list[tuple[keras.layers.Layer, keras.layers.Layer]] = []
        self._replaced: list[tuple[keras.Operation, keras.layers.Layer]] = []

    def rebuild(self, model: keras.Model) -> keras.Model:
        """Returns the model with new layers, whose state is still to be set."""
        if isinstance(model, keras.Sequential):
            layers = [_input_like(model.inputs[0]), *map(self._operation, model.layers)]
            new = keras.Sequential(layers, name=model.name)
        else:
            inputs = keras.tree.map_structure(_input_like, model.input)
            new = keras.Model(inputs, run_through_graph(model, inputs, self._call), name=model.name)
        self._models.append((model, new))
        return new

    def finish(self) -> list[tuple[keras.Operation, keras.layers.Layer]]:
        """Sets the state and `trainable` of all copies, and returns the replaced operations."""
        for old, new in self._copies:
            copy_state(old, new)
        # A model sets the flag of all its layers: inner models come after outer ones, and layers after models.
        for model, copy in reversed(self._models):
            copy.trainable = model.trainable
        for source, target in self._copies:
            for old, new in zip(_with_sublayers(source), _with_sublayers(target), strict=True):
                new.trainable = old.trainable
        for operation, layer in self._replaced:
            layer.trainable = getattr(operation, "trainable", True)
        return self._replaced

    def _call(self, operation: keras.Operation) -> Callable[..., Any]:
        made = self._operation(operation)
        if all(made is not replacement for _, replacement in self._replaced):
            return made
        # Keras fills arguments in, such as mask=None, which a replacement need not have.
        return lambda *args, **kwargs: made(*args, **{key: kwargs[key] for key in kwargs if kwargs[key] is not None})

    def _operation(self, operation: keras.Operation) -> keras.Operation:
        if id(operation) not in self._made:
            self._made[id(operation)] = self._make(operation)
        return self._made[id(operation)]

    def _make(self, operation: keras.Operation) -> keras.Operation:
        if is_graph(operation):
            return self.rebuild(operation)
        replacement = self._replace(operation)
        if replacement is not None:
            self._replaced.append((operation, replacement))
            return replacement
        try:
            copy = type(operation).from_config(operation.get_config())
        except Exception as error:
            raise ValueError(
                f"The layer {operation.name!r} ({type(operation).__name__}) cannot be copied, because it cannot be "
                f"made from its own config: {error} Give its class a complete `get_config` and `from_config`."
            ) from error
        # The config of an operation that is not a layer may lack its name.
        copy.name = operation.name
        if isinstance(operation, keras.layers.Layer):
            self._copies.append((operation, copy))
        return copy


def _input_like(tensor: keras.KerasTensor) -> keras.KerasTensor:
    layer, _ = maker_of(tensor)
    return type(layer).from_config(layer.get_config()).output


def _with_sublayers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    return [layer, *sublayers(layer)]

"""Conversion of a Bayesian model to a deterministic Keras model."""

from __future__ import annotations

from typing import Any

import keras

from tfp_bnn.core.layer_tree import sublayers
from tfp_bnn.layers import MCDropout
from tfp_bnn.layers.base import VariationalLayer
from tfp_bnn.layers.stochastic import StochasticLayer
from tfp_bnn.models.functional import VariationalModel, VariationalSequential
from tfp_bnn.transfer.rebuilding import check_graph, graph_ends, rebuild
from tfp_bnn.transfer.twins import assign_means, inner_layers, keras_class, rewrap


def to_deterministic(model: keras.Model, probabilities: bool = False) -> keras.Model:
    """Converts a Bayesian model to a plain Keras model whose weights are the posterior means.

    The outputs are those of `model.plug_in_predictive` before the likelihood: logits, or means. The model does not
    represent the uncertainty of the weights. It costs one forward pass and does not need this package, not even to
    load, unless it has a `FilterResponseNormalization`, which Keras does not have. The graph is rebuilt with the same
    names. Shared layers stay shared and nested models nested. A Bayesian layer becomes its Keras twin, whatever its
    estimator and posterior, `MCDropout` becomes `keras.layers.Dropout`, and all other layers are copied with their
    state. Under a dtype policy with low-precision variables the means are rounded accordingly. The given model is not
    changed and shares nothing with the result. Likelihood, priors and calibration are dropped.

    Args:
        model: Built `VariationalModel` or `VariationalSequential`, or a plain Functional or Sequential model with
            layers of tfp_bnn.
        probabilities: Whether to add a last layer `"probabilities"` that converts the logits to probabilities, as the
            likelihood of the model does. Default: False.

    Returns:
        An uncompiled Functional `keras.Model` with the same name.

    Raises:
        TypeError: If the model is not a Keras 3 model.
        ValueError: If the model is subclassed or unbuilt; a random layer has no Keras twin, such as
            `HierarchicalDenseReparameterization`, whose scales are random too, or is within a wrapper other than
            `TimeDistributed` and `Bidirectional`; or `probabilities` is set for a model that is not a classifier.

    Example:
        >>> import keras, numpy as np, tfp_bnn
        >>> x = keras.Input((4,))
        >>> bnn = tfp_bnn.VariationalModel(x, tfp_bnn.layers.DenseFlipout(3, name="head")(x), seed=0)
        >>> net = tfp_bnn.transfer.to_deterministic(bnn, probabilities=True)
        >>> type(net.get_layer("head")).__name__
        'Dense'
        >>> inputs = np.ones((2, 4), "float32")
        >>> bool(np.allclose(net(inputs), bnn.plug_in_predictive(inputs).mean()))
        True
    """
    network = model.network if isinstance(model, VariationalModel | VariationalSequential) else model
    check_graph(network, "to_deterministic")
    activation = _activation(model) if probabilities else None
    rebuilt = rebuild(network, _twin)
    for old, new in rebuilt.replaced:
        _set_weights(old, new)
    inputs, outputs = graph_ends(rebuilt.model)
    if activation is not None:
        outputs = keras.tree.map_structure(keras.layers.Activation(activation, name="probabilities"), outputs)
    return keras.Model(inputs, outputs, name=model.name)


def _activation(model: Any) -> str:
    likelihood = getattr(model, "likelihood", None)
    activation = None if likelihood is None else likelihood.output_activation
    if activation is None:
        raise ValueError(
            f"`probabilities` is for models with the likelihood 'categorical' or 'bernoulli', or one like them, but "
            f"{model.name!r} has {likelihood!r}. Leave it out: the outputs are those of the network."
        )
    return activation


def _twin(layer: keras.Operation) -> keras.layers.Layer | None:
    if isinstance(layer, MCDropout):
        noise_shape, policy = layer.noise_shape, layer.dtype_policy
        return keras.layers.Dropout(layer.rate, noise_shape, name=layer.name, dtype=policy)
    if all(_has_twin(inner) for inner in inner_layers(layer)):
        return rewrap(layer, _keras_twin)
    random = [found for found in _with_sublayers(layer) if isinstance(found, StochasticLayer)]
    if random:
        names = ", ".join(f"{found.name!r} ({type(found).__name__})" for found in random)
        within = "" if random[0] is layer else f" within {layer.name!r} ({type(layer).__name__})"
        raise ValueError(f"There is no deterministic Keras layer for {names}{within}.")
    return None


def _has_twin(layer: keras.Operation) -> bool:
    # A subclass of a user may compute something else.
    ours = isinstance(layer, VariationalLayer) and type(layer).__module__.startswith("tfp_bnn.")
    return ours and keras_class(type(layer)) is not None


def _keras_twin(layer: VariationalLayer) -> keras.layers.Layer:
    cls: Any = keras_class(type(layer))
    return cls(**_keras_config(layer))


def _keras_config(layer: VariationalLayer) -> dict[str, Any]:
    ours = {f"{prefix}_{role}" for prefix in layer.bayesian_weights.values() for role in ("prior", "posterior")}
    return {key: value for key, value in layer.get_config().items() if key not in {*ours, *layer.own_arguments}}


def _set_weights(layer: keras.Operation, twin: keras.layers.Layer) -> None:
    for ours, theirs in zip(inner_layers(layer), inner_layers(twin), strict=True):
        if isinstance(ours, VariationalLayer):
            assign_means(theirs, ours)


def _with_sublayers(operation: keras.Operation) -> list[keras.layers.Layer]:
    return [operation, *sublayers(operation)] if isinstance(operation, keras.layers.Layer) else []

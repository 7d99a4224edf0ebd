"""Conversion of a deterministic Keras model to a Bayesian one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfp_bnn.core.arguments import require_positive
from tfp_bnn.core.registry import unknown_name_message
from tfp_bnn.layers.base import VariationalLayer
from tfp_bnn.likelihoods import Likelihood
from tfp_bnn.models.functional import VariationalModel
from tfp_bnn.models.variational_mixin import VariationalMixin
from tfp_bnn.posteriors import MeanFieldNormal
from tfp_bnn.posteriors.base import FLOAT32_EPS
from tfp_bnn.priors import PRIORS, Informed, Prior
from tfp_bnn.transfer.output_activation import find_output_activation
from tfp_bnn.transfer.rebuilding import check_graph, copy_state, graph_ends, is_graph, operations, rebuild
from tfp_bnn.transfer.twins import TWINS, WRAPPERS, inner_layers, rewrap, values_of, why_no_twin
from tfp_bnn.variational.schedules import Schedule


def to_bayesian(
    keras_model: keras.Model,
    layers: Sequence[str] | str | None = None,
    prior: str | Mapping[str, Any] | Prior = "moped",
    delta: float = 0.1,
    *,
    scale_floor: float = 1e-3,
    pruned: bool = False,
    likelihood: str | Mapping[str, Any] | Likelihood | None = None,
    beta_schedule: str | Mapping[str, Any] | Schedule = "constant",
    num_examples: int | None = None,
    seed: int | None = None,
    strict: bool = False,
    verbose: bool = True,
) -> VariationalModel:
    """Converts a trained deterministic model to a Bayesian one with MOPED priors and posteriors.

        posterior  q(w_i) = N(v_i, max(delta * |v_i|, scale_floor)^2)
        prior      p(w_i) = N(v_i, 1)

    Here v are the weights of the given model. Means and posterior scales are those of Krishnan et al., whose
    untransformed scale is log(exp(delta * |v_i|) - 1), with softplus delta * |v_i|. A weight of 0, such as a pruned
    one, would get scale 0 and could never move, so there is a floor. The unit scale of the prior is the default of the
    authors' library, bayesian-torch. It is broad: the KL starts at -log(delta * |v_i|) - 1/2 nats per weight, which is
    3 to 6 nats. With few data, warm `beta` up or use a narrower prior.

    With every weight at its posterior mean the result equals the given model, with logits instead of probabilities as
    outputs: `model.plug_in_predictive(x).mean()` equals the outputs of the given model. The graph is rebuilt with the
    same names. Shared layers stay shared and nested models nested, and all layers that do not become Bayesian
    (`BatchNormalization` with its moving statistics, `Dropout`) are copied with their state. Layers keep their
    activation, bias, dtype policy, constraints (for a Bayesian weight, on its posterior mean) and `trainable`. A frozen
    layer that becomes Bayesian has a frozen posterior. A weight that becomes Bayesian loses its regularizer, which the
    prior replaces. Biases stay deterministic. The given model is not changed and shares nothing with the result.

    `Dense`, `EinsumDense`, `Conv1D`, `Conv2D`, `Conv3D`, `Conv1DTranspose`, `Conv2DTranspose`, `DepthwiseConv2D`,
    `SeparableConv2D`, `MultiHeadAttention`, `LSTM` and `GRU` (without dropout) become flipout layers, and `Embedding`,
    `LayerNormalization` and `GroupNormalization` the reparameterization layers of the same names; so do those within
    `TimeDistributed` and `Bidirectional`. All others, and subclasses of these layers, are copied unchanged.

    Args:
        keras_model: Built Functional or Sequential Keras 3 model with one output. Variational parameters are float32
            under any dtype policy, so weights of a float64 model are rounded.
        layers: Names of the layers to make Bayesian, for a nested model as `"nested/dense"` if the name alone is not
            unique, or `"last"` for the last layer that has a Bayesian twin. Default: None, all layers that have one.
        prior: `"moped"` as above, or a name, config or object of `tfp_bnn.priors`. `"default"` is the default of the
            layers, N(0, 1). An `"informed"` prior is centred on the given weights, with `initial_scale` instead of
            MOPED's 1. The posterior is as above for all priors.
        delta: Initial posterior scale relative to the weight, > 0. Default: 0.1.
        scale_floor: Smallest initial posterior scale, > 0, in units of the weights. Default: 0.001.
        pruned: Whether the posteriors have masks, as after `tfp_bnn.compression.prune`. At first they keep all weights.
            Default: False.
        likelihood: Distribution of the targets: a name, config or object of `tfp_bnn.likelihoods`. Likelihoods take
            logits, so a final softmax is removed for `"categorical"` and a final sigmoid for `"bernoulli"`, whether it
            is the activation of a layer or a separate layer. Default: `"categorical"` for a model that ends in softmax,
            `"bernoulli"` for sigmoid. Required for any other model.
        beta_schedule: As in `VariationalModel`.
        num_examples: As in `VariationalModel`.
        seed: As in `VariationalModel`.
        strict: Whether to refuse a model with a layer that has weights and would stay deterministic, unless `layers`
            leaves it out. Default: False.
        verbose: Whether to print which layers become Bayesian and which stay deterministic. Default: True.

    Returns:
        An uncompiled `VariationalModel` with the same name, for Sequential models too.

    Raises:
        TypeError: If the model is not a Keras 3 model, or the posterior has no KL to the prior.
        ValueError: If the model is subclassed, unbuilt, already Bayesian or has several outputs; a layer is unknown or
            has no Bayesian twin, or no layer has one; a layer would stay deterministic under `strict`; the likelihood
            does not match the outputs; weights are not finite; or an argument is out of range.

    Example:
        >>> import keras, numpy as np, tfp_bnn
        >>> net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax", name="head")])
        >>> model = tfp_bnn.transfer.to_bayesian(net, delta=0.05)
        12 of 15 weights become Bayesian, in the layers head (Dense).
        Layers with weights that stay deterministic: none.
        >>> x = np.ones((2, 4), "float32")
        >>> np.abs(model.plug_in_predictive(x).mean() - net.predict(x, verbose=0)).max() < 1e-6
        np.True_
        >>> head = model.get_layer("head")
        >>> float(abs(head.kernel_prior.mean() - net.get_layer("head").kernel).numpy().max())
        0.0

    References:
        Krishnan, Subedar and Tickoo 2020, Specifying Weight Priors in Bayesian Deep Neural Networks with Empirical
        Bayes, AAAI, https://arxiv.org/abs/1906.05323
    """
    if isinstance(keras_model, VariationalMixin):
        raise ValueError(f"The given model is a {type(keras_model).__name__}, which is already Bayesian.")
    check_graph(keras_model, "to_bayesian")
    if len(keras_model.outputs) != 1:
        raise ValueError(
            f"The model has {len(keras_model.outputs)} outputs, but only models with one are converted. Convert the "
            "layers below them, and build the outputs on top: tfp_bnn.VariationalModel(inputs, {'class': ..., 'value': "
            "...}, likelihood={'class': 'categorical', 'value': 'normal'})."
        )
    delta = require_positive("`to_bayesian`", "delta", delta)
    scale_floor = max(require_positive("`to_bayesian`", "scale_floor", scale_floor), FLOAT32_EPS)
    posterior = MeanFieldNormal(pruned=pruned)
    spec = _prior(prior)
    end = find_output_activation(keras_model)
    fitted = end.fitting(likelihood)
    _check_outputs(fitted, keras_model)
    chosen = _choose(keras_model, layers)
    left = _left(keras_model, chosen)
    if strict and layers is None and left:
        raise ValueError(
            f"With strict=True every layer with weights must become Bayesian, but these of {keras_model.name!r} would "
            f"stay deterministic: {', '.join(left)}. Replace them, name the layers to convert in `layers`, or leave "
            "`strict` out."
        )
    ids = {id(layer) for layer in chosen.values()}
    to_logits = end.is_part_of(fitted)
    if to_logits:
        end.check_removable()

    def replace(operation: keras.Operation) -> keras.layers.Layer | None:
        without_activation = to_logits and operation is end.operation
        if id(operation) in ids:
            return rewrap(operation, lambda layer: _twin(layer, spec, posterior, without_activation))
        return end.without_activation() if without_activation else None

    rebuilt = rebuild(keras_model, replace)
    for operation, layer in rebuilt.replaced:
        if id(operation) in ids:
            for source, twin in zip(inner_layers(operation), inner_layers(layer), strict=True):
                _set_weights(source, twin, delta, scale_floor)
        elif isinstance(operation, type(layer)):
            copy_state(operation, layer)
    inputs, outputs = graph_ends(rebuilt.model)
    model = VariationalModel(
        inputs,
        outputs,
        name=keras_model.name,
        likelihood=fitted,
        beta_schedule=beta_schedule,
        num_examples=num_examples,
        seed=seed,
    )
    if verbose:
        print(_report(keras_model, model, chosen))
    return model


def _prior(prior: Any) -> Prior:
    if isinstance(prior, str) and prior not in PRIORS:
        if prior not in ("moped", "default"):
            raise ValueError(unknown_name_message("prior", prior, [*PRIORS, "moped", "default"]))
        return Informed(initial_scale=1.0) if prior == "moped" else PRIORS.get("normal")
    return PRIORS.get(prior)


def _check_outputs(found: Likelihood, model: keras.Model) -> None:
    channels = model.outputs[0].shape[-1]
    if channels is None:
        return
    try:
        found.check_outputs(channels)
    except ValueError as error:
        raise ValueError(f"The likelihood does not fit the outputs of the model {model.name!r}: {error}") from error


def _choose(model: keras.Model, names: Sequence[str] | str | None) -> dict[str, keras.layers.Layer]:
    """Returns the layers to make Bayesian by their paths."""
    by_path = _layers_by_path(model)
    possible = {path: layer for path, layer in by_path.items() if why_no_twin(layer) is None}
    if not possible:
        raise ValueError(
            f"No layer of the model {model.name!r} has a Bayesian twin: nothing would be Bayesian. Its layers: "
            f"{', '.join(f'{path} ({type(layer).__name__})' for path, layer in by_path.items())}. {_supported()}"
        )
    if names is None:
        return possible
    if isinstance(names, str):
        if names != "last":
            raise ValueError(f"`layers` must be a list of names, 'last' or None, but got {names!r}. Use [{names!r}].")
        return dict([list(possible.items())[-1]])
    if not names:
        raise ValueError("`layers` is empty: nothing would be Bayesian. Pass None for all layers.")
    chosen = {path: by_path[path] for path in (_path_of(name, by_path) for name in names)}
    for layer in chosen.values():
        reason = why_no_twin(layer)
        if reason is not None:
            raise ValueError(
                f"The layer {layer.name!r} ({type(layer).__name__}) has no Bayesian twin{reason}. {_supported()}"
            )
    return chosen


def _path_of(name: Any, by_path: Mapping[str, keras.layers.Layer]) -> str:
    if name in by_path:
        return name
    paths = [path for path, layer in by_path.items() if layer.name == name]
    if len(paths) > 1:
        raise ValueError(f"Several layers are named {name!r}. Give the path of the one that is meant: {paths}.")
    if not paths:
        raise ValueError(unknown_name_message("layer", name, {*by_path, *(layer.name for layer in by_path.values())}))
    return paths[0]


def _supported() -> str:
    names = ", ".join(cls.__name__ for cls in (*TWINS, *WRAPPERS))
    return f"These layers have one, unless they use dropout (LSTM, GRU), LoRA or quantization: {names}."


def _twin(
    layer: keras.layers.Layer, prior: Prior, posterior: MeanFieldNormal, without_activation: bool
) -> VariationalLayer:
    cls = TWINS[type(layer)]
    config = {**layer.get_config(), "seed": None}
    if without_activation:
        config["activation"] = None
    kept = ("bias_regularizer", "beta_regularizer", "tau_regularizer", "activity_regularizer")
    config |= {key: None for key in config if key.endswith("_regularizer") and key not in kept}
    for weight, prefix in cls.bayesian_weights.items():
        if weight not in cls.optional_weights:
            config |= {f"{prefix}_prior": prior, f"{prefix}_posterior": posterior}
    if config.get("use_gate"):
        config |= {"gate_prior": prior, "gate_posterior": posterior}
    return cls(**config)


def _set_weights(layer: keras.layers.Layer, twin: VariationalLayer, delta: float, scale_floor: float) -> None:
    values = values_of(layer, twin)
    for name, weight in twin.variational_weights.items():
        value = values.pop(name).astype(np.float32)
        scale = np.maximum(delta * np.abs(value), scale_floor)
        posterior = {**weight.posterior_parameters(), "loc": value, "scale": scale}
        prior = weight.prior_parameters()
        if isinstance(weight.prior_spec, Informed):
            prior["loc"] = value
        try:
            weight.assign(posterior, prior)
        except ValueError as error:
            raise ValueError(f"The {name} of the layer {layer.name!r} cannot be a posterior mean: {error}") from error
    for name, value in values.items():
        getattr(twin, name).assign(value)
    twin.trainable = layer.trainable


def _report(source: keras.Model, model: VariationalModel, chosen: Mapping[str, keras.layers.Layer]) -> str:
    count = sum(weight.size for layer in model.variational_layers for weight in layer.variational_weights.values())
    bayesian = ", ".join(f"{path} ({type(layer).__name__})" for path, layer in chosen.items())
    left = ", ".join(_left(source, chosen)) or "none"
    return (
        f"{count:,} of {source.count_params():,} weights become Bayesian, in the layers {bayesian}.\n"
        f"Layers with weights that stay deterministic: {left}."
    )


def _left(model: keras.Model, chosen: Mapping[str, keras.layers.Layer]) -> list[str]:
    """The layers with weights that are not chosen, each with the reason."""
    ids = {id(layer) for layer in chosen.values()}
    return [
        f"{path} ({type(layer).__name__}{why_no_twin(layer) or ''})"
        for path, layer in _layers_by_path(model).items()
        if id(layer) not in ids and layer.weights and not is_graph(layer)
    ]


def _layers_by_path(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """The layers of a graph by the first of their paths."""
    first: dict[int, tuple[str, keras.layers.Layer]] = {}
    for path, operation in operations(model):
        if isinstance(operation, keras.layers.Layer):
            first.setdefault(id(operation), (path, operation))
    return dict(first.values())

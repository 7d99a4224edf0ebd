"""From a deterministic Keras model to a Bayesian one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfp_bnn import layers as bayesian
from tfp_bnn.core.arguments import require_positive
from tfp_bnn.core.registry import unknown_name_message
from tfp_bnn.layers.base import VariationalLayer
from tfp_bnn.likelihoods import Categorical, Likelihood
from tfp_bnn.models.data_checks import several_outputs_message
from tfp_bnn.models.functional import VariationalModel
from tfp_bnn.models.variational_mixin import VariationalMixin
from tfp_bnn.posteriors.base import FLOAT32_EPS
from tfp_bnn.priors import PRIORS, Informed, Prior
from tfp_bnn.transfer.output_activation import find_output_activation
from tfp_bnn.transfer.rebuilding import check_graph, copy_state, graph_ends, operations, rebuild
from tfp_bnn.variational.schedules import Schedule

# By exact class: a subclass may compute something else.
TWINS: Mapping[type[keras.layers.Layer], type[VariationalLayer]] = {
    keras.layers.Dense: bayesian.DenseFlipout,
    keras.layers.Conv1D: bayesian.Convolution1DFlipout,
    keras.layers.Conv2D: bayesian.Convolution2DFlipout,
    keras.layers.Conv3D: bayesian.Convolution3DFlipout,
    keras.layers.Conv2DTranspose: bayesian.Convolution2DTransposeFlipout,
    keras.layers.DepthwiseConv2D: bayesian.DepthwiseConvolution2DFlipout,
    keras.layers.SeparableConv2D: bayesian.SeparableConvolution2DFlipout,
    keras.layers.LSTM: bayesian.LSTMFlipout,
    keras.layers.Embedding: bayesian.EmbeddingReparameterization,
}
"""The Bayesian layer for each Keras layer that has one."""

_NO_TWIN_ARGUMENTS = ("dropout", "recurrent_dropout", "lora_rank")


def to_bayesian(
    keras_model: keras.Model,
    layers: Sequence[str] | str | None = None,
    prior: str | Mapping[str, Any] | Prior = "moped",
    delta: float = 0.1,
    *,
    scale_floor: float = 1e-3,
    likelihood: str | Mapping[str, Any] | Likelihood | None = None,
    beta_schedule: str | Mapping[str, Any] | Schedule = "constant",
    num_examples: int | None = None,
    seed: int | None = None,
) -> VariationalModel:
    """Makes a Bayesian model that starts from a trained deterministic one, by MOPED.

        posterior  q(w_i) = N(v_i, max(delta * |v_i|, scale_floor)^2)
        prior      p(w_i) = N(v_i, 1)

    with v the weights of the given model, as Krishnan et al. set the means and the posterior scale: their untransformed
    scale is log(exp(delta * |v_i|) - 1), whose softplus is delta * |v_i|. That scale is 0 for a weight of 0, such as a
    pruned one, which could then never move from it: hence the floor. The unit scale of the prior is the default of the
    authors' library, bayesian-torch. It is broad, and the KL begins at -log(delta * |v_i|) - 1/2 nats a weight, 3 to 6
    of them: with few data warm `beta` up, or take a narrower prior.

    With every weight at its posterior mean the result is the given model, in logits where that ended in probabilities:
    `model.plug_in_predictive(x).mean()` equals the given model's outputs. Its graph is rebuilt, with the same names:
    shared layers stay shared and nested models nested, and all layers that do not become Bayesian (`BatchNormalization`
    with its moving statistics, `Dropout`) are copied with their state. Layers keep their activation, bias, dtype
    policy, constraints (of a Bayesian weight: on its posterior mean) and `trainable`; a frozen layer that becomes
    Bayesian keeps its posterior as it is. A weight that becomes Bayesian loses its regularizer: the prior takes its
    place. Biases stay deterministic. The given model is not changed and shares nothing with the result.

    `Dense`, `Conv1D`, `Conv2D`, `Conv3D`, `Conv2DTranspose`, `DepthwiseConv2D`, `SeparableConv2D` and `LSTM` (without
    dropout) become their flipout layers, `Embedding` becomes `EmbeddingReparameterization`. Layers within wrappers,
    such as `TimeDistributed`, and subclasses of these stay as they are.

    Args:
        keras_model: a built Functional or Sequential Keras 3 model of one output. Variational parameters are float32
            under any dtype policy, so that the weights of a float64 model are rounded.
        layers: the names of the layers to make Bayesian; one in a nested model as `"nested/dense"` where its name alone
            is not unique. `"last"`: only the last that can be. Default: all that can be.
        prior: `"moped"`, as above; or a name, config or object of `tfp_bnn.priors`, where `"default"` is that of the
            layers, N(0, 1). An `"informed"` prior is centred on the given weights, with `initial_scale` in the place of
            MOPED's 1. The posterior is as above for all.
        delta: > 0; the initial posterior scale relative to the weight.
        scale_floor: > 0; the least initial posterior scale, in units of the weights.
        likelihood: how the targets are distributed: a name, a config or an object of `tfp_bnn.likelihoods`, which take
            logits. A last activation softmax under `"categorical"`, or sigmoid under `"bernoulli"`, is therefore taken
            off, be it that of a layer or a layer of its own. Default: `"categorical"` for a model that ends in softmax,
            `"bernoulli"` for sigmoid; any other model needs it said.
        beta_schedule: as in `VariationalModel`.
        num_examples: as in `VariationalModel`.
        seed: as in `VariationalModel`.

    Returns:
        A `VariationalModel`, for Sequential models too, of the same name, not compiled.

    Raises:
        TypeError: for what is no Keras 3 model; for a prior that the posterior has no KL to.
        ValueError: for a subclassed, unbuilt or already Bayesian model, or one of several outputs; for an unknown layer
            or one without a Bayesian twin, or when no layer has one; for a likelihood that does not fit the outputs,
            weights that are not finite, or arguments out of range.

    Example:
        >>> import keras, numpy as np, tfp_bnn
        >>> net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax", name="head")])
        >>> model = tfp_bnn.transfer.to_bayesian(net, delta=0.05)
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
        raise ValueError(f"The given model is a {type(keras_model).__name__}, and Bayesian already.")
    check_graph(keras_model, "to_bayesian")
    if len(keras_model.outputs) != 1:
        raise ValueError(several_outputs_message(len(keras_model.outputs)))
    delta = require_positive("`to_bayesian`", "delta", delta)
    scale_floor = max(require_positive("`to_bayesian`", "scale_floor", scale_floor), FLOAT32_EPS)
    spec = _prior(prior)
    end = find_output_activation(keras_model)
    fitted = end.fitting(likelihood)
    _check_outputs(fitted, keras_model)
    chosen = _choose(keras_model, layers)
    to_logits = end.is_part_of(fitted)
    if to_logits:
        end.check_removable()

    def replace(operation: keras.Operation) -> keras.layers.Layer | None:
        without_activation = to_logits and operation is end.operation
        if id(operation) in chosen:
            return _twin(operation, spec, without_activation)
        return end.without_activation() if without_activation else None

    rebuilt = rebuild(keras_model, replace)
    for operation, layer in rebuilt.replaced:
        if isinstance(layer, VariationalLayer):
            _set_weights(operation, layer, delta, scale_floor)
        elif isinstance(operation, type(layer)):
            copy_state(operation, layer)
    inputs, outputs = graph_ends(rebuilt.model)
    return VariationalModel(
        inputs,
        outputs,
        name=keras_model.name,
        likelihood=fitted,
        beta_schedule=beta_schedule,
        num_examples=num_examples,
        seed=seed,
    )


def _prior(prior: Any) -> Prior:
    if isinstance(prior, str) and prior not in PRIORS:
        if prior not in ("moped", "default"):
            raise ValueError(unknown_name_message("prior", prior, [*PRIORS, "moped", "default"]))
        return Informed(initial_scale=1.0) if prior == "moped" else PRIORS.get("normal")
    return PRIORS.get(prior)


def _check_outputs(found: Likelihood, model: keras.Model) -> None:
    channels = model.outputs[0].shape[-1]
    if isinstance(found, Categorical) and (channels is None or channels < 2):
        raise ValueError(
            f"The likelihood 'categorical' needs the logits of at least 2 classes, but the model {model.name!r} has "
            f"{channels} output. Use likelihood='bernoulli' for one logit, or 'normal' for regression."
        )
    if channels is not None:
        # Whether their number fits, such as an even one for a mean and a scale of each target.
        found.mean(tf.zeros((1, channels)))


def _choose(model: keras.Model, names: Sequence[str] | str | None) -> set[int]:
    """The ids of the layers that are to become Bayesian."""
    first_path: dict[int, tuple[str, keras.layers.Layer]] = {}
    for path, operation in operations(model):
        if isinstance(operation, keras.layers.Layer):
            first_path.setdefault(id(operation), (path, operation))
    by_path = dict(first_path.values())
    possible = [layer for layer in by_path.values() if _has_twin(layer)]
    if not possible:
        raise ValueError(
            f"No layer of the model {model.name!r} has a Bayesian twin, so that nothing would be Bayesian. Its layers: "
            f"{', '.join(f'{path} ({type(layer).__name__})' for path, layer in by_path.items())}. {_supported()}"
        )
    if names is None:
        return {id(layer) for layer in possible}
    if isinstance(names, str):
        if names != "last":
            raise ValueError(f"`layers` must be a list of names, 'last' or None, but got {names!r}. Use [{names!r}].")
        return {id(possible[-1])}
    if not names:
        raise ValueError("`layers` is empty, so that nothing would be Bayesian. Pass None for all layers.")
    chosen = [_named(name, by_path) for name in names]
    for layer in chosen:
        if not _has_twin(layer):
            raise ValueError(f"The layer {layer.name!r} ({type(layer).__name__}) has no Bayesian twin. {_supported()}")
    return {id(layer) for layer in chosen}


def _named(name: Any, by_path: Mapping[str, keras.layers.Layer]) -> keras.layers.Layer:
    if name in by_path:
        return by_path[name]
    paths = [path for path, layer in by_path.items() if layer.name == name]
    if len(paths) > 1:
        raise ValueError(f"Several layers are named {name!r}. Give the path of the one that is meant: {paths}.")
    if not paths:
        raise ValueError(unknown_name_message("layer", name, {*by_path, *(layer.name for layer in by_path.values())}))
    return by_path[paths[0]]


def _has_twin(layer: keras.Operation) -> bool:
    if type(layer) not in TWINS or layer.quantization_mode is not None:
        return False
    config = layer.get_config()
    return not any(config.get(name) for name in _NO_TWIN_ARGUMENTS)


def _supported() -> str:
    names = ", ".join(cls.__name__ for cls in TWINS)
    return f"These have one, unless with dropout, LoRA or quantized: {names}."


def _twin(layer: keras.layers.Layer, prior: Prior, without_activation: bool) -> VariationalLayer:
    cls = TWINS[type(layer)]
    config = {**layer.get_config(), "seed": None}
    if without_activation:
        config["activation"] = None
    kept = ("bias_regularizer", "activity_regularizer")
    config |= {key: None for key in config if key.endswith("_regularizer") and key not in kept}
    for weight, prefix in cls.bayesian_weights.items():
        if weight not in cls.optional_weights:
            config[f"{prefix}_prior"] = prior
    return cls(**config)


def _set_weights(layer: keras.layers.Layer, twin: VariationalLayer, delta: float, scale_floor: float) -> None:
    owner = layer.cell if isinstance(layer, keras.layers.LSTM) else layer
    for name, weight in twin.variational_weights.items():
        value = np.asarray(getattr(owner, name), np.float32)
        scale = np.maximum(delta * np.abs(value), scale_floor)
        posterior = {**weight.posterior_parameters(), "loc": value, "scale": scale}
        prior = weight.prior_parameters()
        if isinstance(weight.prior_spec, Informed):
            prior["loc"] = value
        try:
            weight.assign(posterior, prior)
        except ValueError as error:
            raise ValueError(f"The {name} of the layer {layer.name!r} cannot be a posterior mean: {error}") from error
    for name in twin.optional_weights:
        if getattr(owner, name, None) is not None:
            getattr(twin, name).assign(getattr(owner, name))

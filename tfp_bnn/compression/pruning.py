"""Pruning of single weights."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tfp_bnn.compression import importance
from tfp_bnn.core.arguments import is_number
from tfp_bnn.core.registry import unknown_name_message
from tfp_bnn.inference.point_weights import require_built_model
from tfp_bnn.layers.variational_weight import VariationalWeight
from tfp_bnn.models.respecify import respecify
from tfp_bnn.models.variational_mixin import VariationalMixin
from tfp_bnn.models.weight_record import bayesian_weights, layers_by_name
from tfp_bnn.posteriors import POSTERIORS, Posterior
from tfp_bnn.variational.kl import named_layers

Criterion = Literal["signal_to_noise", "kl", "magnitude"]

CRITERIA: Mapping[str, Callable[[VariationalWeight], npt.NDArray[np.float32]]] = {
    function.__name__: function for function in (importance.signal_to_noise, importance.kl, importance.magnitude)
}
_PRUNABLE = ("mean_field_normal", "delta")


def prune(
    model: VariationalMixin,
    fraction: float,
    by: Criterion = "signal_to_noise",
    scope: Literal["global", "layer"] = "global",
) -> Any:
    """Copies a trained model without the given share of its weights: those that matter least.

    A pruned weight is no weight of the network any more. It is exactly 0 in every draw, and contributes no KL, under
    any prior: posterior and prior are the same point. The KL is that of the weights that are kept, so the ELBO is
    that of the smaller network. The mask is a variable of the layer that is not trained. It is saved with the model,
    and holds through further training with any optimizer, `informed_prior`, `update`, `map_estimate`, `mc_dropout` and
    `to_deterministic`. The draws of the weights that are kept are those of the given model, bit for bit.

    Only weights with a distribution are pruned; others, such as deterministic biases, stay. Weights that were pruned
    before stay pruned and count as part of `fraction`. The result costs as much to run as the given model.

    Args:
        model: Built model with Bayesian layers, trained. Its posteriors must be `mean_field_normal` or `delta`. It is
            not changed.
        fraction: Share of the weights to prune, in [0, 1). The number of weights is rounded.
        by: What a weight is worth. `"signal_to_noise"`: |mean| / standard deviation. `"kl"`: its KL to the prior, in
            nats, what it has learned; for priors around 0, because a weight that equals an informed prior is not 0.
            `"magnitude"`: |mean|, the only one for points (`delta`).
        scope: `"global"` compares all weights of the network, `"layer"` prunes the same share of every layer.

    Returns:
        A model of the same class, built, not compiled, without a calibration, which belongs to the old posterior.

    Raises:
        TypeError: If the model is not Bayesian, or a posterior cannot be pruned.
        ValueError: If the model is not built or has no Bayesian layer; an argument is out of range; points are pruned
            by anything but magnitude; or a subclass creates its layers itself.

    Example:
        >>> import keras, numpy as np, tfp_bnn
        >>> model = tfp_bnn.VariationalSequential([keras.Input((8,)), tfp_bnn.layers.DenseFlipout(5, name="a")], seed=0)
        >>> pruned = tfp_bnn.compression.prune(model, 0.9)
        >>> tfp_bnn.compression.sparsity(pruned)
        {'a': 0.9}
        >>> int(np.count_nonzero(pruned.get_layer("a").kernel_posterior.sample()))
        4

    References:
        Graves 2011, Practical Variational Inference for Neural Networks,
        https://papers.nips.cc/paper/2011/hash/7eb3c8be3d411e8ebfab08eba5f49632-Abstract.html; Blundell et al. 2015,
        Weight Uncertainty in Neural Networks, section 5.1, https://arxiv.org/abs/1505.05424
    """
    if not (is_number(fraction) and 0 <= fraction < 1):
        raise ValueError(
            f"`fraction` is the share of the weights to prune, at least 0 and below 1, but got {fraction!r}."
        )
    if by not in CRITERIA:
        raise ValueError(unknown_name_message("criterion of pruning", by, CRITERIA))
    if scope not in ("global", "layer"):
        raise ValueError(f"`scope` must be 'global' or 'layer', but got {scope!r}.")
    weights = _prunable_weights(model, by)
    copy = _copy_with_masks(model)
    groups = [list(weights)]
    if scope == "layer":
        groups = [list(group) for _, group in itertools.groupby(weights, key=lambda place: place[0])]
    layers = layers_by_name(copy)
    for group in groups:
        worth = {place: CRITERIA[by](weights[place]) for place in group}
        for (layer, name), kept in _keep(worth, {place: weights[place].kept for place in group}, fraction).items():
            _prune(bayesian_weights(layers[layer])[name], kept)
    return copy


def sparsity(model: VariationalMixin) -> dict[str, float]:
    """The share of pruned weights among the Bayesian weights of each layer, by the name of the layer.

    Args:
        model: Built model.

    Raises:
        TypeError: If the model is not Bayesian.
        ValueError: If it is not built.
    """
    require_built_model(model, "sparsity")
    kept = {
        name: np.concatenate([weight.kept.ravel() for weight in layer.variational_weights.values()])
        for name, layer in named_layers(model).items()
    }
    return {name: float(np.mean(~of_layer)) for name, of_layer in kept.items()}


Place = tuple[str, str]


def _keep(
    worth: Mapping[Place, npt.NDArray[np.float32]], kept_before: Mapping[Place, npt.NDArray[np.bool_]], fraction: float
) -> dict[Place, npt.NDArray[np.bool_]]:
    """Which weights of a group are kept, by their place."""
    values = np.concatenate([np.where(kept_before[place], of, -np.inf).ravel() for place, of in worth.items()])
    number = max(round(fraction * values.size), np.count_nonzero(np.isneginf(values)))
    kept = np.ones(values.size, bool)
    kept[np.argsort(values, kind="stable")[:number]] = False
    ends = np.cumsum([of.size for of in worth.values()])
    parts = np.split(kept, ends[:-1])
    return {place: part.reshape(worth[place].shape) for place, part in zip(worth, parts, strict=True)}


def _prune(weight: VariationalWeight, kept: npt.NDArray[np.bool_]) -> None:
    variables = weight.posterior_variables
    variables["mask"].assign(kept)
    variables["loc"].assign(np.where(kept, variables["loc"], 0))


def _prunable_weights(model: Any, by: str) -> dict[Place, VariationalWeight]:
    """The Bayesian weights of a model by layer and name, if all of them can be pruned."""
    require_built_model(model, "prune")
    layers = layers_by_name(model)
    weights = {(name, key): weight for name, layer in layers.items() for key, weight in bayesian_weights(layer).items()}
    if not weights:
        raise ValueError(
            f"The model {model.name!r} has no Bayesian layer. Only weights with a distribution are pruned: make them "
            "Bayesian with tfp_bnn.transfer.to_bayesian, or give layers kernel_posterior='delta' for points."
        )
    for (layer, name), weight in weights.items():
        spec = weight.posterior_spec
        if POSTERIORS.name_of(spec) not in _PRUNABLE:
            raise TypeError(
                f"The posterior of {layer}/{name} is {spec!r}, whose weights depend on each other, so none can be "
                f"removed alone. Train with one of {', '.join(map(repr, _PRUNABLE))}."
            )
        if not spec.has_spread and by != "magnitude":
            raise ValueError(f"The posterior of {layer}/{name} is a point, without a spread. Prune by='magnitude'.")
    return weights


def _copy_with_masks(model: Any) -> Any:
    """A copy of a model with masks that keep every weight that was kept."""
    config = respecify(model.get_config(), "posterior", _with_mask)
    copy = type(model).from_config({**config, "calibration": None, "conformal": None})
    specs = [spec for layer in copy.variational_layers for spec, _ in layer.distribution_specs.values()]
    if not all(spec.pruned for spec in specs):
        raise ValueError(
            f"{type(model).__name__} creates layers itself, so their posteriors are not part of its config. Give them "
            "kernel_posterior={'name': 'mean_field_normal', 'pruned': True} in its code."
        )
    if not copy.built:
        copy.build(model.input_shape)
    known = layers_by_name(model)
    # By their variables, because parameters such as scales would be rounded on the way.
    for name, layer in layers_by_name(copy).items():
        values = {variable.name: variable for variable in known[name].weights}
        for variable in layer.weights:
            if variable.name in values:
                variable.assign(values[variable.name])
    for name, shared in copy.shared_priors.items():
        for role, variable in shared.weights.items():
            variable.assign(model.shared_priors[name].weights[role])
    for role, variable in copy.likelihood_weights.items():
        variable.assign(model.likelihood_weights[role])
    if model.num_examples is not None:
        copy.num_examples = model.num_examples
    copy.num_steps = model.num_steps
    return copy


def _with_mask(posterior: Posterior) -> Posterior:
    return type(posterior)(**{**posterior.get_config(), "pruned": True})

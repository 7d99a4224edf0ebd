"""Pruning of single weights, and of whole units and filters."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tfp_bnn.compression.channels import Channels
from tfp_bnn.compression.copying import copy_from, copy_state
from tfp_bnn.compression.importance import CRITERIA, OF_POINTS, TOTALS, Criterion, name_of
from tfp_bnn.compression.units import HowMany, Kept, Place, Units, Worth, kept_weights
from tfp_bnn.core.arguments import require_bool
from tfp_bnn.core.layer_tree import is_functional
from tfp_bnn.core.registry import unknown_name_message
from tfp_bnn.inference.point_weights import require_built_model
from tfp_bnn.layers.variational_weight import VariationalWeight
from tfp_bnn.models.functional import VariationalModel, VariationalSequential
from tfp_bnn.models.respecify import respecify
from tfp_bnn.models.variational_mixin import VariationalMixin
from tfp_bnn.models.weight_record import bayesian_weights, layers_by_name
from tfp_bnn.posteriors import POSTERIORS, Posterior
from tfp_bnn.variational.kl import named_layers

_PRUNABLE = ("mean_field_normal", "delta")


def prune(
    model: VariationalMixin,
    fraction: float | None = None,
    by: Criterion = "signal_to_noise",
    scope: Literal["global", "layer"] = "global",
    *,
    below: float | None = None,
    units: bool = False,
    layers: Sequence[str] | None = None,
) -> Any:
    """Copies a trained model without the given share of its weights, or of its units: those that matter least.

    A pruned weight is no weight of the network any more. It is exactly 0 in every draw, and contributes no KL, under
    any prior: posterior and prior are the same point. The KL is that of the weights that are kept, so the ELBO is
    that of the smaller network. The mask is a variable of the layer that is not trained. It is saved with the model,
    and holds through further training with any optimizer, `informed_prior`, `update`, `map_estimate`, `mc_dropout` and
    `to_deterministic`. The draws of the weights that are kept are those of the given model, bit for bit.

    Only weights with a distribution are pruned; others, such as deterministic biases, stay. Weights that were pruned
    before stay pruned and count as part of `fraction`. The result costs as much to run as the given model.

    With `units`, whole units of dense layers and filters of convolutions are pruned: all weights that lead into one and
    all that lead out of it. It then has no effect, whatever its bias, activation and normalization are, and `shrink`
    makes a smaller model without it. Units whose outputs are added to each other, as in a residual network, are one
    unit. Inputs and outputs of the network keep their size, and so does what a layer gets or gives whose channels
    cannot be followed, such as a recurrent layer.

    Args:
        model: Built model with Bayesian layers, trained. Its posteriors must be `mean_field_normal` or `delta`. It is
            not changed.
        fraction: Share of the weights to prune, or of the units, in [0, 1). The number is rounded. None for `below`.
        by: What a weight is worth. `"signal_to_noise"`: |mean| / standard deviation. `"kl"`: its KL to the prior, in
            nats, what it has learned; for priors around 0, because a weight that equals an informed prior is not 0.
            `"magnitude"`, or `"l1"`: |mean|, the only one for points (`delta`). A unit is worth the mean over the
            weights that lead into it, by `"kl"` the sum; with `"l1"` the mean is the L1 norm of a filter divided by its
            size.
        scope: `"global"` compares all weights of the network, `"layer"` prunes the same share of every layer. With
            `below` there is no difference.
        below: A number > 0, instead of a fraction: all that is worth less is pruned, so the data say how much is left.
            With a prior that has a scale for each unit (`groups="outputs"`), units that the data do not need are worth
            next to nothing.
        units: Whether to prune units and filters instead of single weights.
        layers: Names of the layers to prune. Default: all with a distribution.

    Returns:
        A model of the same class, built, not compiled, without a calibration, which belongs to the old posterior.

    Raises:
        TypeError: If the model is not Bayesian, or a posterior cannot be pruned.
        ValueError: If the model is not built or has no Bayesian layer; an argument is out of range; points are pruned
            by anything but magnitude; a layer does not exist, has no units that can be pruned, or would have nothing
            left; or a subclass creates its layers itself.

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
        Weight Uncertainty in Neural Networks, section 5.1, https://arxiv.org/abs/1505.05424; Li et al. 2017, Pruning
        Filters for Efficient ConvNets (the L1 norm of filters), https://arxiv.org/abs/1608.08710
    """
    how_many = HowMany.of(fraction, below)
    by = name_of(by)
    if scope not in ("global", "layer"):
        raise ValueError(f"`scope` must be 'global' or 'layer', but got {scope!r}.")
    require_bool("units", units)
    if layers is not None:
        layers = [layers] if isinstance(layers, str) else list(layers)
        if not layers:
            raise ValueError("`layers` names no layer. Name some, or leave it out to prune all.")
    weights = _prunable_weights(model, by, layers)
    worth = {place: CRITERIA[by](weight) for place, weight in weights.items()}
    kept = {place: weight.kept for place, weight in weights.items()}
    if units:
        kept = _without_units(model, worth, how_many, scope, layers, total=by in TOTALS)
    else:
        groups = [list(weights)]
        if scope == "layer":
            groups = [list(group) for _, group in itertools.groupby(weights, key=lambda place: place[0])]
        for group in groups:
            kept |= _keep({place: worth[place] for place in group}, kept, how_many)
    _check_something_is_left(kept, how_many)
    copy = _copy_with_masks(model)
    copied = layers_by_name(copy)
    for (layer, name), of_weight in kept.items():
        _prune(bayesian_weights(copied[layer])[name], of_weight)
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


def _keep(worth: Worth, kept_before: Kept, how_many: HowMany) -> dict[Place, npt.NDArray[np.bool_]]:
    """Which weights of a group are kept, by their place."""
    values = np.concatenate([np.where(kept_before[place], of, -np.inf).ravel() for place, of in worth.items()])
    kept = np.ones(values.size, bool)
    kept[np.argsort(values, kind="stable")[: how_many(values)]] = False
    ends = np.cumsum([of.size for of in worth.values()])
    parts = np.split(kept, ends[:-1])
    return {place: part.reshape(worth[place].shape) for place, part in zip(worth, parts, strict=True)}


def _prune(weight: VariationalWeight, kept: npt.NDArray[np.bool_]) -> None:
    variables = weight.posterior_variables
    variables["mask"].assign(kept)
    variables["loc"].assign(np.where(kept, variables["loc"], 0))


def _without_units(
    model: Any, worth: Worth, how_many: HowMany, scope: str, layers: Sequence[str] | None, total: bool
) -> dict[Place, npt.NDArray[np.bool_]]:
    """Which weights are kept without the units that matter least, also in the layers that read them."""
    if not (isinstance(model, VariationalModel | VariationalSequential) and is_functional(model.network)):
        raise ValueError(
            f"Units are pruned in a graph of layers, but the `call` of {type(model).__name__} is code. Use a "
            "VariationalModel or VariationalSequential, or prune single weights."
        )
    weights = _weights_of(model)
    units = Units(Channels(model.network), weights, layers)
    kept = kept_weights(layers_by_name(model))
    removed = units.removed(worth, kept, how_many, by_layer=scope == "layer", total=total)
    return units.masks({place: kept[place] for place in weights}, removed)


def _check_something_is_left(kept: Kept, how_many: HowMany) -> None:
    left: dict[str, bool] = {}
    for (layer, _), of_weight in kept.items():
        left[layer] = left.get(layer, False) or bool(of_weight.any())
    empty = [layer for layer, something in left.items() if not something]
    if empty:
        raise ValueError(
            f"Nothing would be left of {', '.join(map(repr, empty))}, so the outputs would not depend on the inputs. "
            f"{how_many.advice}"
        )


def _weights_of(model: Any) -> dict[Place, VariationalWeight]:
    layers = layers_by_name(model)
    return {(name, key): weight for name, layer in layers.items() for key, weight in bayesian_weights(layer).items()}


def _prunable_weights(model: Any, by: str, layers: Sequence[str] | None) -> dict[Place, VariationalWeight]:
    """The Bayesian weights of a model, or of some of its layers, by layer and name, if they can be pruned."""
    require_built_model(model, "prune")
    weights = _weights_of(model)
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
        if not spec.has_spread and by != OF_POINTS:
            raise ValueError(f"The posterior of {layer}/{name} is a point, without a spread. Prune by='magnitude'.")
    if layers is None:
        return weights
    known = list(dict.fromkeys(layer for layer, _ in weights))
    for layer in layers:
        if layer not in known:
            raise ValueError(unknown_name_message("layer with a distribution", layer, known))
    return {place: weight for place, weight in weights.items() if place[0] in layers}


def _copy_with_masks(model: Any) -> Any:
    """A copy of a model with masks that keep every weight that was kept."""
    copy = copy_from(model, respecify(model.get_config(), "posterior", _with_mask))
    specs = [spec for layer in copy.variational_layers for spec, _ in layer.distribution_specs.values()]
    if not all(spec.pruned for spec in specs):
        raise ValueError(
            f"{type(model).__name__} creates layers itself, so their posteriors are not part of its config. Give them "
            "kernel_posterior={'name': 'mean_field_normal', 'pruned': True} in its code."
        )
    copy_state(model, copy)
    return copy


def _with_mask(posterior: Posterior) -> Posterior:
    return type(posterior)(**{**posterior.get_config(), "pruned": True})

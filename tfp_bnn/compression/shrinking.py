"""Smaller dense networks in place of pruned ones."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tfp_bnn.compression.channels import Channels, Ends, units_in_use
from tfp_bnn.compression.copying import copy_from, copy_state
from tfp_bnn.compression.units import kept_weights, kernel_kept
from tfp_bnn.core.layer_tree import is_functional
from tfp_bnn.inference.point_weights import require_built_model
from tfp_bnn.models.functional import VariationalModel, VariationalSequential
from tfp_bnn.models.respecify import respecify
from tfp_bnn.models.weight_record import layers_by_name
from tfp_bnn.posteriors import Posterior

_SIZES = ("units", "filters")


def shrink(model: VariationalModel | VariationalSequential) -> Any:
    """Copies a pruned model without the units and filters that have no effect: a smaller dense network.

    A unit has no effect if every weight that leads out of it is pruned, or leads to a unit without an effect. Without
    it the network computes the same: with the same values of the weights that both have, the outputs are equal up to
    rounding, and so are those of the mean of the weights (`plug_in_predictive`). Draws have the same distribution, but
    the noise of a smaller tensor is other noise. `prune(..., units=True)` makes such units; pruning of single weights
    only does where it happens to take all of one.

    The KL is that of the weights that stay. After `prune(..., units=True)` it is the same as before. If no weight that
    stays is pruned, the result has no masks. What cannot shrink stays as it is: inputs and outputs of the network, and
    what a layer gets or gives whose channels cannot be followed, such as a recurrent layer, a convolution with groups
    or a normalization over channels.

    Args:
        model: Pruned model, built. It is not changed.

    Returns:
        A model of the same class, built, not compiled, without a calibration.

    Raises:
        TypeError: If the model is not Bayesian.
        ValueError: If the model is not built or not a graph of layers, or if no unit of a layer has an effect.

    Example:
        >>> import keras, numpy as np, tfp_bnn
        >>> layers = [tfp_bnn.layers.DenseFlipout(n, name=f"dense{n}") for n in (8, 3)]
        >>> model = tfp_bnn.VariationalSequential([keras.Input((4,)), *layers], seed=0)
        >>> pruned = tfp_bnn.compression.prune(model, 0.75, units=True)
        >>> small = tfp_bnn.compression.shrink(pruned)
        >>> small.get_layer("dense8").units
        2
        >>> x = np.ones((1, 4), "float32")
        >>> means = [m.plug_in_predictive(x).mean() for m in (pruned, small)]
        >>> bool(np.allclose(*means, atol=1e-6))
        True
    """
    require_built_model(model, "shrink")
    if not (isinstance(model, VariationalModel | VariationalSequential) and is_functional(model.network)):
        raise ValueError(
            f"`shrink` takes a VariationalModel or VariationalSequential, a graph of layers, but the `call` of "
            f"{type(model).__name__} is code."
        )
    channels = Channels(model.network)
    ends = channels.ends
    kept = kept_weights(layers_by_name(model))
    used = units_in_use(ends, set(channels.fixed), lambda name: kernel_kept(kept, name))
    stays = {name: Ends(*(np.flatnonzero(np.isin(of, [*used])) for of in end)) for name, end in ends.items()}
    _check_some_are_left(ends, stays)
    cut = functools.partial(_cut, ends=ends, stays=stays)
    pruned = any(not cut(layer, of_weight).all() for (layer, _), of_weight in kept.items())
    config = respecify(model.get_config(), "posterior", lambda posterior: _with_mask(posterior, pruned))
    sizes = {name: of.outputs.size for name, of in stays.items() if of.outputs.size < ends[name].outputs.size}
    copy = copy_from(model, _resized(config, sizes))
    copy_state(model, copy, cut)
    return copy


def _check_some_are_left(ends: Mapping[str, Ends], stays: Mapping[str, Ends]) -> None:
    empty = [name for name, of in stays.items() if not of.outputs.size and ends[name].outputs.size]
    if empty:
        raise ValueError(
            f"No unit of {', '.join(map(repr, empty))} has an effect on the outputs, which depend on no input then. "
            "Prune a smaller fraction."
        )


def _cut(layer: str, values: npt.NDArray[Any], ends: Mapping[str, Ends], stays: Mapping[str, Ends]) -> npt.NDArray[Any]:
    """The part of a weight that stays: of a kernel in its last two axes, of a bias or a gain in its only one."""
    if layer in ends:
        of_layer = stays[layer]
        inputs, outputs = map(len, ends[layer])
        if values.shape == (outputs,):
            return values[of_layer.outputs]
        # A prior with a scale for each input, or each output, has a 1 in the place of the other.
        if values.ndim > 1 and values.shape[-2] in (1, inputs) and values.shape[-1] in (1, outputs):
            values = values[..., of_layer.inputs, :] if values.shape[-2] == inputs else values
            return values[..., of_layer.outputs] if values.shape[-1] == outputs else values
    return values


def _with_mask(posterior: Posterior, pruned: bool) -> Posterior:
    config = {key: value for key, value in posterior.get_config().items() if key != "pruned"}
    return type(posterior)(**config, **({"pruned": True} if pruned and posterior.pruned else {}))


def _resized(config: Any, sizes: Mapping[str, int]) -> Any:
    """Returns the config of a model whose layers have other numbers of units, by their names."""
    if isinstance(config, list | tuple):
        return type(config)(_resized(part, sizes) for part in config)
    if not isinstance(config, Mapping):
        return config
    # A layer would be built for inputs of the old size.
    changed = {key: _resized(part, sizes) for key, part in config.items() if key != "build_config"}
    for size in _SIZES:
        if size in changed and changed.get("name") in sizes:
            changed[size] = sizes[changed["name"]]
    return changed

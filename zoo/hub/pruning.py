"""Pruning of models of the zoo, which stay models of the zoo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import tfp_bnn
from tfp_bnn import compression
from tfp_bnn.core.library_state import without_allocation
from tfp_bnn.models.weight_record import layers_by_name
from zoo.architectures.base import ARCHITECTURES, BuiltFrom
from zoo.architectures.layer_units import units_of
from zoo.core.validation import validate


def prune(
    model: tfp_bnn.VariationalModel,
    fraction: float | None = None,
    by: compression.Criterion = "signal_to_noise",
    scope: Literal["global", "layer"] = "global",
    *,
    below: float | None = None,
    units: bool = False,
    layers: Sequence[str] | None = None,
) -> Any:
    """Copies a model of the zoo without the given share of its weights or units; see `tfp_bnn.compression.prune`.

    The result can be saved as an artifact and fine-tuned, and its pruned weights stay pruned. It has no card, because
    nothing was measured with it.

    Args:
        model: Model made by `zoo.create_model`, `zoo.train`, `zoo.fine_tune` or `zoo.load_model`. It is not changed.
        fraction: As there.
        by: As there.
        scope: As there.
        below: As there.
        units: As there. `zoo.shrink` then makes the smaller model.
        layers: As there.

    Returns:
        A model of the same architecture whose config says that the posterior is pruned.

    Raises:
        TypeError: As there.
        ValueError: As there, or if the model is not one of the zoo.

    Example:
        >>> import tfp_bnn, zoo
        >>> pruned = zoo.prune(zoo.load_model("mlp_flipout.iris"), 0.5)
        >>> {layer: round(share, 2) for layer, share in tfp_bnn.compression.sparsity(pruned).items()}
        {'dense1': 0.6, 'logits': 0.37}
    """
    built = _built_from(model, "prune")
    pruned = compression.prune(model, fraction, by, scope, below=below, units=units, layers=layers)
    return _of_the_zoo(pruned, model, built, built.config.layer_units)


def shrink(model: tfp_bnn.VariationalModel) -> Any:
    """Copies a pruned model of the zoo without the units that have no effect; see `tfp_bnn.compression.shrink`.

    The result is a smaller dense network of the same architecture, whose config has the `layer_units`. It can be saved
    as an artifact and fine-tuned.

    Args:
        model: Result of `zoo.prune`, or a model that was trained after it. It is not changed.

    Raises:
        TypeError: As there.
        ValueError: As there; if the model is not one of the zoo; or if its architecture does not make the layers with
            `config.dense` and `config.convolution`, so it could not be built again.

    Example:
        >>> import zoo
        >>> pruned = zoo.prune(zoo.load_model("mlp_flipout.iris"), 0.5, units=True)
        >>> zoo.shrink(pruned).architecture.config.layer_units
        {'dense1': 50}
    """
    built = _built_from(model, "shrink")
    small = compression.shrink(model)
    before = {name: units_of(layer) for name, layer in layers_by_name(model).items()}
    sizes = {name: units_of(layer) for name, layer in layers_by_name(small).items()}
    changed = {name: size for name, size in sizes.items() if size is not None and size != before[name]}
    small = _of_the_zoo(small, model, built, {**built.config.layer_units, **changed})
    with without_allocation():
        # Refuses layers whose numbers of units the architecture does not take from its config.
        ARCHITECTURES[built.name].build(small.architecture.config)
    return small


def _built_from(model: Any, function: str) -> BuiltFrom:
    built = getattr(model, "architecture", None)
    if not isinstance(built, BuiltFrom):
        raise ValueError(
            f"`zoo.{function}` takes one model made by zoo.create_model, zoo.train, zoo.fine_tune or zoo.load_model, "
            f"but got {type(model).__name__}. Use tfp_bnn.compression.{function} for other models."
        )
    return built


def _of_the_zoo(copy: Any, model: Any, built: BuiltFrom, layer_units: Mapping[str, int]) -> Any:
    """The copy of a model, with what a model of the zoo has besides its weights."""
    posterior = dict(built.config.kernel_arguments["kernel_posterior"])
    posterior.pop("pruned", None)
    if any(spec.pruned for layer in copy.variational_layers for spec, _ in layer.distribution_specs.values()):
        posterior["pruned"] = True
    changes = {"kernel_posterior": posterior, "layer_units": dict(layer_units)}
    # What the architecture does not take could not be loaded.
    config = validate(
        type(built.config), {**built.config.model_dump(mode="json"), **changes}, f"The architecture {built.name!r}"
    )
    copy.architecture = BuiltFrom(built.name, config)
    return copy

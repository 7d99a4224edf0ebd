"""Models to go on from: pretrained weights with another head, and networks without a head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tfp_bnn
from tfp_bnn.core.layer_tree import maker_of
from tfp_bnn.core.registry import SpecRegistry, unknown_name_message
from tfp_bnn.likelihoods import LIKELIHOODS, Normal
from tfp_bnn.posteriors import POSTERIORS
from tfp_bnn.priors import PRIORS
from tfp_bnn.transfer import transfer_posterior
from zoo.architectures import ARCHITECTURES, ArchitectureConfig
from zoo.architectures.base import BuiltFrom
from zoo.core.validation import validate
from zoo.hub.loading import load_model
from zoo.hub.manifest import bundled_models
from zoo.hub.networks import build_network

_DISTRIBUTIONS: Mapping[str, SpecRegistry[Any]] = {
    "likelihood": LIKELIHOODS,
    "kernel_prior": PRIORS,
    "group_prior": PRIORS,
    "kernel_posterior": POSTERIORS,
}
"""Fields of configs that are distributions, with what knows them."""


def pretrained_name(name: str) -> str:
    """The name of the pretrained model that a name means: itself, or the only one of an architecture.

    Raises:
        ValueError: If there is none, or several to choose from. The message lists them.
    """
    models = bundled_models()
    if name in models:
        return name
    if name not in ARCHITECTURES:
        raise ValueError(unknown_name_message("pretrained model", name, models))
    found = [known for known in models if known.startswith(f"{name}.")]
    if len(found) != 1:
        raise ValueError(
            f"{name!r} has {f'{len(found)} pretrained models' if found else 'no pretrained model'}"
            f"{': name one of ' + ', '.join(found) if found else ''}. `list_models(pretrained=True)` lists all."
        )
    return found[0]


def from_pretrained(
    name: str, seed: int | None, beta_schedule: str | Mapping[str, Any], changes: Mapping[str, Any]
) -> tfp_bnn.VariationalModel:
    """A pretrained model, or a new model that starts at its posterior; see `create_model`."""
    source = load_model(pretrained_name(name))
    if not isinstance(source, tfp_bnn.VariationalModel):
        raise ValueError(
            f"{name!r} is a {type(source).__name__}, whose posterior is more than one network. Use zoo.load_model."
        )
    built = source.architecture
    config, same_head = _changed(built, changes)
    way = source.card["config"].get("inference", "variational")
    target = build_network(ARCHITECTURES[built.name], config, way, seed, beta_schedule)
    try:
        transfer_posterior(source, target, None, [] if same_head else [target.variational_layers[-1].name])
    except ValueError as error:
        raise ValueError(
            f"The pretrained weights of {name!r} do not fit {dict(changes)}: {error} Only the last layer can be new: "
            "change `num_outputs` or `likelihood`, or use pretrained=False."
        ) from None
    if config.input_shape == built.config.input_shape:
        target.inputs_expected = source.inputs_expected
    if same_head:
        target.class_names, target.target_units = source.class_names, source.target_units
    if config == built.config:
        target.num_examples = source.num_examples or 1
        target.calibration, target.conformal, target.card = source.calibration, source.conformal, source.card
    return target


def without_head(model: tfp_bnn.VariationalModel) -> tfp_bnn.VariationalModel:
    """The layers of a model below its last Bayesian layer, shared with it, as a model of their outputs."""
    head = model.variational_layers[-1]
    _, inputs = maker_of(head.output)
    features = tfp_bnn.VariationalModel(
        model.input,
        # A hierarchical layer takes the group, too.
        inputs[0],
        name=f"{model.name}_features",
        likelihood=Normal(scale=1.0),
        beta_schedule=model.beta_schedule,
        seed=model.seed,
    )
    features.inputs_expected = model.inputs_expected
    return features


def _changed(built: BuiltFrom, changes: Mapping[str, Any]) -> tuple[ArchitectureConfig, bool]:
    """The config with the changes, and whether its outputs are those that the pretrained head computes."""
    old, what = built.config, f"The architecture {built.name!r}"
    head = {name: changes[name] for name in ("num_outputs", "likelihood") if name in changes}
    # Other targets have other units.
    without_units = {**old.model_dump(), "target_mean": None, "target_variance": None}
    other = _spelled_as(old, validate(type(old), {**without_units, **head}, what))
    same_head = (other.num_outputs, other.likelihood) == (old.num_outputs, old.likelihood)
    values = {**(old.model_dump() if same_head else without_units), **changes}
    return _spelled_as(old, validate(type(old), values, what)), same_head


def _spelled_as(old: ArchitectureConfig, config: ArchitectureConfig) -> ArchitectureConfig:
    """The config, with each distribution that is the same as in `old` written as there: a name, or with arguments."""
    same: dict[str, Any] = {}
    for name, registry in _DISTRIBUTIONS.items():
        if hasattr(old, name):
            now, before = (_of_any_start(registry, getattr(of, name)) for of in (config, old))
            same |= {name: getattr(old, name)} if now == before else {}
    return config.model_copy(update=same)


def _of_any_start(registry: SpecRegistry[Any], spec: Any) -> Any:
    """A distribution, but for where training starts to learn its scale, which recipes take from their data."""
    found = registry.get(spec)
    return found.rescaled(1.0) if registry is LIKELIHOODS else found

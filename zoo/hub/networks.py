"""The networks of inference methods: most methods use that of the architecture, as its config says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tfp_bnn
from tfp_bnn.inference.vbll import last_layer_model
from zoo.architectures.base import Architecture, ArchitectureConfig, BuiltFrom
from zoo.core.validation import validate

POINT = "delta"
"""The posterior of weights that are points."""


def build_network(
    architecture: Architecture,
    config: ArchitectureConfig,
    way: str,
    seed: int | None = None,
    beta_schedule: str | Mapping[str, Any] = "constant",
) -> tfp_bnn.VariationalModel:
    """Builds the network of an inference method, with new weights.

    Args:
        architecture: Architecture.
        config: Its validated config.
        way: Name of the inference method.
        seed: Seed of the noise in training and evaluation.
        beta_schedule: Schedule of beta.

    Raises:
        ValueError: If the method does not fit the architecture.
    """
    return _BUILDERS.get(way, Architecture.build)(architecture, config, seed, beta_schedule)


def _with_random_last_layer(
    architecture: Architecture, config: ArchitectureConfig, seed: int | None, beta_schedule: str | Mapping[str, Any]
) -> tfp_bnn.VariationalModel:
    given = config.kernel_posterior
    pruned = isinstance(given, dict) and given.get("pruned", False)
    values = {**config.model_dump(), "kernel_posterior": {"name": POINT, "pruned": True} if pruned else POINT}
    points = architecture.build(validate(type(config), values, architecture.name), seed, beta_schedule)
    model = last_layer_model(points, architecture.build(config).network, architecture.name)
    model.architecture = BuiltFrom(architecture.name, config)
    return model


_BUILDERS: dict[str, Callable[..., tfp_bnn.VariationalModel]] = {"vbll": _with_random_last_layer}

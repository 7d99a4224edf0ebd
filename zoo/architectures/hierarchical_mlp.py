"""Multilayer perceptrons for data that come in groups: partial pooling."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import keras
import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from tfp_bnn.layers import HierarchicalDenseReparameterization
from zoo.architectures.base import Activation, ArchitectureConfig, Spec, Width, register_architecture

# === Config ===


class HierarchicalMLPConfig(ArchitectureConfig):
    """The arguments of `hierarchical_mlp`.

    The last column of the inputs is the group, a whole number. It is never standardized: its `input_mean` is always 0
    and its `input_variance` always 1.

    Attributes:
        num_groups: Number of groups, numbered 0 to `num_groups - 1`.
        estimator: The only one of these layers.
        hidden: Widths of the hidden layers; empty for a linear model.
        activation: Activation of the hidden layers.
        kernel_prior: Name or config of the prior of the mean over the groups, for every kernel and bias.
        group_prior: Name or config of the prior of the groups around that mean. Its scale is their spread.
    """

    input_shape: tuple[Annotated[int, Field(strict=True, ge=2, le=8192)]]
    num_groups: Annotated[int, Field(strict=True, ge=1, le=100_000)]
    estimator: Literal["reparameterization"] = "reparameterization"
    hidden: Annotated[tuple[Width, ...], Field(max_length=16)] = (16,)
    activation: Activation = "relu"
    group_prior: Spec = {"name": "normal", "hyperprior": "half_normal"}  # noqa: RUF012

    @field_validator("group_prior", mode="before")
    @classmethod
    def _known_group_prior(cls, value: Any) -> Any:
        return cls._known_prior(value)

    @field_validator("input_mean")
    @classmethod
    def _group_not_shifted(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        return value and (*value[:-1], 0.0)

    @field_validator("input_variance")
    @classmethod
    def _group_not_scaled(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        return value and (*value[:-1], 1.0)

    @property
    def known_groups(self) -> int:
        """The number of groups."""
        return self.num_groups

    @property
    def priors(self) -> tuple[Spec, ...]:
        """The priors of the mean and of the groups."""
        return (self.kernel_prior, self.group_prior)

    @property
    def layer_arguments(self) -> dict[str, Any]:
        """The arguments of every layer."""
        arguments = self.kernel_arguments
        prior, posterior = arguments["kernel_prior"], arguments["kernel_posterior"]
        of_bias = {"bias_prior": prior, "bias_posterior": posterior}
        of_groups = {"group_prior": self.group_prior, "group_posterior": posterior}
        return {"num_groups": self.num_groups, **arguments, **of_bias, **of_groups}

    def some_inputs(self, num_rows: int) -> npt.NDArray[np.float64]:
        """Returns fixed raw inputs: uniform noise between 0 and 1, and the groups in turn."""
        inputs = super().some_inputs(num_rows)
        inputs[:, -1] = np.arange(num_rows) % self.num_groups
        return inputs


# === Functional Model ===


@register_architecture("hierarchical_mlp", HierarchicalMLPConfig)
def hierarchical_mlp(config: HierarchicalMLPConfig, inputs: keras.KerasTensor) -> keras.KerasTensor:
    """Multilayer perceptron with separate weights for each group around a shared mean.

    Layers of `HierarchicalDenseReparameterization`, named `dense1`, `dense2`, ..., `logits`.
    """
    x, group = inputs[:, :-1], inputs[:, -1]
    for index, width in enumerate(config.hidden, start=1):
        layer = HierarchicalDenseReparameterization(
            width, activation=config.activation, name=f"dense{index}", **config.layer_arguments
        )
        x = config.after_activation(layer([x, group]), layer.name)
    layer = HierarchicalDenseReparameterization(config.num_outputs, name="logits", **config.layer_arguments)
    return layer([x, group])

"""What the networks share whose layers are those of Keras, of which some become Bayesian: those of ImageNet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import keras
from pydantic import Field, model_validator

import tfp_bnn
from tfp_bnn.transfer import to_bayesian
from zoo.architectures.base import ArchitectureConfig, Width


class ConvertedConfig(ArchitectureConfig):
    """Config shared by networks that `to_bayesian` converts, whose weights come from ImageNet.

    The posterior is that of MOPED: a normal around the given weight, with a scale that is a share of its size. The
    layers that do not become Bayesian are frozen: they are features. Images are RGB, with pixels from 0 to 255.

    Attributes:
        bayesian: The layers that become Bayesian: `"head"`, the last one; `"last_stage"`, the last stage of blocks and
            all above it; or `"all"`. Biases stay points, and are trained in these layers.
        delta: Posterior scale at the start, as a share of each weight.
        initial_scale: Posterior scale of the weights of a new head. There are more than a thousand features.
    """

    FIRST_OF_LAST_STAGE: ClassVar[str]
    """Name of the first layer of the last stage."""
    LEAST_SIZE: ClassVar[int] = 64
    """Least number of rows and of columns of an image."""

    input_shape: Annotated[tuple[Width, ...], Field(min_length=3, max_length=3)] = (224, 224, 3)
    num_outputs: Annotated[int, Field(strict=True, ge=1, le=10_000)] = 1000
    bayesian: Literal["head", "last_stage", "all"] = "head"
    initial_scale: Annotated[float, Field(strict=True, gt=0, le=10)] = 0.01
    delta: Annotated[float, Field(strict=True, gt=0, le=10)] = 0.1

    @model_validator(mode="after")
    def _convertible(self) -> ConvertedConfig:
        rows, columns, channels = self.input_shape
        if min(rows, columns) < self.LEAST_SIZE or channels != 3:
            raise ValueError(
                f"input_shape={self.input_shape}: expected (rows, columns, 3) of at least {self.LEAST_SIZE}x"
                f"{self.LEAST_SIZE} pixels. Resize smaller images, and repeat a grey channel three times"
            )
        posterior = {key: value for key, value in self._posterior.items() if key != "pruned"}
        known = {"name": "mean_field_normal", "initial_scale": self.initial_scale}
        if self.estimator != "flipout" or posterior != known:
            raise ValueError(
                f"estimator={self.estimator!r}, kernel_posterior={self.kernel_posterior!r}: this network has flipout "
                "layers with mean-field normal posteriors only. Leave both out"
            )
        return self

    @property
    def _posterior(self) -> dict[str, Any]:
        found: dict[str, Any] = self.kernel_arguments["kernel_posterior"]
        return found

    def variational_model(self, inputs: Any, outputs: Any, **arguments: Any) -> tfp_bnn.VariationalModel:
        """Converts the network; see `ArchitectureConfig.variational_model`."""
        return self.converted(keras.Model(inputs, outputs, name=arguments.pop("name")), **arguments)

    def converted(
        self,
        net: keras.Model,
        *,
        likelihood: Any,
        seed: int | None = None,
        beta_schedule: str | Mapping[str, Any] = "constant",
    ) -> tfp_bnn.VariationalModel:
        """Makes the layers Bayesian that the config says, around their weights, and freezes all others.

        Args:
            net: The network, of layers of Keras.
            likelihood: Name or config of the likelihood of the targets.
            seed: Seed of the noise in training and evaluation.
            beta_schedule: Schedule of beta.
        """
        chosen = self.layers_to_convert(net)
        for layer in net.layers:
            layer.trainable = layer.name in chosen
        return to_bayesian(
            net,
            chosen,
            self.kernel_prior,
            self.delta,
            pruned=self._posterior.get("pruned", False),
            likelihood=likelihood,
            beta_schedule=beta_schedule,
            seed=seed,
            verbose=False,
        )

    def layers_to_convert(self, net: keras.Model) -> list[str]:
        """The names of the layers that become Bayesian, in the order of the network; the last is the head."""
        kinds = (keras.layers.Dense, keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
        names = [layer.name for layer in net.layers if isinstance(layer, kinds)]
        start = {"head": -1, "last_stage": names.index(self.FIRST_OF_LAST_STAGE), "all": 0}[self.bayesian]
        return names[start:]

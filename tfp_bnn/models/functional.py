"""Models that are trained by maximizing the evidence lower bound (ELBO): functional and sequential."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from tfp_bnn.core.layer_tree import SplitGraph, calls_in_order, graph_of, is_functional, sublayers
from tfp_bnn.layers.stochastic import StochasticLayer
from tfp_bnn.likelihoods import LIKELIHOODS, Likelihood
from tfp_bnn.likelihoods.joint import named_after_outputs
from tfp_bnn.models.data_checks import check_outputs
from tfp_bnn.models.likelihood_checks import warn_of_probabilities
from tfp_bnn.models.preparation import refuse_kl_weights
from tfp_bnn.models.summary import print_bayesian_summary
from tfp_bnn.models.variational_mixin import VariationalMixin
from tfp_bnn.predictive.seeded_draws import forget_compiled
from tfp_bnn.priors.shared_scales import release_shared_priors


class _Network(VariationalMixin, keras.Model):
    """Wraps a Functional or Sequential network rather than being one.

    `keras.models.clone_model` rebuilds every Functional or Sequential subclass from its layers alone, and would lose
    the likelihood and the schedule. Keras also rewrites the bases of a Functional subclass at its first use.
    """

    def __init__(self, network: keras.Model, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.network = network
        self.built = bool(network.built)
        if self.outputs is not None and (len(self.outputs) != 1 or self.likelihood.heads):
            check_outputs(self.output, self.likelihood)
        refuse_kl_weights(self)
        warn_of_probabilities(network, self.likelihood)
        self._bind_shared_priors()

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """The raw outputs of the network."""
        return self.network(inputs, training=training, mask=mask)

    def build(self, input_shape: Any) -> None:
        """Creates the weights of the layers for inputs of this shape, batch axis first."""
        if not self.network.built:
            # Drops the size of the batch that happened to come first.
            self.network.build((None, *input_shape[1:]))
        self.built = True
        self._bind_shared_priors()

    def largest_row_bytes(self) -> int | None:
        """Size in bytes of the largest output of a layer for one input; None if a size is not fixed."""
        if not (is_functional(self.network) and self.network.built):
            return None
        shapes = [tensor.shape[1:] for _, outputs in calls_in_order(self.network) for tensor in outputs]
        return None if any(None in shape for shape in shapes) else 4 * max((math.prod(s) for s in shapes), default=1)

    def split_before_noise(self) -> SplitGraph | None:
        """The layers before the first with randomness, and the others; None if that does not pay."""
        ordinary = type(self).call is _Network.call and is_functional(self.network) and self.network.built
        if not ordinary or self.compute_dtype != self.network.compute_dtype:
            return None
        split = SplitGraph(self.network, _is_random)
        return split if split.useful else None

    def summary(self, *args: Any, **kwargs: Any) -> None:
        """Prints the layers of the network, as `keras.Model.summary` does, and a table of its Bayesian weights."""
        self.network.summary(*args, **kwargs)
        print_bayesian_summary(self, kwargs.get("print_fn"))

    @property
    def layers(self) -> list[keras.layers.Layer]:
        """The layers of the network."""
        return self.network.layers

    @property
    def inputs(self) -> list[keras.KerasTensor] | None:
        """The symbolic inputs; None before the network is built."""
        return self.network.inputs if self.network.built else None

    @property
    def outputs(self) -> list[keras.KerasTensor] | None:
        """The symbolic outputs; None before the network is built."""
        return self.network.outputs if self.network.built else None

    @property
    def input(self) -> Any:
        """The symbolic inputs in the structure that calls take; None before the network is built."""
        return graph_of(self.network).input if self.network.built else None

    @property
    def output(self) -> Any:
        """The symbolic outputs in the structure that calls return; None before the network is built."""
        return graph_of(self.network).output if self.network.built else None

    @property
    def input_shape(self) -> Any:
        """Shape of the inputs, batch axis first."""
        return self.network.input_shape

    @property
    def output_shape(self) -> Any:
        """Shape of the outputs, batch axis first; for several outputs, in their structure."""
        if not self.likelihood.heads:
            return self.network.output_shape
        return keras.tree.map_structure(lambda tensor: tensor.shape, self.output)


def _is_random(operation: keras.Operation) -> bool:
    layer = isinstance(operation, keras.layers.Layer)
    return layer and any(isinstance(part, StochasticLayer) for part in [operation, *sublayers(operation)])


@keras.saving.register_keras_serializable(package="tfp_bnn")
class VariationalModel(_Network):
    """A functional Keras model trained on the ELBO: `VariationalModel(inputs, outputs, likelihood="categorical")`.

    Takes the inputs and outputs of a graph of layers, as `keras.Model` does, and the arguments of `VariationalMixin`,
    which describes the training. The Functional model itself is `model.network`. To subclass, use `class
    Net(VariationalMixin, keras.Model)`.

    Args:
        inputs: As in `keras.Model`.
        outputs: As in `keras.Model`: one tensor, or a dict or list of tensors for a likelihood with as many heads.
        name: Name of the model.
        likelihood: As in `VariationalMixin`.
        **kwargs: Other arguments of `VariationalMixin`.

    Example:
        >>> import keras, numpy as np, tfp_bnn
        >>> x = keras.Input((4,))
        >>> logits = tfp_bnn.layers.DenseFlipout(3)(x)
        >>> model = tfp_bnn.VariationalModel(x, logits, likelihood="categorical", seed=0)
        >>> model.compile("adam", metrics=["accuracy"])
        >>> history = model.fit(np.zeros((8, 4)), np.zeros(8), verbose=0)
        >>> sorted(history.history)
        ['accuracy', 'beta', 'elbo', 'kl', 'loss', 'nll']
        >>> model.posterior_predictive(np.zeros((2, 4)), num_samples=10).mean().shape
        (2, 3)
    """

    def __init__(
        self,
        inputs: Any,
        outputs: Any,
        name: str | None = None,
        likelihood: str | Mapping[str, Any] | Likelihood | Sequence[Any] = "categorical",
        **kwargs: Any,
    ) -> None:
        likelihood = LIKELIHOODS.get(likelihood)
        if not isinstance(outputs, list | tuple):
            check_outputs(outputs, likelihood)
        network = keras.Model(inputs, outputs, name=name)
        if isinstance(outputs, list | tuple):
            likelihood = named_after_outputs(likelihood, network.output_names)
        super().__init__(network, name=name, likelihood=likelihood, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """The config of the network, plus that of `VariationalMixin`."""
        return {**super().get_config(), "network": keras.saving.serialize_keras_object(self.network)}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> VariationalModel:
        """The inverse of `get_config`."""
        config = dict(config)
        network = keras.saving.deserialize_keras_object(config.pop("network"), custom_objects=custom_objects)
        return cls(network.input, network.output, **config)


@keras.saving.register_keras_serializable(package="tfp_bnn")
class VariationalSequential(_Network):
    """A stack of layers trained on the ELBO: `VariationalSequential([keras.Input((4,)), DenseFlipout(3)])`.

    Takes the arguments of `VariationalMixin`, which describes the training. The `keras.Sequential` itself is
    `model.network`.

    Args:
        layers: List of layers. With a `keras.Input` first the model is built at once, otherwise at its first call.
        name: Name of the model.
        **kwargs: Arguments of `VariationalMixin`.

    Example:
        >>> import keras, tfp_bnn
        >>> model = tfp_bnn.VariationalSequential(
        ...     [keras.Input((4,)), tfp_bnn.layers.DenseFlipout(1)], likelihood="normal"
        ... )
        >>> model.output_shape
        (None, 1)
    """

    def __init__(
        self, layers: Sequence[keras.layers.Layer] | None = None, name: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(keras.Sequential(layers, name=name), name=name, **kwargs)

    def add(self, layer: keras.layers.Layer) -> None:
        """Adds a layer on top of the stack."""
        self.network.add(layer)
        self._bind_shared_priors()
        forget_compiled(self)

    def pop(self) -> keras.layers.Layer:
        """Removes the last layer of the stack, with prior scales that no other layer shares, and returns it."""
        layer = self.network.pop()
        release_shared_priors(self, layer, self._shared_priors)
        forget_compiled(self)
        return layer

    def get_config(self) -> dict[str, Any]:
        """The configs of the layers, plus that of `VariationalMixin`."""
        return {**super().get_config(), "layers": self.network.get_config()["layers"]}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> VariationalSequential:
        """The inverse of `get_config`."""
        layers = [
            keras.saving.deserialize_keras_object(layer, custom_objects=custom_objects) for layer in config["layers"]
        ]
        return cls(**{**config, "layers": layers})

"""What Bayesian recurrent layers have in common: weights of their own, one draw of which serves all time steps."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import keras
import tensorflow as tf

from tfp_bnn.core.arguments import is_integer
from tfp_bnn.core.noise import NoiseSource
from tfp_bnn.layers.base import VariationalLayer
from tfp_bnn.layers.estimators import PLAIN_DRAW, Flipout, has_spread
from tfp_bnn.layers.operations import LinearOperation, MatMul
from tfp_bnn.layers.variational_weight import VariationalWeight

Step = Callable[[tf.Tensor, Sequence[tf.Tensor]], tuple[tf.Tensor, list[tf.Tensor]]]

# The step of the current call, with its draw of the weights. Not an attribute: two threads may call a layer at once.
_step: contextvars.ContextVar[Step] = contextvars.ContextVar("tfp_bnn_recurrent_step")


class _Cell:
    """The interface that `keras.layers.RNN` expects of a cell. Not a layer: the recurrent layer owns the weights."""

    def __init__(self, layer: keras.layers.Layer, units: int, num_states: int) -> None:
        self._layer = layer
        self.state_size = [units] * num_states
        self.output_size = units

    @property
    def compute_dtype(self) -> str:
        return self._layer.compute_dtype

    def call(self, inputs: tf.Tensor, states: Sequence[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
        return _step.get()(inputs, states)

    __call__ = call

    def get_config(self) -> dict[str, Any]:
        return {}


class GatedRNN(keras.layers.RNN):
    """A recurrent layer of Keras that owns its weights, instead of a cell that is a layer. Has no `call`. Abstract.

    A subclass sets `num_gates`, the number of blocks of `units` columns in its kernels, and `state_names`, those of its
    states. Its constructor has the signature of the Keras layer.
    """

    num_gates: ClassVar[int]
    state_names: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        units: int,
        *,
        activation: Any,
        recurrent_activation: Any,
        use_bias: bool,
        dropout: float,
        recurrent_dropout: float,
        activity_regularizer: Any,
        of_weights: dict[str, Any],
        **kwargs: Any,
    ) -> None:
        if not is_integer(units) or units < 1:
            raise ValueError(f"`units` must be a positive integer, but got {units!r}.")
        for name, value in (("dropout", dropout), ("recurrent_dropout", recurrent_dropout)):
            if value:
                raise ValueError(
                    f"Got {name}={value!r}, but this layer has a distribution over its weights instead. For dropout "
                    "too, put an `MCDropout` before or after it."
                )
        cell = _Cell(self, int(units), len(self.state_names))
        super().__init__(cell, activity_regularizer=activity_regularizer, **kwargs)
        self.units = int(units)
        self.activation = keras.activations.get(activation)
        self.recurrent_activation = keras.activations.get(recurrent_activation)
        self.use_bias = use_bias
        for name, value in of_weights.items():
            kind = name.rpartition("_")[-1]
            setattr(self, name, getattr(keras, f"{kind}s").get(value))
        self.input_spec = keras.InputSpec(ndim=3)

    def build(self, sequences_shape: Sequence[int | None], initial_state_shape: Any = None) -> None:
        """Creates the weights, and the state variables of a stateful layer."""
        input_dim = sequences_shape[-1]
        if input_dim is None:
            raise ValueError(
                f"The number of features of the layer {self.name!r} must be known, but its input shape is "
                f"{tuple(sequences_shape)}."
            )
        super().build(sequences_shape)
        self.input_spec = keras.InputSpec(ndim=3, axes={-1: input_dim})
        columns = self.num_gates * self.units
        self.kernel = self._add_own("kernel", "kernel", (input_dim, columns))
        self.recurrent_kernel = self._add_own("recurrent_kernel", "recurrent", (self.units, columns))
        self.bias = self._add_own("bias", "bias", (columns,)) if self.use_bias else None

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        config = super().get_config()
        del config["cell"]
        config["activity_regularizer"] = keras.regularizers.serialize(self.activity_regularizer)
        for name in ("activation", "recurrent_activation"):
            config[name] = keras.activations.serialize(getattr(self, name))
        for weight in ("kernel", "recurrent", "bias"):
            for kind in ("initializer", "regularizer", "constraint"):
                serialize = getattr(keras, f"{kind}s").serialize
                config[f"{weight}_{kind}"] = serialize(getattr(self, f"{weight}_{kind}"))
        return {**config, "units": self.units, "use_bias": self.use_bias, "dropout": 0.0, "recurrent_dropout": 0.0}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> GatedRNN:
        """Creates the layer from the output of `get_config`."""
        return cls(**config)

    def _add_own(self, name: str, prefix: str, shape: tuple[int, ...]) -> keras.Variable:
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=self._initial_bias if name == "bias" else getattr(self, f"{prefix}_initializer"),
            regularizer=getattr(self, f"{prefix}_regularizer"),
            constraint=getattr(self, f"{prefix}_constraint"),
        )

    def _initial_bias(self, shape: tuple[int], dtype: Any = None) -> tf.Tensor:
        return self.bias_initializer(shape, dtype=dtype)


@dataclass(frozen=True)
class StateProduct:
    """`h @ recurrent_kernel + bias` as a function of the state h, under one draw of the weights.

    Attributes:
        kernel: The kernel, or its mean if there is a perturbation; `(units, columns)`.
        perturbation: Perturbation of the kernel, whose signs are flipped per example; None for a plain draw.
        state_signs: Signs for the state, `(batch, units)`.
        output_signs: Signs for the product, `(batch, columns)`.
        bias: Bias of shape `(columns,)` or `(batch, columns)`, or None.
    """

    kernel: tf.Tensor
    perturbation: tf.Tensor | None = None
    state_signs: tf.Tensor | None = None
    output_signs: tf.Tensor | None = None
    bias: tf.Tensor | None = None

    def __call__(self, h: tf.Tensor) -> tf.Tensor:
        """Computes the product for states `(batch, units)`."""
        outputs = tf.matmul(h, self.kernel)
        if self.perturbation is not None:
            outputs += tf.matmul(h * self.state_signs, self.perturbation) * self.output_signs
        return outputs if self.bias is None else outputs + self.bias

    def columns(self, start: int, stop: int) -> StateProduct:
        """Returns the product with some of the columns."""
        names = ("kernel", "perturbation", "output_signs", "bias")
        parts = {name: getattr(self, name) for name in names}
        return replace(self, **{name: part if part is None else part[..., start:stop] for name, part in parts.items()})


class RecurrentFlipout(VariationalLayer):
    """A recurrent Bayesian layer, trained with flipout. Abstract: mixed in before a `GatedRNN`."""

    estimator = Flipout()

    @property
    def operation(self) -> LinearOperation:
        """Matrix multiplication over the last axis."""
        return MatMul()

    def step(self, from_state: StateProduct) -> Step:
        """Returns the function of one time step.

        Args:
            from_state: Contribution of the state, under the draw of this call.

        Returns:
            A function that takes the contribution of the inputs and the states, and returns the outputs and the new
            states.
        """
        raise NotImplementedError

    def call(  # type: ignore[override]  # The names of `keras.layers.RNN`.
        self,
        sequences: tf.Tensor,
        initial_state: Sequence[tf.Tensor] | None = None,
        mask: tf.Tensor | None = None,
        training: bool | None = None,
    ) -> tf.Tensor | tuple[tf.Tensor, ...]:
        """Computes the outputs under one draw of the weights.

        Args:
            sequences: Inputs of shape `(batch, steps, features)`.
            initial_state: Initial states, each of shape `(batch, units)`. Default: zeros, or the states of a stateful
                layer.
            mask: Boolean mask of shape `(batch, steps)`. Where it is False, the state is unchanged.
            training: If True, flipout. Otherwise one plain draw of the weights for the whole batch.

        Returns:
            As the Keras twin, in the compute dtype.
        """
        self._check_state(initial_state)
        training = bool(training)
        noise = self._noise(training)
        sequences = tf.cast(sequences, self.compute_dtype)
        # The contribution of the inputs is the same operation at all time steps, which share the signs.
        from_inputs = self.transform(self.estimator if training else PLAIN_DRAW, sequences, noise)
        token = _step.set(self.step(self._recurrence(training, tf.shape(sequences)[0], noise)))
        try:
            outputs = keras.layers.RNN.call(self, from_inputs, initial_state, mask, training)
        finally:
            _step.reset(token)
        self.add_kl_loss(noise)
        return outputs

    def _recurrence(self, training: bool, batch: tf.Tensor, noise: NoiseSource) -> StateProduct:
        """The contribution of the state. Everything random is drawn here, once."""
        weight, dtype = self.variational_weights["recurrent_kernel"], self.compute_dtype
        bias = self.variational_weights.get("recurrent_bias", getattr(self, "recurrent_bias", None))
        if not training or not has_spread(weight, bias):
            kernel = tf.cast(weight.sample(noise), dtype)
            value = bias.sample(noise) if isinstance(bias, VariationalWeight) else bias
            return StateProduct(kernel, bias=None if value is None else tf.cast(value, dtype))
        mean, perturbation = tf.cast(weight.mean, dtype), tf.cast(weight.perturbation(noise), dtype)
        columns = weight.shape[-1]
        state_signs = tf.cast(noise.signs("recurrent_kernel_input_signs", [batch, self.units]), dtype)
        output_signs = tf.cast(noise.signs("recurrent_kernel_output_signs", [batch, columns]), dtype)
        if isinstance(bias, VariationalWeight):
            bias = tf.cast(bias.mean, dtype) + tf.cast(bias.perturbation(noise), dtype) * output_signs
        return StateProduct(
            mean, perturbation, state_signs, output_signs, None if bias is None else tf.cast(bias, dtype)
        )

    def _check_state(self, initial_state: Sequence[tf.Tensor] | None) -> None:
        if initial_state is None:
            return
        names, shapes = self.state_names, [tuple(state.shape) for state in keras.tree.flatten(initial_state)]
        if len(shapes) != len(names) or any(len(shape) != 2 or shape[1] != self.units for shape in shapes):
            expected = "a tensor h" if len(names) == 1 else f"two tensors, {' and '.join(names)},"
            raise ValueError(
                f"The initial state of the layer {self.name!r} must be {expected} of shape (batch, {self.units}), but "
                f"got shapes {shapes}."
            )

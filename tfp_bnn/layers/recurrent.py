"""A Bayesian recurrent layer."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfp_bnn.core.arguments import is_integer
from tfp_bnn.core.noise import NoiseSource
from tfp_bnn.layers.base import VariationalLayer
from tfp_bnn.layers.estimators import PLAIN_DRAW, Flipout, has_spread
from tfp_bnn.layers.operations import LinearOperation, MatMul

Step = Callable[[tf.Tensor, Sequence[tf.Tensor]], tuple[tf.Tensor, list[tf.Tensor]]]

# The step of the current call, with its draw of the weights. Not an attribute: two threads may call a layer at once.
_step: contextvars.ContextVar[Step] = contextvars.ContextVar("tfp_bnn_lstm_step")


class _Cell:
    """The interface that `keras.layers.RNN` expects of a cell. Not a layer: the recurrent layer owns the weights."""

    def __init__(self, layer: keras.layers.Layer, units: int) -> None:
        self._layer = layer
        self.state_size = [units, units]
        self.output_size = units

    @property
    def compute_dtype(self) -> str:
        return self._layer.compute_dtype

    def call(self, inputs: tf.Tensor, states: Sequence[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
        return _step.get()(inputs, states)

    __call__ = call

    def get_config(self) -> dict[str, Any]:
        return {}


class _LSTM(keras.layers.RNN):
    """`keras.layers.LSTM` that owns its weights, instead of a cell that is a layer. Has no `call`."""

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        *,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
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
        super().__init__(
            _Cell(self, int(units)),
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            activity_regularizer=activity_regularizer,
            **kwargs,
        )
        self.units = int(units)
        self.activation = keras.activations.get(activation)
        self.recurrent_activation = keras.activations.get(recurrent_activation)
        self.use_bias = use_bias
        self.unit_forget_bias = unit_forget_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.recurrent_initializer = keras.initializers.get(recurrent_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.recurrent_regularizer = keras.regularizers.get(recurrent_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.recurrent_constraint = keras.constraints.get(recurrent_constraint)
        self.bias_constraint = keras.constraints.get(bias_constraint)
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
        self.kernel = self.add_weight(
            name="kernel",
            shape=(input_dim, 4 * self.units),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.recurrent_kernel = self.add_weight(
            name="recurrent_kernel",
            shape=(self.units, 4 * self.units),
            initializer=self.recurrent_initializer,
            regularizer=self.recurrent_regularizer,
            constraint=self.recurrent_constraint,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(4 * self.units,),
                initializer=self._initial_bias,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )

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
        return {
            **config,
            "units": self.units,
            "use_bias": self.use_bias,
            "unit_forget_bias": self.unit_forget_bias,
            "dropout": 0.0,
            "recurrent_dropout": 0.0,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> _LSTM:
        """Creates the layer from the output of `get_config`."""
        return cls(**config)

    def _initial_bias(self, shape: tuple[int], dtype: Any = None) -> tf.Tensor:
        bias = self.bias_initializer(shape, dtype=dtype)
        if not self.unit_forget_bias:
            return bias
        of_input_gate, _, rest = tf.split(bias, [self.units, self.units, 2 * self.units], axis=0)
        return tf.concat([of_input_gate, tf.ones_like(of_input_gate), rest], axis=0)


@keras.saving.register_keras_serializable(package="tfp_bnn")
class LSTMFlipout(VariationalLayer, _LSTM):
    """Bayesian long short-term memory (LSTM), trained with flipout, with one draw of the weights per sequence.

    kernel ~ q(kernel);   recurrent_kernel ~ q(recurrent_kernel);   bias ~ q(bias), or deterministic
    i_t, f_t, g_t, o_t = split(inputs_t @ kernel + h_(t-1) @ recurrent_kernel + bias)
    c_t = sigmoid(f_t) * c_(t-1) + sigmoid(i_t) * tanh(g_t);   outputs_t = h_t = sigmoid(o_t) * tanh(c_t)

    In training, each example n sees its own perturbations of the means, the same at all its time steps:
    inputs_nt @ mean + ((inputs_nt * s_n) @ perturbation) * r_n, and likewise for h with the recurrent kernel and
    separate signs. Signs are exactly +1 or -1, one per channel, and the perturbation of a Bayesian bias is flipped by
    r_n. Costs two matrix multiplications for each of the two kernels; requires a posterior that is symmetric and
    independent per weight. Otherwise all sequences of the batch share one plain draw of the weights.

    `kl()` is KL(q || prior) in nats, summed over all weights and not scaled; it counts once, however long the sequences
    are. A `VariationalModel` divides it by N, the number of sequences.

    Args:
        units: Positive integer, the dimension of the outputs and of the state.
        activation: As in `keras.layers.LSTM`. Default: `"tanh"`.
        recurrent_activation: Activation of the gates. Default: `"sigmoid"`.
        use_bias: Whether the layer has a bias. Default: True.
        kernel_initializer: Initializer of the posterior mean of the kernel. Default: `"glorot_uniform"`.
        recurrent_initializer: Initializer of the posterior mean of the recurrent kernel. Default: `"orthogonal"`.
        bias_initializer: Initializer of the bias, or of its posterior mean. Default: `"zeros"`.
        unit_forget_bias: Whether the bias of the forget gate starts at 1 instead. Default: True.
        kernel_regularizer: Regularizer of the posterior mean, in addition to the prior. Default: none.
        recurrent_regularizer: Regularizer of the posterior mean, in addition to the prior. Default: none.
        bias_regularizer: Regularizer of the bias, or of its posterior mean. Default: none.
        activity_regularizer: As in Keras. Default: none.
        kernel_constraint: Constraint on the posterior mean. Default: none.
        recurrent_constraint: Constraint on the posterior mean. Default: none.
        bias_constraint: Constraint on the bias, or on its posterior mean. Default: none.
        dropout: Must be 0; use `MCDropout` instead.
        recurrent_dropout: Must be 0.
        return_sequences: Whether to return the outputs of all time steps. Default: False.
        return_state: Whether to return the last `h` and `c` too. Default: False.
        go_backwards: Whether to read the sequence from its end and return it reversed. Default: False.
        stateful: Whether a batch starts from the final state of the previous batch, whatever the weights of that batch
            were. Not for `posterior_predictive`, whose draws would follow one another. Default: False.
        unroll: Whether to unroll the loop over time steps. Default: False.
        kernel_prior: Prior of the kernel: a name, config or object of `tfp_bnn.priors`. Default: `"normal"`, N(0, 1).
        kernel_posterior: Posterior family of the kernel: a name, config or object of `tfp_bnn.posteriors`. Default:
            `"mean_field_normal"`.
        recurrent_prior: Prior of the recurrent kernel. Default: `"normal"`.
        recurrent_posterior: Posterior family of the recurrent kernel. Default: `"mean_field_normal"`.
        bias_prior: Prior of a Bayesian bias. Default: `"normal"` if `bias_posterior` is given.
        bias_posterior: Posterior family of the bias. Default: None, a deterministic bias.
        seed: Integer seed of the layer's noise outside a `VariationalModel`. Default: drawn from Keras' global seed.
        kl_weight: Weight of the KL, only for a plain `keras.Model`; see `VariationalLayer`. Default: None.
        **kwargs: As in `keras.layers.RNN`, such as `zero_output_for_mask`.

    Input shape: `(batch, steps, features)`; masks of Keras for time steps are obeyed.
    Output shape: `(batch, units)`, or `(batch, steps, units)` with `return_sequences`; with `return_state` a tuple of
    that and of two tensors of shape `(batch, units)`. All in the compute dtype; variational parameters and KL are
    float32 under any dtype policy.

    Noise is counter-based. In a `VariationalModel` it comes from the model's seed, step and layer; elsewhere from two
    counters of the layer, one for training and one for evaluation, which are saved with it.

    Example:
        >>> import numpy as np, tfp_bnn
        >>> layer = tfp_bnn.layers.LSTMFlipout(3, return_sequences=True, seed=0)
        >>> layer(np.ones((2, 7, 5), "float32"), training=True).shape
        TensorShape([2, 7, 3])
        >>> layer.recurrent_posterior.event_shape
        TensorShape([3, 12])

    References:
        Fortunato et al. 2017, Bayesian Recurrent Neural Networks, https://arxiv.org/abs/1704.02798
        Wen et al. 2018, Flipout: Efficient Pseudo-Independent Weight Perturbations on Mini-Batches,
        https://arxiv.org/abs/1803.04386
        Hochreiter and Schmidhuber 1997, Long Short-Term Memory, https://doi.org/10.1162/neco.1997.9.8.1735
    """

    estimator = Flipout()
    bayesian_weights = {"kernel": "kernel", "recurrent_kernel": "recurrent", "bias": "bias"}  # noqa: RUF012

    @property
    def operation(self) -> LinearOperation:
        """Matrix multiplication over the last axis."""
        return MatMul()

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
            initial_state: Initial `h` and `c`, each of shape `(batch, units)`. Default: zeros, or the state of a
                stateful layer.
            mask: Boolean mask of shape `(batch, steps)`. Where it is False, the state is unchanged.
            training: If True, flipout. Otherwise one plain draw of the weights for the whole batch.

        Returns:
            As `keras.layers.LSTM`, in the compute dtype.
        """
        self._check_state(initial_state)
        training = bool(training)
        noise = self._noise(training)
        sequences = tf.cast(sequences, self.compute_dtype)
        # The contribution of the inputs is the same operation at all time steps, which share the signs.
        from_inputs = self.transform(self.estimator if training else PLAIN_DRAW, sequences, noise)
        from_state = self._recurrence(training, tf.shape(sequences)[0], noise)

        def step(inputs: tf.Tensor, states: Sequence[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
            return self._gates(inputs + from_state(states[0]), states[1])

        token = _step.set(step)
        try:
            outputs = keras.layers.RNN.call(self, from_inputs, initial_state, mask, training)
        finally:
            _step.reset(token)
        self.add_kl_loss(noise)
        return outputs

    def _recurrence(self, training: bool, batch: tf.Tensor, noise: NoiseSource) -> Callable[[tf.Tensor], tf.Tensor]:
        """The contribution of the state as a function of `h`. Everything random is drawn here, once."""
        weight, dtype = self.variational_weights["recurrent_kernel"], self.compute_dtype
        if not training or not has_spread(weight):
            kernel = tf.cast(weight.sample(noise), dtype)
            return lambda h: tf.matmul(h, kernel)
        mean, perturbation = tf.cast(weight.mean, dtype), tf.cast(weight.perturbation(noise), dtype)
        state_signs = tf.cast(noise.signs("recurrent_kernel_input_signs", [batch, self.units]), dtype)
        output_signs = tf.cast(noise.signs("recurrent_kernel_output_signs", [batch, 4 * self.units]), dtype)
        return lambda h: tf.matmul(h, mean) + tf.matmul(h * state_signs, perturbation) * output_signs

    def _gates(self, total: tf.Tensor, carry: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        of_input, of_forget, candidate, of_output = tf.split(total, 4, axis=-1)
        carry = self.recurrent_activation(of_forget) * carry
        carry += self.recurrent_activation(of_input) * self.activation(candidate)
        h = self.recurrent_activation(of_output) * self.activation(carry)
        return h, [h, carry]

    def _check_state(self, initial_state: Sequence[tf.Tensor] | None) -> None:
        if initial_state is None:
            return
        shapes = [tuple(state.shape) for state in keras.tree.flatten(initial_state)]
        if len(shapes) != 2 or any(len(shape) != 2 or shape[1] != self.units for shape in shapes):
            raise ValueError(
                f"The initial state of the layer {self.name!r} must be two tensors, h and c, of shape (batch, "
                f"{self.units}), but got shapes {shapes}."
            )

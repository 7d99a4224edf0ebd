"""Bayesian recurrent layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfp_bnn.layers.recurrence import GatedRNN, RecurrentFlipout, StateProduct, Step


class _LSTM(GatedRNN):
    """`keras.layers.LSTM` that owns its weights. Has no `call`."""

    num_gates = 4
    state_names = ("h", "c")

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
        super().__init__(
            units,
            activation=activation,
            recurrent_activation=recurrent_activation,
            use_bias=use_bias,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            activity_regularizer=activity_regularizer,
            of_weights={
                "kernel_initializer": kernel_initializer,
                "recurrent_initializer": recurrent_initializer,
                "bias_initializer": bias_initializer,
                "kernel_regularizer": kernel_regularizer,
                "recurrent_regularizer": recurrent_regularizer,
                "bias_regularizer": bias_regularizer,
                "kernel_constraint": kernel_constraint,
                "recurrent_constraint": recurrent_constraint,
                "bias_constraint": bias_constraint,
            },
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            **kwargs,
        )
        self.unit_forget_bias = unit_forget_bias

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "unit_forget_bias": self.unit_forget_bias}

    def _initial_bias(self, shape: tuple[int], dtype: Any = None) -> tf.Tensor:
        bias = super()._initial_bias(shape, dtype)
        if not self.unit_forget_bias:
            return bias
        of_input_gate, _, rest = tf.split(bias, [self.units, self.units, 2 * self.units], axis=0)
        return tf.concat([of_input_gate, tf.ones_like(of_input_gate), rest], axis=0)


@keras.saving.register_keras_serializable(package="tfp_bnn")
class LSTMFlipout(RecurrentFlipout, _LSTM):
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
            were. Not for `posterior_predictive` and training with `num_draws > 1`, whose draws would follow one
            another; such a training is refused. Default: False.
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

    bayesian_weights = {"kernel": "kernel", "recurrent_kernel": "recurrent", "bias": "bias"}  # noqa: RUF012

    def step(self, from_state: StateProduct) -> Step:
        """Returns the function of one time step, whose states are h and c."""

        def step(inputs: tf.Tensor, states: Sequence[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
            h, carry = states
            of_input, of_forget, candidate, of_output = tf.split(inputs + from_state(h), 4, axis=-1)
            carry = self.recurrent_activation(of_forget) * carry
            carry += self.recurrent_activation(of_input) * self.activation(candidate)
            h = self.recurrent_activation(of_output) * self.activation(carry)
            return h, [h, carry]

        return step


class _GRU(GatedRNN):
    """`keras.layers.GRU` that owns its weights, with a bias of the inputs and one of the state. Has no `call`."""

    num_gates = 3
    state_names = ("h",)

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
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
        reset_after: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            units,
            activation=activation,
            recurrent_activation=recurrent_activation,
            use_bias=use_bias,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            activity_regularizer=activity_regularizer,
            of_weights={
                "kernel_initializer": kernel_initializer,
                "recurrent_initializer": recurrent_initializer,
                "bias_initializer": bias_initializer,
                "kernel_regularizer": kernel_regularizer,
                "recurrent_regularizer": recurrent_regularizer,
                "bias_regularizer": bias_regularizer,
                "kernel_constraint": kernel_constraint,
                "recurrent_constraint": recurrent_constraint,
                "bias_constraint": bias_constraint,
            },
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            **kwargs,
        )
        self.reset_after = reset_after

    def build(self, sequences_shape: Sequence[int | None], initial_state_shape: Any = None) -> None:
        """Creates the weights, and the state variable of a stateful layer."""
        super().build(sequences_shape, initial_state_shape)
        has_two = self.bias is not None and self.reset_after
        self.recurrent_bias = self._add_own("recurrent_bias", "bias", (3 * self.units,)) if has_two else None

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "reset_after": self.reset_after}


@keras.saving.register_keras_serializable(package="tfp_bnn")
class GRUFlipout(RecurrentFlipout, _GRU):
    """Bayesian gated recurrent unit (GRU), trained with flipout, with one draw of the weights per sequence.

    kernel ~ q(kernel);   recurrent_kernel ~ q(recurrent_kernel);   biases ~ q, or deterministic
    x_t = inputs_t @ kernel + bias;   s_t = h_(t-1) @ recurrent_kernel + recurrent_bias, each in parts z, r and g
    z_t = sigmoid(xz_t + sz_t);   r_t = sigmoid(xr_t + sr_t);   g_t = tanh(xg_t + r_t * sg_t)
    outputs_t = h_t = z_t * h_(t-1) + (1 - z_t) * g_t

    With `reset_after=False` the reset gate acts on the state instead: g_t = tanh(xg_t + (r_t * h_(t-1)) @
    recurrent_kernel_g), and there is no `recurrent_bias`. The two biases are the rows of the bias of
    `keras.layers.GRU`.

    In training, each example sees its own perturbations of the means, the same at all its time steps, with signs of
    exactly +1 or -1 per channel, as in `LSTMFlipout`. Costs two matrix multiplications for each of the two kernels;
    requires a posterior that is symmetric and independent per weight. Otherwise all sequences of the batch share one
    plain draw of the weights.

    `kl()` is KL(q || prior) in nats, summed over all weights and not scaled; it counts once, however long the sequences
    are. A `VariationalModel` divides it by N, the number of sequences.

    Args: Those of `LSTMFlipout`, without `unit_forget_bias`.
        reset_after: Whether the reset gate acts after the matrix multiplication. Default: True, as in Keras.
        recurrent_bias_prior: Prior of a Bayesian `recurrent_bias`. Default: `"normal"` if it has a posterior.
        recurrent_bias_posterior: Posterior family of `recurrent_bias`. Default: None, a deterministic bias.

    Input shape: `(batch, steps, features)`; masks of Keras for time steps are obeyed.
    Output shape: `(batch, units)`, or `(batch, steps, units)` with `return_sequences`; with `return_state` a tuple of
    that and of a tensor of shape `(batch, units)`. All in the compute dtype; variational parameters and KL are float32
    under any dtype policy.

    The noise is that of `LSTMFlipout`.

    Example:
        >>> import numpy as np, tfp_bnn
        >>> layer = tfp_bnn.layers.GRUFlipout(3, return_sequences=True, seed=0)
        >>> layer(np.ones((2, 7, 5), "float32"), training=True).shape
        TensorShape([2, 7, 3])
        >>> layer.recurrent_posterior.event_shape
        TensorShape([3, 9])

    References:
        Fortunato et al. 2017, Bayesian Recurrent Neural Networks, https://arxiv.org/abs/1704.02798
        Wen et al. 2018, https://arxiv.org/abs/1803.04386
        Cho et al. 2014, Learning Phrase Representations using RNN Encoder-Decoder, https://arxiv.org/abs/1406.1078
    """

    bayesian_weights = {  # noqa: RUF012
        "kernel": "kernel",
        "recurrent_kernel": "recurrent",
        "bias": "bias",
        "recurrent_bias": "recurrent_bias",
    }
    optional_weights = frozenset({"bias", "recurrent_bias"})

    def step(self, from_state: StateProduct) -> Step:
        """Returns the function of one time step, whose state is h."""
        units = self.units
        of_gates, num_parts = (from_state, 3) if self.reset_after else (from_state.columns(0, 2 * units), 2)
        of_candidate = from_state.columns(2 * units, 3 * units)

        def step(inputs: tf.Tensor, states: Sequence[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
            (h,) = states
            of_inputs, of_state = tf.split(inputs, 3, axis=-1), tf.split(of_gates(h), num_parts, axis=-1)
            update, reset = (self.recurrent_activation(of_inputs[i] + of_state[i]) for i in range(2))
            from_reset = reset * of_state[2] if self.reset_after else of_candidate(reset * h)
            h = update * h + (1 - update) * self.activation(of_inputs[2] + from_reset)
            return h, [h]

        return step

    def _absent_weights(self) -> dict[str, str]:
        if not self.use_bias:
            return {"bias": "use_bias=False", "recurrent_bias": "use_bias=False"}
        return {} if self.reset_after else {"recurrent_bias": "reset_after=False"}

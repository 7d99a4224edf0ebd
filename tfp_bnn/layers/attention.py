"""Bayesian multi-head attention."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import keras
import tensorflow as tf

from tfp_bnn.core.layer_tree import attend, attention_settings, mask_of, pair_mask, prepare_attention
from tfp_bnn.core.noise import NoiseSource
from tfp_bnn.layers.base import VariationalLayer
from tfp_bnn.layers.estimators import PLAIN_DRAW, Estimator, Flipout
from tfp_bnn.layers.operations import Einsum


@keras.saving.register_keras_serializable(package="tfp_bnn")
class MultiHeadAttentionFlipout(VariationalLayer, keras.layers.MultiHeadAttention):
    """Multi-head attention with Bayesian projections, trained with flipout.

    query_kernel ~ q(query_kernel), and likewise for key, value and output
    Q = query @ query_kernel + bias;   K = key @ key_kernel + bias;   V = value @ value_kernel + bias
    outputs = softmax(Q K^T / sqrt(key_dim)) V @ output_kernel + bias

    In training, each example sees its own perturbations of the means, the same at all its positions, with signs of
    exactly +1 or -1 for each input and each output channel, drawn separately for each kernel. Costs two products for
    each projection, and one attention; requires a posterior that is symmetric and independent per weight. Otherwise the
    whole batch shares one plain draw of the weights.

    `kl()` is KL(q || prior) in nats, summed over the weights of all projections and not scaled; it does not depend on
    the number of positions. A `VariationalModel` divides it by N, the number of sequences.

    It takes the arguments of `keras.layers.MultiHeadAttention`. Initializer, regularizer and constraint of the kernels
    act on their posterior means, and the activity regularizer on the outputs of the layer. `dropout` drops attention
    scores in training, and only there. Biases are deterministic.

    Args:
        query_prior, key_prior, value_prior, output_prior: Prior of each kernel: a name, config or object of
            `tfp_bnn.priors`. Default: `"normal"`, N(0, 1).
        query_posterior, key_posterior, value_posterior, output_posterior: Posterior family of each kernel: a name,
            config or object of `tfp_bnn.posteriors`. Default: `"mean_field_normal"`.
        gate_prior: Prior of a Bayesian gate. Default: `"normal"` if `gate_posterior` is given.
        gate_posterior: Posterior family of the kernel of the gate, with `use_gate`. Default: None, a deterministic
            gate.
        seed: Integer seed of the layer's noise outside a `VariationalModel`, and of its dropout. Default: drawn from
            Keras' global seed.
        kl_weight: Weight of the KL, only for a plain `keras.Model`; see `VariationalLayer`. Default: None.

    Raises:
        ValueError: For a posterior of the gate without `use_gate`, or inputs whose shapes do not fit one another.

    Call arguments:
        query: Tensor of shape `(batch, positions, channels)`; more axes of positions with `attention_axes`.
        value: Tensor of the same rank. Default: the query, which is self-attention.
        key: Tensor of the same rank. Default: the value.
        attention_mask: Boolean tensor of shape `(batch, query positions, value positions)`. Default: none, besides the
            masks that Keras carries.
        return_attention_scores: Whether to return the scores too. Default: False.
        use_causal_mask: Whether a position sees only itself and those before. Default: False.

    Output shape: `(batch, positions, channels of the query)`, or `output_shape`; with `return_attention_scores` a pair
    of that and of scores `(batch, heads, query positions, value positions)`. All in the compute dtype; variational
    parameters and KL are float32 under any dtype policy.

    The noise is that of `DenseFlipout`.

    Example:
        >>> import numpy as np, tfp_bnn
        >>> layer = tfp_bnn.layers.MultiHeadAttentionFlipout(num_heads=2, key_dim=4, seed=0)
        >>> layer(np.ones((2, 7, 5), "float32"), training=True, use_causal_mask=True).shape
        TensorShape([2, 7, 5])
        >>> layer.query_posterior.event_shape
        TensorShape([5, 2, 4])

    References:
        Vaswani et al. 2017, Attention Is All You Need, https://arxiv.org/abs/1706.03762
        Wen et al. 2018, https://arxiv.org/abs/1803.04386
    """

    estimator = Flipout()
    bayesian_weights: ClassVar[Mapping[str, str]] = {
        f"{name}_kernel": name for name in ("query", "key", "value", "output", "gate")
    }
    optional_weights = frozenset({"gate_kernel"})

    def build(
        self,
        query_shape: Sequence[int | None],
        value_shape: Sequence[int | None] | None = None,
        key_shape: Sequence[int | None] | None = None,
    ) -> None:
        """Creates the weights of all projections.

        Args:
            query_shape: Shape of the queries.
            value_shape: Shape of the values. Default: that of the queries.
            key_shape: Shape of the keys. Default: that of the values.
        """
        value_shape = query_shape if value_shape is None else value_shape
        key_shape = value_shape if key_shape is None else key_shape
        self._check_shapes(query_shape, value_shape, key_shape)
        settings = attention_settings(self)
        of_heads, of_values = (self.num_heads, self.key_dim), (self.num_heads, self.value_dim)
        self._add_projection("query", (query_shape[-1],), of_heads)
        self._add_projection("key", (key_shape[-1],), of_heads)
        self._add_projection("value", (value_shape[-1],), of_values)
        self.gate_kernel = None
        if settings["use_gate"]:
            self._add_projection("gate", (query_shape[-1],), of_values)
        self._add_projection("output", of_values, settings["output_shape"] or (query_shape[-1],))
        prepare_attention(self, len(query_shape) + 1)

    def call(  # type: ignore[override]  # The names of `keras.layers.MultiHeadAttention`.
        self,
        query: tf.Tensor,
        value: tf.Tensor | None = None,
        key: tf.Tensor | None = None,
        query_mask: tf.Tensor | None = None,
        value_mask: tf.Tensor | None = None,
        key_mask: tf.Tensor | None = None,
        attention_mask: tf.Tensor | None = None,
        return_attention_scores: bool = False,
        training: bool | None = None,
        use_causal_mask: bool = False,
    ) -> tf.Tensor | tuple[tf.Tensor, tf.Tensor]:
        """Computes the outputs under one draw of the weights; see the class for the arguments.

        Args:
            query: Queries.
            value: Values.
            key: Keys.
            query_mask: Mask of the queries, which Keras fills in.
            value_mask: Mask of the values, which Keras fills in.
            key_mask: Mask of the keys, which Keras fills in.
            attention_mask: Mask of pairs of positions.
            return_attention_scores: Whether to return the scores too.
            training: If True, flipout. Otherwise one plain draw of the weights for the whole batch.
            use_causal_mask: Whether a position sees only itself and those before.
        """
        if query_mask is None:
            # Keras fills the argument in only if there are several tensors.
            query_mask = mask_of(query)
        if value is None:
            value, value_mask = query, query_mask
        key = value if key is None else key
        self._check_shapes(query.shape, value.shape, key.shape)
        noise = self._noise(bool(training))
        estimator = self.estimator if training else PLAIN_DRAW
        masks = {"query_mask": query_mask, "value_mask": value_mask, "key_mask": key_mask}
        mask = pair_mask(self, query, value, **masks, attention_mask=attention_mask, use_causal_mask=use_causal_mask)
        query, key, value = (tf.cast(x, self.compute_dtype) for x in (query, key, value))
        inputs = {"query": query, "key": key, "value": value}
        projected = tuple(self._project(estimator, name, inputs[name], noise) for name in inputs)
        of_heads, scores = attend(self, projected, mask, bool(training), return_attention_scores)
        if self.gate_kernel is not None:
            of_heads *= tf.sigmoid(self._project(estimator, "gate", query, noise))
        outputs = self._project(estimator, "output", of_heads, noise)
        self.add_kl_loss(noise)
        return (outputs, scores) if return_attention_scores else outputs

    def compute_output_shape(
        self,
        query_shape: Sequence[int | None],
        value_shape: Sequence[int | None] | None = None,
        key_shape: Sequence[int | None] | None = None,
    ) -> tuple[int | None, ...]:
        """Returns the shape of the outputs, without that of the scores."""
        return super().compute_output_shape(query_shape, query_shape if value_shape is None else value_shape, key_shape)

    def compute_output_spec(
        self, query: keras.KerasTensor, value: keras.KerasTensor | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Returns shape and dtype of the outputs, as `keras.KerasTensor`s."""
        return super().compute_output_spec(query, query if value is None else value, *args, **kwargs)

    def _add_projection(self, name: str, bound: Sequence[int | None], free: Sequence[int | None]) -> None:
        settings = attention_settings(self)
        for weight, shape in (("kernel", (*bound, *free)), ("bias", tuple(free))):
            variable = None
            if weight == "kernel" or self.use_bias:
                initializer = settings[f"{weight}_initializer"]
                # A copy for each projection, as in Keras: one object would start all of them with equal weights.
                copy = type(initializer).from_config(initializer.get_config())
                variable = self.add_weight(
                    name=f"{name}_{weight}",
                    shape=shape,
                    initializer=_of_matrix(copy, len(bound)) if weight == "kernel" else copy,
                    regularizer=settings[f"{weight}_regularizer"],
                    constraint=settings[f"{weight}_constraint"],
                )
            setattr(self, f"{name}_{weight}", variable)

    def _project(self, estimator: Estimator, name: str, inputs: tf.Tensor, noise: NoiseSource) -> tf.Tensor:
        value, bias = getattr(self, f"{name}_kernel"), getattr(self, f"{name}_bias")
        axes, num_bound = "abcdefghijklmnopqrstuvwxyz"[: len(value.shape)], 2 if name == "output" else 1
        operation = Einsum(f"...{axes[:num_bound]},{axes}->...{axes[num_bound:]}")
        kernel = self.variational_weights.get(f"{name}_kernel")
        if kernel is not None:
            return estimator(operation, inputs, kernel, bias, noise)
        outputs = operation(inputs, value)
        return outputs if bias is None else outputs + tf.cast(bias, outputs.dtype)

    def _check_shapes(self, query: Sequence[Any], value: Sequence[Any], key: Sequence[Any]) -> None:
        shapes = {"query": tuple(query), "value": tuple(value), "key": tuple(key)}
        fits = len({len(shape) for shape in shapes.values()}) == 1 and len(query) >= 3
        fits = fits and shapes["value"][1:-1] == shapes["key"][1:-1]
        if self.built:
            fits = fits and all(shape[-1] == getattr(self, f"{name}_kernel").shape[0] for name, shape in shapes.items())
        if not fits:
            raise ValueError(
                f"The inputs are incompatible with the layer {self.name!r}: expected query, value and key of shape "
                "(batch, positions, channels), value and key with the same positions, and channels as at the first "
                f"call, but got {', '.join(f'{name} {shape}' for name, shape in shapes.items())}."
            )

    def _absent_weights(self) -> dict[str, str]:
        return {} if attention_settings(self)["use_gate"] else {"gate_kernel": "use_gate=False"}


def _of_matrix(initializer: Any, num_bound: int) -> Any:
    """An initializer of a kernel that starts it like the matrix that it is, as Keras does."""

    def draw(shape: Sequence[int], dtype: Any = None) -> tf.Tensor:
        matrix = (math.prod(shape[:num_bound]), math.prod(shape[num_bound:]))
        return tf.reshape(initializer(matrix, dtype=dtype), shape)

    return draw

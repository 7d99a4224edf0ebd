"""A Bayesian dense layer whose weights differ between groups: partial pooling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfp_bnn.core.arguments import is_integer
from tfp_bnn.core.checks import require
from tfp_bnn.core.noise import NoiseSource
from tfp_bnn.layers.base import VariationalLayer
from tfp_bnn.layers.estimators import Estimator, Reparameterization, check_combination
from tfp_bnn.posteriors import POSTERIORS, Posterior
from tfp_bnn.priors import PRIORS, Normal, Prior

_INFERRED_SPREAD = Normal(hyperprior="half_normal")
_GROUP_WEIGHTS = ("group_kernel", "group_bias")
# A float holds the whole numbers from 0 to this one.
_WHOLE_TO = {"bfloat16": 2**8, "float16": 2**11, "float32": 2**24}


@keras.saving.register_keras_serializable(package="tfp_bnn")
class HierarchicalDenseReparameterization(VariationalLayer, keras.layers.Dense):
    """Densely-connected Bayesian layer with separate weights for each group around a shared mean.

    kernel ~ p(kernel);   group_kernel[g] ~ N(0, spread^2);   spread ~ p(spread), all inferred together
    outputs = activation(x @ (kernel + group_kernel[g]) + bias + group_bias[g]),   g the group of the example

    For many related data sets that are each too small for a network of their own (partial pooling). The spread of the
    groups around their mean is inferred. If it is small, all groups share one layer (complete pooling); if it is large,
    each group has its own (no pooling). Kernel and bias each have one spread for the whole layer. Every weight has a
    posterior, including the biases.

    The whole batch shares one draw of all weights, and each example uses the row of its group. Costs draws of
    `num_groups + 1` kernels, and memory for the smaller of `(batch, inputs, units)` and `(batch, num_groups, units)`.
    The gradient noise does not decrease with the batch size.

    `kl()` is KL(q || prior) in nats, summed over the weights of the mean and of all groups and over the two spreads,
    and not scaled. A `VariationalModel` divides it by N, the number of examples of all groups.

    Args:
        units: Positive integer, the dimension of the outputs.
        num_groups: Positive integer, the number of groups, numbered 0 to `num_groups - 1`.
        activation: As in `keras.layers.Dense`. Default: none.
        use_bias: Whether the layer has a bias. Default: True.
        kernel_prior: Prior of the mean kernel. Default: `"normal"`, N(0, 1).
        kernel_posterior: Posterior family of the mean kernel. Default: `"mean_field_normal"`.
        bias_prior: Prior of the mean bias. Not with `use_bias=False`. Default: None, `"normal"`.
        bias_posterior: Posterior family of the mean bias; `"delta"` for a bias without uncertainty. Not with
            `use_bias=False`. Default: None, `"mean_field_normal"`.
        group_prior: Prior of `group_kernel` and `group_bias`: a name, a config or an object of `tfp_bnn.priors`. Its
            scale is the spread. Default: normal, with the hyperprior HalfNormal(1) on the spread.
        group_posterior: Posterior family of both: a name, config or object of `tfp_bnn.posteriors`. Its means start at
            0, which is complete pooling. Default: `"mean_field_normal"`.
        seed: Integer seed of the layer's noise outside a `VariationalModel`. Default: drawn from Keras' global seed.
        kl_weight: Weight of the KL, only for a plain `keras.Model`; see `VariationalLayer`. Default: None.
        **kwargs: Initializers, regularizers and constraints of the mean kernel and the mean bias, as in
            `keras.layers.Dense`.

    Raises:
        ValueError: For `num_groups` below 1, for a prior or posterior of a bias that is left out, for inputs of a
            different shape, and for group ids in a floating-point type that cannot represent all of them: half
            precision does so up to 256 (bfloat16) or 2,048 (float16). On call, for a group id that is not a whole
            number from 0 to `num_groups - 1`. Inside a compiled function the last is an `InvalidArgumentError` with the
            same text, which `fit` and `evaluate` turn into a ValueError, under XLA as well. Other calls that XLA
            compiles cannot raise an error: their outputs are NaN.
        TypeError: For a combination of posterior and prior that does not exist.

    Input shape: `[x, group_id]`, x of shape `(batch, inputs)`, group ids of shape `(batch,)` or `(batch, 1)`, integers
    or whole floats.
    Output shape: `(batch, units)`, in the compute dtype; variational parameters, the draw and KL are float32 under any
    dtype policy.

    Noise is counter-based. In a `VariationalModel` it comes from the model's seed, step and layer; elsewhere from two
    counters of the layer, one for training and one for evaluation, which are saved with it.

    Example:
        >>> import numpy as np, tfp_bnn
        >>> layer = tfp_bnn.layers.HierarchicalDenseReparameterization(3, num_groups=18, activation="relu", seed=0)
        >>> layer([np.ones((2, 5), "float32"), np.array([0, 17])]).shape
        TensorShape([2, 3])
        >>> layer.group_kernel_posterior.event_shape
        TensorShape([18, 5, 3])
        >>> sorted(layer.kl_terms())
        ['prior/group_bias', 'prior/group_kernel', 'weights']

    References:
        Gelman and Hill 2007, Data Analysis Using Regression and Multilevel/Hierarchical Models
        Joshi et al. 2017, Personalizing Gesture Recognition Using Hierarchical Bayesian Neural Networks, CVPR
        Wiecki 2018, Hierarchical Bayesian Neural Networks with Informative Priors,
        https://twiecki.io/blog/2018/08/13/hierarchical_bayesian_neural_network/
    """

    estimator = Reparameterization()
    bayesian_weights = {name: name for name in ("kernel", "bias", *_GROUP_WEIGHTS)}  # noqa: RUF012
    optional_weights = frozenset()

    def __init__(
        self,
        units: int,
        num_groups: int,
        activation: Any = None,
        use_bias: bool = True,
        *,
        kernel_prior: str | Mapping[str, Any] | Prior = "normal",
        kernel_posterior: str | Mapping[str, Any] | Posterior = "mean_field_normal",
        bias_prior: str | Mapping[str, Any] | Prior | None = None,
        bias_posterior: str | Mapping[str, Any] | Posterior | None = None,
        group_prior: str | Mapping[str, Any] | Prior = _INFERRED_SPREAD,
        group_posterior: str | Mapping[str, Any] | Posterior = "mean_field_normal",
        seed: int | None = None,
        kl_weight: float | None = None,
        **kwargs: Any,
    ) -> None:
        if not is_integer(num_groups) or num_groups < 1:
            raise ValueError(f"`num_groups` must be an integer >= 1, but got {num_groups!r}.")
        for role, value in (("posterior", bias_posterior), ("prior", bias_prior)):
            if value is not None and not use_bias:
                raise ValueError(f"Got bias_{role}={value!r} with use_bias=False. Remove one of them.")
        of_groups = POSTERIORS.get(group_posterior), PRIORS.get(group_prior)
        check_combination(self.estimator, "group", *of_groups)
        for name in _GROUP_WEIGHTS:
            kwargs[f"{name}_posterior"], kwargs[f"{name}_prior"] = of_groups
        super().__init__(
            units,
            activation=activation,
            use_bias=use_bias,
            kernel_prior=kernel_prior,
            kernel_posterior=kernel_posterior,
            bias_prior="normal" if bias_prior is None else bias_prior,
            bias_posterior="mean_field_normal" if bias_posterior is None else bias_posterior,
            seed=seed,
            kl_weight=kl_weight,
            **kwargs,
        )
        self.num_groups = int(num_groups)
        # Keras would cast the group ids too, and half precision does not hold large ones.
        self.autocast = False
        self.input_spec = _input_spec(None)

    def build(self, input_shape: Sequence[Sequence[int | None]]) -> None:
        """Creates the weights of the mean and of all groups.

        Args:
            input_shape: Shapes of x and of the group ids.
        """
        of_inputs, _ = self._checked(input_shape)
        super().build(of_inputs)
        self.group_kernel = self.add_weight(
            name="group_kernel", shape=(self.num_groups, of_inputs[-1], self.units), initializer="zeros"
        )
        self.group_bias = None
        if self.use_bias:
            self.group_bias = self.add_weight(
                name="group_bias", shape=(self.num_groups, self.units), initializer="zeros"
            )
        self.input_spec = _input_spec(of_inputs[-1])

    def compute_output_shape(self, input_shape: Sequence[Sequence[int | None]]) -> tuple[int | None, int]:
        """Returns the shape of the outputs, `(batch, units)`."""
        of_inputs, _ = self._checked(input_shape)
        return (of_inputs[0], self.units)

    def transform(self, estimator: Estimator, inputs: Sequence[tf.Tensor], noise: NoiseSource) -> tf.Tensor:
        """Computes the outputs before the activation, under one draw of the weights of all groups."""
        x, group_id = inputs
        self._checked([x.shape, group_id.shape])
        groups, known = self._groups(group_id)
        x = tf.cast(x, self.compute_dtype)
        weights = {name: weight.sample(noise) for name, weight in self.variational_weights.items()}
        outputs = _product_by_group(x, tf.cast(weights["kernel"] + weights["group_kernel"], x.dtype), groups)
        if self.use_bias:
            outputs += tf.cast(tf.gather(weights["bias"] + weights["group_bias"], groups), x.dtype)
        return tf.where(known[:, tf.newaxis], outputs, tf.constant(float("nan"), outputs.dtype))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        config = {**super().get_config(), "num_groups": self.num_groups}
        for role in ("prior", "posterior"):
            of_weights = [config.pop(f"{name}_{role}") for name in _GROUP_WEIGHTS]
            config[f"group_{role}"] = of_weights[0]
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> HierarchicalDenseReparameterization:
        """Creates the layer from the output of `get_config`."""
        if not config.get("use_bias", True):
            # Older files have distributions of a bias that is not there.
            config = {**config, "bias_prior": None, "bias_posterior": None}
        return super().from_config(config)

    def _absent_weights(self) -> dict[str, str]:
        return {} if self.use_bias else dict.fromkeys(("bias", "group_bias"), "use_bias=False")

    def _checked(self, input_shape: Sequence[Any]) -> Sequence[Sequence[int | None]]:
        shapes = [tuple(shape) for shape in input_shape if isinstance(shape, Sequence | tf.TensorShape)]
        if len(shapes) == len(input_shape) == 2:
            (rows, *of_inputs), (ids, *rest) = shapes
            if len(of_inputs) == 1 and rest in ([], [1]) and (rows == ids or None in (rows, ids)):
                return shapes
        raise ValueError(
            f"The layer {self.name!r} takes [x, group_id], x of shape (batch, inputs) and group ids of shape (batch,) "
            f"or (batch, 1), but got inputs of shape {input_shape}."
        )

    def _groups(self, group_id: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the group of each example, 0 for unknown ones, and whether it is known."""
        dtype = group_id.dtype
        if not (dtype.is_integer or dtype.is_floating):
            raise ValueError(f"Group ids must be whole numbers, but the layer {self.name!r} got {dtype.name}.")
        if self.num_groups > _WHOLE_TO.get(dtype.name, self.num_groups):
            raise ValueError(
                f"The layer {self.name!r} got group ids in {dtype.name}, which represents whole numbers only up to "
                f"{_WHOLE_TO[dtype.name]}, but it has num_groups={self.num_groups}. Pass integers, or work in "
                "float32."
            )
        ids = tf.reshape(group_id, [-1])
        if ids.dtype.is_integer:
            ids = tf.cast(ids, tf.int64)
        known = (ids >= 0) & (ids < tf.cast(self.num_groups, ids.dtype)) & (tf.math.floormod(ids, 1) == 0)
        with tf.control_dependencies(self._require_known(ids, known)):
            return tf.cast(tf.where(known, ids, tf.zeros_like(ids)), tf.int32), known

    def _require_known(self, ids: tf.Tensor, known: tf.Tensor) -> list[Any]:
        """Refuses unknown groups. Returns the operations to depend on."""
        # If all are known, it is the padding.
        unknown = tf.gather(tf.pad(ids, [[0, 1]]), tf.argmin(tf.pad(tf.cast(known, tf.int32), [[0, 1]])))
        return require(
            tf.reduce_all(known),
            "The group id",
            unknown,
            f"is unknown to the layer {self.name}, which has num_groups={self.num_groups} groups, 0 to "
            f"{self.num_groups - 1}. A new group needs its own weights: raise num_groups, and train with its data.",
        )


def _input_spec(width: int | None) -> list[keras.InputSpec]:
    return [keras.InputSpec(ndim=2, axes={-1: width}), keras.InputSpec(min_ndim=1, max_ndim=2)]


def _product_by_group(x: tf.Tensor, kernels: tf.Tensor, groups: tf.Tensor) -> tf.Tensor:
    """Computes `x[n] @ kernels[groups[n]]` for all n through the smaller of two intermediate results."""
    num_groups, num_inputs, _ = kernels.shape
    if num_groups < num_inputs:
        return tf.gather(tf.einsum("ni,giu->ngu", x, kernels), groups, axis=1, batch_dims=1)
    return tf.einsum("ni,niu->nu", x, tf.gather(kernels, groups))

"""The shared base of all Bayesian layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.arguments import is_number
from tfp_bnn.layers.estimators import Estimator, Reparameterization
from tfp_bnn.layers.noise import NoiseSource, NoiseStreams, layer_key, scoped_noise
from tfp_bnn.layers.operations import LinearOperation
from tfp_bnn.layers.variational_weight import VariationalWeight
from tfp_bnn.posteriors import POSTERIORS, Posterior
from tfp_bnn.priors import PRIORS, Prior

_PLAIN_DRAW = Reparameterization()


class VariationalLayer(keras.layers.Layer):
    """Turns its Keras twin into a Bayesian layer. Abstract.

    Mixed in before the twin, as in `class DenseFlipout(VariationalLayer, keras.layers.Dense)`. The twin keeps its
    constructor, its checks, its `build` and its shapes. A weight that the twin adds and that has a posterior becomes a
    `VariationalWeight`; `call` hands the inputs and the distributions to the estimator. In training the estimator is
    the class's own; otherwise one plain draw of the weights serves the whole batch, because flipout's signs are a means
    of training.

    Args:
        kernel_prior: prior of the kernel: a name, a config or an object of `tfp_bnn.priors`.
        kernel_posterior: posterior family of the kernel: a name, a config or an object of `tfp_bnn.posteriors`.
        bias_prior: prior of the bias; needs `bias_posterior`, and is `"normal"` by default then.
        bias_posterior: posterior family of the bias. None, the default as in `tfp.layers`, is a deterministic bias.
        seed: an integer for reproducible noise outside of a `VariationalModel`, which brings its own; None draws one
            from Keras' global seed.
        kl_weight: for use in a plain `keras.Model` only: the layer adds `kl_weight * kl` to the losses, so that 1 / N
            makes an ELBO. None in a `VariationalModel`, which does the scaling itself and refuses any other value.

    Raises:
        ValueError: for an unknown name, a value out of range, or `lora_rank`.
        TypeError: for a combination of estimator and posterior that does not exist.
    """

    estimator: ClassVar[Estimator]

    def __init__(
        self,
        *args: Any,
        kernel_prior: str | Mapping[str, Any] | Prior = "normal",
        kernel_posterior: str | Mapping[str, Any] | Posterior = "mean_field_normal",
        bias_prior: str | Mapping[str, Any] | Prior | None = None,
        bias_posterior: str | Mapping[str, Any] | Posterior | None = None,
        seed: int | None = None,
        kl_weight: float | None = None,
        **kwargs: Any,
    ) -> None:
        for name in ("lora_rank", "lora_alpha", "quantization_config"):
            if kwargs.get(name) is not None:
                raise ValueError(f"{type(self).__name__} does not support `{name}`: its kernel is a distribution.")
        if bias_posterior is not None and kwargs.get("use_bias") is False:
            raise ValueError(f"Got bias_posterior={bias_posterior!r} with use_bias=False. Remove one of them.")
        if bias_prior is not None and bias_posterior is None:
            raise ValueError(
                f"Got bias_prior={bias_prior!r} without a `bias_posterior`, so that the bias would be deterministic "
                "and the prior without effect. Pass bias_posterior='mean_field_normal' for a Bayesian bias."
            )
        if kl_weight is not None and not (is_number(kl_weight) and 0 <= kl_weight < float("inf")):
            raise ValueError(
                f"`kl_weight` must be None or a finite number >= 0, but got {kl_weight!r}. For an ELBO per example it "
                "is 1 / N."
            )
        noise_streams = NoiseStreams(seed)
        specs = {"kernel": (POSTERIORS.get(kernel_posterior), PRIORS.get(kernel_prior))}
        if bias_posterior is not None:
            specs["bias"] = (POSTERIORS.get(bias_posterior), PRIORS.get("normal" if bias_prior is None else bias_prior))
        for posterior, _ in specs.values():
            self.estimator.check(posterior)
        super().__init__(*args, **kwargs)
        self.seed = None if seed is None else int(seed)
        self.kl_weight = None if kl_weight is None else float(kl_weight)
        self._specs = specs
        self._noise_streams = noise_streams
        self._variational_weights: dict[str, VariationalWeight] = {}

    @property
    def operation(self) -> LinearOperation:
        """The layer's linear operation."""
        raise NotImplementedError

    def add_weight(self, *args: Any, name: str | None = None, **kwargs: Any) -> keras.Variable:
        """As in Keras; a weight that has a posterior gets float32 variational parameters under any dtype policy.

        Returns:
            The variable, which for a Bayesian weight is its posterior mean.
        """
        if name not in self._specs:
            return super().add_weight(*args, name=name, **kwargs)
        # Autocasting would read the parameters in bfloat16 within `call`.
        float32 = {"dtype": "float32", "autocast": False}
        loc = super().add_weight(*args, name=f"{name}_loc", **{**kwargs, **float32})
        posterior, prior = self._specs[name]

        def add(**more: Any) -> keras.Variable:
            return super(VariationalLayer, self).add_weight(**more, **float32)

        self._variational_weights[name] = VariationalWeight(name, loc, posterior, prior, add)
        return loc

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """The outputs under one draw of the weights.

        Args:
            inputs: as the Keras twin takes them.
            training: True: the layer's estimator. Otherwise: one plain draw of the weights for the whole batch.

        Returns:
            As the Keras twin, in the compute dtype.
        """
        noise = self._noise(bool(training))
        bias = self._variational_weights.get("bias", self.bias)
        estimator = self.estimator if training else _PLAIN_DRAW
        outputs = estimator(self.operation, inputs, self._variational_weights["kernel"], bias, noise)
        if self.kl_weight is not None:
            self.add_loss(self.kl_weight * self._kl(noise))
        return outputs if self.activation is None else self.activation(outputs)

    def kl(self) -> tf.Tensor:
        """KL(posterior || prior) of all Bayesian weights of the layer, in nats, summed, not scaled; float32 scalar.

        In closed form where TFP registers one. Else a one-draw Monte Carlo estimate: within a training step of a
        `VariationalModel` with the very draw of the step, otherwise with a fresh one.

        Raises:
            ValueError: before the layer is built.
        """
        self._require_built("kl")
        return self._kl(self._noise(training=False))

    @property
    def variational_weights(self) -> Mapping[str, VariationalWeight]:
        """The Bayesian weights by name (`"kernel"`, `"bias"`); empty before the layer is built."""
        return MappingProxyType(self._variational_weights)

    @property
    def kernel_posterior(self) -> tfd.Distribution:
        """The posterior of the kernel, a `tfp.distributions` object. ValueError before `build`."""
        return self._weight("kernel", "kernel_posterior").posterior

    @property
    def kernel_prior(self) -> tfd.Distribution:
        """The prior of the kernel, a `tfp.distributions` object. ValueError before `build`."""
        return self._weight("kernel", "kernel_prior").prior

    @property
    def bias_posterior(self) -> tfd.Distribution | None:
        """The posterior of the bias, or None when the bias is deterministic or absent. ValueError before `build`."""
        self._require_built("bias_posterior")
        return self._variational_weights["bias"].posterior if "bias" in self._variational_weights else None

    @property
    def bias_prior(self) -> tfd.Distribution | None:
        """The prior of the bias, or None when the bias is deterministic or absent. ValueError before `build`."""
        self._require_built("bias_prior")
        return self._variational_weights["bias"].prior if "bias" in self._variational_weights else None

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor; the specs of priors and posteriors as given, no tensors."""
        serialize = keras.saving.serialize_keras_object
        bias_posterior, bias_prior = self._specs.get("bias", (None, None))
        return {
            **super().get_config(),
            "kernel_posterior": serialize(self._specs["kernel"][0]),
            "kernel_prior": serialize(self._specs["kernel"][1]),
            "bias_posterior": serialize(bias_posterior),
            "bias_prior": serialize(bias_prior),
            "seed": self.seed,
            "kl_weight": self.kl_weight,
        }

    # The twins write only the weights they know of; ours has more, and the state of its noise.
    def save_own_variables(self, store: Any) -> None:
        """Writes all variables of the layer and the state of its noise."""
        keras.layers.Layer.save_own_variables(self, store)
        self._noise_streams.save(store)

    def load_own_variables(self, store: Any) -> None:
        """Reads what `save_own_variables` wrote."""
        self._noise_streams.load(store)
        keras.layers.Layer.load_own_variables(
            self, {key: store[key] for key in store.keys() if key not in NoiseStreams.keys}
        )

    def enable_lora(self, *args: Any, **kwargs: Any) -> None:
        """Not supported: raises NotImplementedError."""
        raise NotImplementedError(f"{type(self).__name__} takes no LoRA weights: its kernel is a distribution.")

    def quantize(self, *args: Any, **kwargs: Any) -> None:
        """Not supported: raises NotImplementedError."""
        raise NotImplementedError(f"{type(self).__name__} cannot be quantized: its kernel is a distribution.")

    def _kl(self, noise: NoiseSource) -> tf.Tensor:
        return tf.add_n([weight.kl(noise) for weight in self._variational_weights.values()])

    def _noise(self, training: bool) -> NoiseSource:
        noise = scoped_noise(self)
        return self._noise_streams.next(training).fold_in(layer_key(self)) if noise is None else noise

    def _weight(self, weight: str, attribute: str) -> VariationalWeight:
        self._require_built(attribute)
        return self._variational_weights[weight]

    def _require_built(self, attribute: str) -> None:
        if not self._variational_weights:
            raise ValueError(
                f"`{attribute}` of the layer {self.name!r} exists once the layer is built. Call the layer, or "
                "`build(input_shape)`, first."
            )


def sublayers(layer: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    """All layers within a layer or model, nested ones included, depth first, in their own order, each once."""
    seen: set[int] = set()
    waiting = list(reversed(layer._layers))
    while waiting:
        found = waiting.pop()
        if id(found) not in seen:
            seen.add(id(found))
            yield found
            waiting.extend(reversed(found._layers))

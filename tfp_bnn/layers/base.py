"""Base class of all Bayesian layers."""

from __future__ import annotations

import inspect
import warnings
import weakref
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.core.arguments import is_number
from tfp_bnn.core.library_state import model_in_call, outermost_call
from tfp_bnn.core.noise import NoiseSource, in_noise_scope
from tfp_bnn.layers.estimators import PLAIN_DRAW, Estimator, check_combination
from tfp_bnn.layers.operations import LinearOperation
from tfp_bnn.layers.stochastic import StochasticLayer
from tfp_bnn.layers.variational_weight import VariationalWeight
from tfp_bnn.posteriors import POSTERIORS, Posterior
from tfp_bnn.priors import PRIORS, Prior

# The models that were warned of.
_warned: weakref.WeakSet[keras.Model] = weakref.WeakSet()
_NOT_FOR_DISTRIBUTIONS = ("lora_rank", "lora_alpha", "quantization_config")


class VariationalLayer(StochasticLayer):
    """Base class that turns a Keras layer, its twin, into a Bayesian layer. Abstract.

    It is mixed in before the twin, as in `class DenseFlipout(VariationalLayer, keras.layers.Dense)`. The twin keeps its
    constructor, its checks, its `build` and its shapes. A weight that the twin adds becomes a `VariationalWeight` if it
    has a posterior, and `call` passes the inputs and the distributions to the estimator. Training uses the estimator of
    the class. Otherwise the whole batch shares one plain draw of the weights, because the signs of flipout only serve
    training.

    The class attribute `bayesian_weights` maps the name of each Bayesian weight to the prefix of its arguments and
    properties. For `{"kernel": "kernel", "bias": "bias"}` the arguments are:

    Args:
        kernel_prior: Prior of the kernel: a name, config or object of `tfp_bnn.priors`.
        kernel_posterior: Posterior family of the kernel: a name, config or object of `tfp_bnn.posteriors`.
        bias_prior: Prior of the bias. Requires `bias_posterior`; the default is then `"normal"`.
        bias_posterior: Posterior family of the bias. Default: None, a deterministic bias, as in `tfp.layers`.
        seed: Integer seed of the layer's noise outside a `VariationalModel`, which provides its own. Default: None,
            drawn from Keras' global seed.
        kl_weight: Weight of the KL, only for a plain `keras.Model`: the layer adds `kl_weight * kl` to the losses, and
            1 / N gives the ELBO per example. Without it, a plain model that is trained warns once. Must be None, the
            default, in a `VariationalModel`, which scales the KL itself.

    Raises:
        ValueError: For an unknown name, a value out of range, or `lora_rank`.
        TypeError: For a combination of estimator, posterior and prior that does not exist.
    """

    estimator: Estimator
    bayesian_weights: ClassVar[Mapping[str, str]] = {"kernel": "kernel", "bias": "bias"}
    optional_weights: ClassVar[frozenset[str]] = frozenset({"bias"})
    """Weights that are deterministic unless they are given a posterior."""
    own_arguments: ClassVar[Mapping[str, Any]] = {"seed": None, "kl_weight": None}
    """Arguments, with their defaults, that the Keras twin does not have, besides priors and posteriors."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for weight, prefix in cls.bayesian_weights.items():
            for role in ("posterior", "prior"):
                if not hasattr(cls, f"{prefix}_{role}"):
                    setattr(cls, f"{prefix}_{role}", _distribution_property(weight, prefix, role))
        if "__init__" not in vars(cls):
            _give_signature(cls)

    def __init__(self, *args: Any, kl_weight: float | None = None, **kwargs: Any) -> None:
        for name in _NOT_FOR_DISTRIBUTIONS:
            if kwargs.get(name) is not None:
                raise ValueError(f"{type(self).__name__} does not support `{name}`: its kernel is a distribution.")
        specs = {}
        for weight, prefix in self.bayesian_weights.items():
            optional = weight in self.optional_weights
            posterior = kwargs.pop(f"{prefix}_posterior", None if optional else "mean_field_normal")
            prior = kwargs.pop(f"{prefix}_prior", None if optional else "normal")
            if optional and posterior is None:
                if prior is not None:
                    raise ValueError(
                        f"Got {prefix}_prior={prior!r} without a `{prefix}_posterior`: the {prefix} would be "
                        "deterministic and the prior would have no effect. Pass "
                        f"{prefix}_posterior='mean_field_normal' for a Bayesian {prefix}."
                    )
                continue
            specs[weight] = (POSTERIORS.get(posterior), PRIORS.get("normal" if optional and prior is None else prior))
            check_combination(self.estimator, prefix, *specs[weight])
        if kl_weight is not None and not (is_number(kl_weight) and 0 <= kl_weight < float("inf")):
            raise ValueError(
                f"`kl_weight` must be None or a finite number >= 0, but got {kl_weight!r}. For an ELBO per example it "
                "is 1 / N."
            )
        super().__init__(*args, **kwargs)
        for weight, reason in self._absent_weights().items():
            posterior, _ = specs.pop(weight, (None, None))
            if posterior is not None and weight in self.optional_weights:
                prefix = self.bayesian_weights[weight]
                raise ValueError(f"Got {prefix}_posterior={posterior!r} with {reason}. Remove one of them.")
        self.kl_weight = None if kl_weight is None else float(kl_weight)
        self._specs = specs
        self._call_with_kl: Callable[[], Any] = lambda: None
        self._variational_weights: dict[str, VariationalWeight] = {}

    @property
    def operation(self) -> LinearOperation:
        """The layer's linear operation."""
        raise NotImplementedError

    def add_weight(self, *args: Any, name: str | None = None, **kwargs: Any) -> keras.Variable:
        """Adds a weight, as in Keras. With a posterior, its variational parameters are float32 under any dtype policy.

        Returns:
            The variable; for a Bayesian weight, that of its posterior mean.
        """
        if name not in self._specs:
            return super().add_weight(*args, name=name, **kwargs)
        # Autocasting would read the parameters in bfloat16 within `call`.
        float32 = {"dtype": "float32", "autocast": False}
        posterior, prior = self._specs[name]
        trainable = kwargs.pop("trainable", True) and posterior.trains_loc
        loc = super().add_weight(*args, name=f"{name}_loc", trainable=trainable, **{**kwargs, **float32})

        def add(**more: Any) -> keras.Variable:
            return super(VariationalLayer, self).add_weight(**more, **float32)

        self._variational_weights[name] = VariationalWeight(name, loc, posterior, prior, add)
        return loc

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Computes the outputs under one draw of the weights.

        Args:
            inputs: Inputs as in the Keras twin.
            training: If True, uses the estimator of the layer. Otherwise one plain draw of the weights for the whole
                batch.

        Returns:
            Outputs as in the Keras twin, in the compute dtype.
        """
        noise = self._noise(bool(training))
        if self.autocast and not keras.backend.is_float_dtype(keras.backend.standardize_dtype(inputs.dtype)):
            inputs = tf.cast(inputs, self.compute_dtype)
        outputs = self.transform(self.estimator if training else PLAIN_DRAW, inputs, noise)
        self.add_kl_loss(noise)
        activation = getattr(self, "activation", None)
        return outputs if activation is None else activation(outputs)

    def transform(self, estimator: Estimator, inputs: tf.Tensor, noise: NoiseSource) -> tf.Tensor:
        """Computes the outputs before the activation. By default one operation with a kernel and a bias.

        Args:
            estimator: Estimator that draws the weights.
            inputs: Inputs as in the Keras twin.
            noise: Source of the noise of the draw.
        """
        bias = self._variational_weights.get("bias", self.bias)
        return estimator(self.operation, inputs, self._variational_weights["kernel"], bias, noise)

    def add_kl_loss(self, noise: NoiseSource) -> None:
        """Adds `kl_weight * kl` to the losses if there is a `kl_weight`; for use in `call`.

        Once per call of a model, however often the model uses the layer, as at each step of `TimeDistributed`.
        """
        call = outermost_call()
        if self.kl_weight is None or (call is not None and self._call_with_kl() is call):
            return
        self._call_with_kl = (lambda: None) if call is None else weakref.ref(call)
        self.add_loss(self.kl_weight * self._kl(noise))

    def kl(self) -> tf.Tensor:
        """KL(posterior || prior) of the layer in nats, summed over its Bayesian weights and not scaled; float32 scalar.

        In closed form if TFP registers one, otherwise a Monte Carlo estimate with one draw. Within a training step of a
        `VariationalModel` this is the draw of the step, otherwise a fresh one. Prior scales inferred for this layer
        alone are included, as KL(q(s) || p(s)); shared ones belong to the model.

        Raises:
            ValueError: If the layer is not built.
        """
        self._require_built("kl")
        return self._kl(self._noise(training=False))

    def kl_terms(self) -> dict[str, tf.Tensor]:
        """The parts of `kl`: `"weights"`, and `"prior/<weight>"` for each prior scale inferred for one weight alone."""
        self._require_built("kl_terms")
        return self._kl_terms(self._noise(training=False))

    def log_ratio(self) -> tf.Tensor:
        """The log-ratio log q(w) - log p(w) of the draw of a training step, in nats; float32 scalar.

        Summed over the weights. For posteriors that are independent per weight, and prior scales that are not inferred.
        """
        noise = self._noise(training=False)
        return tf.add_n([weight.log_ratio(noise) for weight in self._variational_weights.values()])

    @property
    def variational_weights(self) -> Mapping[str, VariationalWeight]:
        """The Bayesian weights by name (`"kernel"`, `"bias"`); empty before the layer is built."""
        return MappingProxyType(self._variational_weights)

    @property
    def distribution_specs(self) -> Mapping[str, tuple[Posterior, Prior]]:
        """Posterior and prior of each Bayesian weight as given, by its name; available before `build` too."""
        return MappingProxyType(self._specs)

    @property
    def is_random(self) -> bool:
        """Whether a weight has a posterior with a spread."""
        return any(posterior.has_spread for posterior, _ in self._specs.values())

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, with priors and posteriors as given and without tensors."""
        config = {**super().get_config(), "kl_weight": self.kl_weight}
        for weight, prefix in self.bayesian_weights.items():
            posterior, prior = self._specs.get(weight, (None, None))
            config[f"{prefix}_posterior"] = keras.saving.serialize_keras_object(posterior)
            config[f"{prefix}_prior"] = keras.saving.serialize_keras_object(prior)
        return config

    def enable_lora(self, *args: Any, **kwargs: Any) -> None:
        """Not supported: raises NotImplementedError."""
        raise NotImplementedError(f"{type(self).__name__} does not support LoRA: its kernel is a distribution.")

    def quantize(self, *args: Any, **kwargs: Any) -> None:
        """Not supported: raises NotImplementedError."""
        raise NotImplementedError(f"{type(self).__name__} cannot be quantized: its kernel is a distribution.")

    def _noise(self, training: bool) -> NoiseSource:
        if training and self.kl_weight is None and not in_noise_scope():
            _warn_of_training_without_kl(self)
        return super()._noise(training)

    def _absent_weights(self) -> dict[str, str]:
        """The weights that the layer does not have, each with the argument that leaves it out."""
        return {} if getattr(self, "use_bias", True) else {"bias": "use_bias=False"}

    def _kl(self, noise: NoiseSource) -> tf.Tensor:
        return tf.add_n([*self._kl_terms(noise).values()])

    def _kl_terms(self, noise: NoiseSource) -> dict[str, tf.Tensor]:
        weights = self._variational_weights
        terms = {"weights": tf.add_n([weight.kl(noise) for weight in weights.values()])}
        hyper = {f"prior/{name}": weight.hyper_kl(noise) for name, weight in weights.items()}
        return {**terms, **{name: kl for name, kl in hyper.items() if kl is not None}}

    def _require_built(self, attribute: str) -> None:
        if not self._variational_weights:
            raise ValueError(
                f"`{attribute}` of the layer {self.name!r} exists only once the layer is built. Call the layer, or "
                "`build(input_shape)`, first."
            )


def _warn_of_training_without_kl(layer: VariationalLayer) -> None:
    """Warns, once per model, when a compiled model that opens no `noise_scope` trains a layer without its KL."""
    model = model_in_call()
    if model is None or not model.compiled or model in _warned:
        return
    _warned.add(model)
    warnings.warn(
        f"The model {model.name!r} ({type(model).__name__}) trains the Bayesian layer {layer.name!r} without its KL: "
        "the prior has no effect, and the posterior shrinks to a point. Use a VariationalModel or a "
        "VariationalSequential, or pass kl_weight=1 / N to each Bayesian layer, N the number of training examples. If "
        "your own training step adds the KL, pass kl_weight=0.",
        stacklevel=2,
    )


def _distribution_property(weight: str, prefix: str, role: str) -> property:
    def get(self: VariationalLayer) -> tfd.Distribution | None:
        self._require_built(f"{prefix}_{role}")
        found = self._variational_weights.get(weight)
        return None if found is None else getattr(found, role)

    get.__doc__ = (
        f"The {role} of the {prefix}, a `tfp.distributions` object created at each access; None if the {prefix} is "
        "deterministic or absent. ValueError before `build`."
    )
    return property(get)


def _give_signature(cls: type[VariationalLayer]) -> None:
    """Shows the arguments of the Keras twin and ours in `help` and editors without repeating them in each class."""
    twin = next(
        base for base in cls.__mro__ if issubclass(base, keras.layers.Layer) and not issubclass(base, StochasticLayer)
    )
    of_twin = inspect.signature(twin.__init__).parameters.values()
    own: dict[str, Any] = {}
    for weight, prefix in cls.bayesian_weights.items():
        optional = weight in cls.optional_weights
        own[f"{prefix}_prior"] = None if optional else "normal"
        own[f"{prefix}_posterior"] = None if optional else "mean_field_normal"
    own |= cls.own_arguments
    left_out = ("lora", "quantization", "gptq", *own)
    parameters = [p for p in of_twin if not p.name.startswith(left_out) and p.kind is not p.VAR_KEYWORD]
    parameters += [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=own[name]) for name in own]
    parameters.append(inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD))

    def __init__(self: VariationalLayer, *args: Any, **kwargs: Any) -> None:
        super(cls, self).__init__(*args, **kwargs)

    __init__.__qualname__ = f"{cls.__qualname__}.__init__"
    __init__.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    cls.__init__ = __init__  # type: ignore[method-assign]

"""From a `tf_keras` model of `tfp.layers` to ours, with the same distributions.

Nothing of `tf_keras` (Keras 2) is imported: the user's model brings it, and its classes are known by module and name.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfp_bnn.layers
from tfp_bnn.likelihoods import Likelihood
from tfp_bnn.models.functional import VariationalModel
from tfp_bnn.transfer.output_activation import find_output_activation
from tfp_bnn.transfer.tf_keras_graph import calls_in_order, has_callable_losses, is_graph, name_of_input
from tfp_bnn.transfer.tfp_weights import read_weight
from tfp_bnn.variational.schedules import Schedule

# As classes: the public names Convolution1DFlipout and so on are aliases of these, here and in TFP.
_TFP_LAYERS = (
    *(f"Dense{estimator}" for estimator in ("Flipout", "Reparameterization", "LocalReparameterization")),
    *(f"Conv{rank}D{estimator}" for rank in (1, 2, 3) for estimator in ("Flipout", "Reparameterization")),
)
# Those that mean the same in tf_keras and in Keras 3, with the same weights in the same order.
_KERAS_LAYERS = frozenset(
    "Activation Add Average AveragePooling1D AveragePooling2D AveragePooling3D BatchNormalization Concatenate Conv1D "
    "Conv1DTranspose Conv2D Conv2DTranspose Conv3D Conv3DTranspose Cropping1D Cropping2D Cropping3D Dense "
    "DepthwiseConv2D Dropout ELU Embedding Flatten GRU GaussianDropout GaussianNoise GlobalAveragePooling1D "
    "GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D LSTM "
    "LayerNormalization LeakyReLU MaxPooling1D MaxPooling2D MaxPooling3D Maximum Minimum Multiply Normalization PReLU "
    "Permute ReLU RepeatVector Rescaling Reshape SeparableConv1D SeparableConv2D SimpleRNN Softmax SpatialDropout1D "
    "SpatialDropout2D SpatialDropout3D Subtract UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D "
    "ZeroPadding3D".split()
)
# Of Keras 2 only, and without effect on the function of a layer.
_OBSOLETE = ("batch_input_shape", "dtype", "implementation", "input_length", "trainable")


def from_tfp(
    model: Any,
    likelihood: str | Mapping[str, Any] | Likelihood | None = None,
    beta_schedule: str | Mapping[str, Any] | Schedule = "constant",
    num_examples: int | None = None,
    seed: int | None = None,
) -> VariationalModel:
    """Rebuilds a `tf_keras` model made of `tfp.layers` as a `VariationalModel`: the same means, variances and KL.

    The dense and convolutional layers of TFP with flipout, reparameterization or local reparameterization become ours
    of the same name; other `tf_keras` layers become their Keras 3 namesakes, with their weights. Layer names, shared
    layers, nested models and several inputs are kept. A `Dropout` that is called with `training=True` becomes
    `MCDropout`. The given model is not changed.

    Posteriors: normal and independent per weight (`mean_field_normal`), or deterministic (a deterministic bias;
    `delta` where there is a prior). Priors: normal, Laplace, Cauchy or Student t, centred at 0 with one scale, which is
    `empirical_bayes` where it is the only trainable part; any other normal per weight becomes `informed`, fixed.

    A softmax at the end is removed for the likelihood `"categorical"`, and a sigmoid for `"bernoulli"`, because these
    take logits; the predictive probabilities are the same.

    The KL is KL(posterior || prior) in nats, whatever `kernel_divergence_fn` or `bias_divergence_fn` makes of it: a
    factor such as 1 / N within them is left behind, because a `VariationalModel` divides by the N that it counts.

    Args:
        model: a built `tf_keras.Sequential` or functional `tf_keras.Model` with one output.
        likelihood: as in `VariationalModel`. Default: `"categorical"` for a model that ends in softmax, `"bernoulli"`
            for sigmoid; any other model needs it said.
        beta_schedule: as in `VariationalModel`.
        num_examples: as in `VariationalModel`.
        seed: as in `VariationalModel`.

    Returns:
        The new model. A warning says in what respect its training will differ, where there is one: a prior that is no
        longer trained, or regularizers and constraints of a posterior's variables.

    Raises:
        TypeError: when `model` is of another kind.
        ValueError: when it is not built or has several outputs; for a layer, distribution or activation without
            counterpart, named with its layer; for a likelihood that does not go with the activation at the end.
    """
    _check_model(model)
    rebuilt = _Rebuilding()
    network = rebuilt.model(model)
    end = find_output_activation(network)
    likelihood = end.fitting(likelihood)
    if end.is_part_of(likelihood):
        end.check_removable()
        end.operation.activation = keras.activations.linear
    if rebuilt.differences:
        warnings.warn(
            "The posterior and the KL are those of the given model, but training will differ: "
            f"{'; '.join(rebuilt.differences)}.",
            stacklevel=2,
        )
    return VariationalModel(
        network.input,
        network.outputs[0],
        name=model.name,
        likelihood=likelihood,
        beta_schedule=beta_schedule,
        num_examples=num_examples,
        seed=seed,
    )


class _Rebuilding:
    """The new layers, each once however often it is called, and what will differ in training."""

    def __init__(self) -> None:
        self.differences: list[str] = []
        self._twins: dict[int, Any] = {}

    def model(self, model: Any) -> keras.Model:
        """The Keras 3 model of the graph of a `tf_keras` model."""
        tensors = {id(tensor): _input(tensor) for tensor in tf.nest.flatten(model.input)}

        def new(value: Any) -> Any:
            return tensors.get(id(value), value)

        for node in calls_in_order(model):
            args, kwargs = tf.nest.map_structure(new, (node.call_args, node.call_kwargs))
            # Keras 2 also records the arguments that were left out.
            kwargs = {name: value for name, value in kwargs.items() if value is not None}
            outputs = self._call(node.layer, args, kwargs)
            tensors |= zip(map(id, tf.nest.flatten(node.outputs)), tf.nest.flatten(outputs), strict=True)
        return keras.Model(*tf.nest.map_structure(new, (model.input, model.output)), name=model.name)

    def _call(self, layer: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """The outputs of the new layer, which is made and given its weights at the first call."""
        # Keras 3 lets `fit` and `predict` overrule a `training` that was given when the graph was made.
        training = args[1] if len(args) > 1 and isinstance(args[1], bool) else kwargs.pop("training", None)
        args = args[:1] if len(args) > 1 and isinstance(args[1], bool) else args
        if training is False:
            self.differences.append(f"{layer.name}: its call with training=False counts in prediction only")
        try:
            if id(layer) in self._twins:
                return self._twins[id(layer)](*args, **kwargs)
            twin, assign = self._twin(layer, always_on=bool(training))
            outputs = twin(*args, **kwargs)
            assign(twin)
        except (TypeError, ValueError) as error:
            raise ValueError(f"The layer {layer.name!r} ({type(layer).__name__}) cannot be rebuilt: {error}") from error
        # Not set to True, which would also thaw the layers of a nested model.
        if not layer.trainable:
            twin.trainable = False
        self._twins[id(layer)] = twin
        return outputs

    def _twin(self, layer: Any, always_on: bool) -> tuple[Any, Callable[[Any], None]]:
        """The new layer, not built, and what gives it its weights once it is."""
        kind, module = type(layer).__name__, type(layer).__module__
        if always_on and kind != "Dropout":
            raise ValueError(
                "it is called with training=True, which Keras 3 does not keep in prediction. Of a Dropout that is so "
                "called an MCDropout is made; call others without it."
            )
        if module.startswith("tensorflow_probability.") and kind in _TFP_LAYERS:
            return self._bayesian(layer)
        if module.startswith("tf_keras.") and kind in _KERAS_LAYERS:
            return self._deterministic(layer, always_on)
        if is_graph(layer):
            return self.model(layer), lambda twin: None
        if any(cls.__name__ == "DistributionLambda" for cls in type(layer).__mro__):
            raise ValueError(
                "it makes a distribution, which here is the `likelihood` of the model. Pass the model up to the layer "
                "before it, as in `from_tfp(tf_keras.Model(model.inputs, model.layers[-2].output), "
                'likelihood="normal")`.'
            )
        raise ValueError(
            f"{module}.{kind} has no counterpart. Supported are, of tfp.layers, {', '.join(_TFP_LAYERS)}; and, of "
            f"tf_keras.layers, {', '.join(sorted(_KERAS_LAYERS))}. Replace the layer, or an operation such as `a + b` "
            "by one such as `Add`; or pass a model without it."
        )

    def _bayesian(self, layer: Any) -> tuple[Any, Callable[[Any], None]]:
        if type(layer).__name__.startswith("Dense"):
            arguments = {"units": layer.units}
        else:
            names = ("filters", "kernel_size", "strides", "padding", "data_format", "dilation_rate")
            arguments = {name: getattr(layer, name) for name in names}
        weights = {name: read_weight(layer, name) for name in ("kernel", "bias")}
        found = {name: weight for name, weight in weights.items() if weight is not None}
        for name, weight in found.items():
            arguments |= {f"{name}_{role}": spec for role, spec in weight.specs.items()}
            self.differences += [f"{layer.name}: {difference}" for difference in weight.differences]
        if has_callable_losses(layer):
            self.differences.append(f"{layer.name}: the regularizers of its posteriors are left out")
        if any(variable.constraint is not None for variable in layer.variables):
            self.differences.append(f"{layer.name}: the constraints of its posteriors are left out")

        def assign(twin: Any) -> None:
            for name, weight in found.items():
                if name in twin.variational_weights:
                    twin.variational_weights[name].assign(weight.posterior, weight.prior)
                else:
                    twin.bias.assign(weight.posterior["loc"])

        regularizer = layer.activity_regularizer
        twin = getattr(tfp_bnn.layers, type(layer).__name__)(
            **arguments,
            use_bias="bias" in found,
            activation=_activation(layer.activation),
            activity_regularizer=regularizer
            and {"class_name": type(regularizer).__name__, "config": regularizer.get_config()},
            name=layer.name,
            dtype=layer.dtype_policy.name,
        )
        return twin, assign

    def _deterministic(self, layer: Any, always_on: bool) -> tuple[Any, Callable[[Any], None]]:
        if type(layer).__name__ == "Softmax" and layer.axis in (-1, len(layer.output_shape) - 1):
            # So that at the end of a model it can be set to another activation.
            activation = keras.layers.Activation("softmax", name=layer.name, dtype=layer.dtype_policy.name)
            return activation, lambda twin: None
        cls = tfp_bnn.layers.MCDropout if always_on else getattr(keras.layers, type(layer).__name__)
        config = {key: value for key, value in layer.get_config().items() if key not in _OBSOLETE}
        config = {key: value for key, value in config.items() if not key.endswith("_initializer")}
        for key in config.keys() & {"activation", "recurrent_activation"}:
            config[key] = _activation(getattr(layer, key))
        weights = layer.get_weights()
        if cls is keras.layers.LeakyReLU:
            config["negative_slope"] = config.pop("alpha")
        if cls is keras.layers.BatchNormalization and not isinstance(config["axis"], int):
            (config["axis"],) = config["axis"]
        if cls is keras.layers.Normalization and layer.input_mean is None:
            config |= {"mean": layer.adapt_mean.numpy(), "variance": layer.adapt_variance.numpy()}
            weights = []
        for key in config.keys() - _arguments_of(cls):
            value = config.pop(key)
            if value not in (None, False) and (key, value) != ("groups", 1):
                raise ValueError(f"{cls.__name__} of Keras 3 does not take {key}={value!r}.")
        return cls(**config, dtype=layer.dtype_policy.name), lambda twin: twin.set_weights(weights)


def _check_model(model: Any) -> None:
    expected = "Expected a built `tf_keras.Sequential` or functional `tf_keras.Model` of `tfp.layers`."
    if isinstance(model, keras.layers.Layer):
        raise TypeError(
            f"Got {type(model).__name__!r}, which is of Keras 3, where `tfp.layers` cannot be. {expected} To make a "
            "Keras 3 model Bayesian use `tfp_bnn.transfer.to_bayesian`."
        )
    names = {cls.__name__ for cls in type(model).__mro__ if cls.__module__.startswith("tf_keras.")}
    if "Model" not in names:
        raise TypeError(f"Got {model!r} of type {type(model).__name__!r}. {expected}")
    if not is_graph(model):
        if "Sequential" in names:
            raise ValueError(
                f"The model {model.name!r} is not built, so that it has no weights yet. {expected} Call "
                "`model.build(input_shape)`, load its weights, and pass it again."
            )
        raise TypeError(
            f"The model {model.name!r} is a subclass of `tf_keras.Model` with a `call` of its own, which cannot be "
            f"rebuilt. {expected} Write it as one, from the same layers: "
            "`tf_keras.Model(inputs, model.call(inputs))` with `inputs = tf_keras.Input(shape)` often does it."
        )
    num_outputs = len(tf.nest.flatten(model.output))
    if num_outputs != 1:
        raise ValueError(
            f"The model {model.name!r} has {num_outputs} outputs; a VariationalModel has one. Pass one part of it, as "
            "in `tf_keras.Model(model.inputs, model.outputs[0])`."
        )


def _input(tensor: Any) -> keras.KerasTensor:
    name = name_of_input(tensor)
    if not isinstance(tensor.type_spec, tf.TensorSpec):
        raise ValueError(f"The input {name!r} is {tensor.type_spec}; expected a dense tensor.")
    return keras.Input(tensor.shape[1:], dtype=tensor.dtype.name, name=name)


def _activation(activation: Callable[[tf.Tensor], tf.Tensor] | None) -> str | None:
    """The name of the same activation in Keras 3: some of Keras 2 are others of the same name."""
    if activation is None:
        return None
    name = getattr(activation, "__name__", type(activation).__name__).removesuffix("_v2")
    values = tf.reshape(tf.linspace(-5.0, 5.0, 24), (4, 6))
    try:
        same = np.allclose(keras.activations.get(name)(values), activation(values), atol=1e-5)
    except (TypeError, ValueError):
        same = False
    if not same:
        raise ValueError(
            f"its activation {name!r} is none of Keras 3. Set the attribute `activation` of the layer to one that is, "
            "such as `tf_keras.activations.relu`, or make it a layer of its own, such as `tf_keras.layers.LeakyReLU`."
        )
    return name


def _arguments_of(cls: type) -> set[str]:
    """The arguments that a Keras layer takes, those of its bases included as far as it hands them on."""
    names: set[str] = set()
    for base in cls.__mro__:
        if "__init__" in vars(base):
            parameters = inspect.signature(base.__init__).parameters  # type: ignore[misc]
            names |= parameters.keys()
            if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters.values()):
                break
    return names

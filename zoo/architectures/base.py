"""Architectures of the zoo: a validated config and a function that builds the network from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import keras
import numpy as np
import numpy.typing as npt
from pydantic import Field, TypeAdapter, field_validator, model_validator

import tfp_bnn
from tfp_bnn.core.library_state import names_counted_anew
from tfp_bnn.core.origin import Origin
from tfp_bnn.core.plugins import load_plugins
from tfp_bnn.core.registry import Registry, SpecRegistry
from tfp_bnn.layers import (
    DenseFlipout,
    DenseReparameterization,
    MCDropout,
)
from tfp_bnn.layers.estimators import Estimator, Flipout, Reparameterization, check_combination
from tfp_bnn.likelihoods import LIKELIHOODS
from tfp_bnn.posteriors import POSTERIORS
from tfp_bnn.priors import PRIORS
from zoo.architectures.layer_units import check_layer_units
from zoo.core.names import check_plain_name
from zoo.core.validation import Strict, validate

_Value = str | bool | int | float | None
# A name, or a mapping of a name and arguments, one of which may again be such a mapping: a prior's hyperprior.
Spec = str | dict[str, _Value | dict[str, _Value]]
Width = Annotated[int, Field(strict=True, ge=1, le=8192)]
Activation = Literal["relu", "tanh", "gelu", "silu", "elu"]
PixelMax = Annotated[float, Field(strict=True, ge=1e-6, le=65535)] | None
"""Maximum of raw pixels, which start at 0; the network divides by it. None for no rescaling."""
Moment = Annotated[float, Field(strict=True, ge=-1e15, le=1e15)]
Variance = Annotated[float, Field(strict=True, ge=1e-30, le=1e30)]
"""Their roots are float32 numbers that one can divide by."""

_MAX_INPUTS = 2**20
_ESTIMATORS: dict[str, Estimator] = {
    "flipout": Flipout(),
    "grouped": Flipout(),
    "reparameterization": Reparameterization(),
}


def require_one_output(likelihood: Any) -> None:
    """Refuses a joint likelihood, as a config or an object. A ValueError says what to do."""
    is_config = isinstance(likelihood, dict) and "class_name" not in likelihood
    joint = (is_config and likelihood.get("name", "joint") == "joint") or isinstance(likelihood, list | tuple)
    if joint or getattr(likelihood, "heads", None):
        raise ValueError(
            "an architecture of the zoo has one output, and a joint likelihood describes several. Build the model with "
            "tfp_bnn.VariationalModel, and save it as a .keras file"
        )


def _as_written(registry: SpecRegistry[Any], value: Any) -> Any:
    """Returns a name or config unchanged and an object as its config. ValueError if the registry does not know it."""
    # Keras would import any module that a config names, and artifacts pass through here.
    if isinstance(value, dict) and any("class_name" in part for part in (value, *_mappings_in(value))):
        raise ValueError("a config of Keras is not accepted here. Expected a name, or a mapping with the key 'name'")
    try:
        spec = registry.get(value)
    except TypeError as error:
        raise ValueError(str(error)) from None
    return value if isinstance(value, str | dict) else {"name": registry.name_of(spec), **spec.get_config()}


def _mappings_in(value: dict[str, Any]) -> list[dict[str, Any]]:
    return [part for part in value.values() if isinstance(part, dict)]


class ArchitectureConfig(Strict):
    """Config shared by all architectures: inputs, outputs, distributions and preprocessing.

    Preprocessing is part of the model: users pass raw pixels or raw columns.

    Attributes:
        input_shape: of one raw input, without the batch axis; 1 to 3 positive dimensions.
        num_outputs: number of classes, or of targets.
        likelihood: name or config of a likelihood of `tfp_bnn`.
        estimator: Estimator of the layers in training: `"flipout"`; `"grouped"`, which is flipout with a few draws for
            a batch in convolutions, one operation instead of two; or `"reparameterization"`, one draw for a batch.
        kernel_prior: name or config of the prior of every kernel.
        kernel_posterior: Name or config of the posterior of every kernel; `"delta"` for points.
        initial_scale: posterior scale of every weight at the start, where the posterior has one and names no other.
        dropout: Rate of an `MCDropout` after the activation of each hidden layer; 0 for none.
        layer_units: Number of units or filters of single layers, by their names, where it is another than the
            architecture's. `zoo.shrink` sets it.
        input_mean: subtracted from each input column; None for no standardization.
        input_variance: of each input column.
        target_mean: of each target, in its units; None for no standardization. The network then works with standardized
            targets, and its last layer turns the outputs into units of the targets.
        target_variance: of each target.
    """

    input_shape: Annotated[tuple[Width, ...], Field(min_length=1, max_length=3)]
    num_outputs: Annotated[int, Field(strict=True, ge=1, le=10_000)]
    likelihood: Spec = "categorical"
    estimator: Literal["flipout", "grouped", "reparameterization"] = "flipout"
    kernel_prior: Spec = "normal"
    kernel_posterior: Spec = "mean_field_normal"
    initial_scale: Annotated[float, Field(strict=True, gt=0, le=10)] = 0.05
    dropout: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.0
    # Left out where there are none, as in configs from before there were these.
    layer_units: Annotated[dict[str, Width], Field(max_length=1000, exclude_if=lambda value: not value)] = Field(
        default_factory=dict
    )
    input_mean: Annotated[tuple[Moment, ...], Field(max_length=8192)] | None = None
    input_variance: Annotated[tuple[Variance, ...], Field(max_length=8192)] | None = None
    target_mean: Annotated[tuple[Moment, ...], Field(max_length=10_000)] | None = None
    target_variance: Annotated[tuple[Variance, ...], Field(max_length=10_000)] | None = None

    @field_validator("likelihood", mode="before")
    @classmethod
    def _known_likelihood(cls, value: Any) -> Any:
        require_one_output(value)
        return _as_written(LIKELIHOODS, value)

    @field_validator("kernel_prior", mode="before")
    @classmethod
    def _known_prior(cls, value: Any) -> Any:
        return _as_written(PRIORS, value)

    @field_validator("kernel_posterior", mode="before")
    @classmethod
    def _known_posterior(cls, value: Any) -> Any:
        return _as_written(POSTERIORS, value)

    @model_validator(mode="after")
    def _consistent(self) -> ArchitectureConfig:
        size = int(np.prod(self.input_shape, dtype=np.int64))
        if size > _MAX_INPUTS:
            raise ValueError(f"input_shape={self.input_shape} has {size} values; at most {_MAX_INPUTS} were expected")
        for name in ("input", "target"):
            mean, variance = getattr(self, f"{name}_mean"), getattr(self, f"{name}_variance")
            if (mean is None) != (variance is None):
                raise ValueError(f"{name}_mean and {name}_variance go together, but only one was given")
            if mean is None:
                continue
            length = self.input_shape[-1] if name == "input" else self._num_scalable_targets()
            if len(mean) != length or len(variance) != length:
                raise ValueError(f"{name}_mean and {name}_variance must have {length} values, one for each column")
        for prior in self.priors:
            self._check_distributions(prior)
        return self

    def _num_scalable_targets(self) -> int:
        """The number of targets. Raises a ValueError if the likelihood has targets without a unit."""
        likelihood = LIKELIHOODS.get(self.likelihood)
        number = likelihood.num_targets(self.num_outputs)
        likelihood.in_target_units(np.zeros((1, self.num_outputs), np.float32), [0.0] * number, [1.0] * number)
        return number

    def _check_distributions(self, prior: Spec) -> None:
        posterior = POSTERIORS.get(self.kernel_posterior)
        try:
            check_combination(_ESTIMATORS[self.estimator], "kernel", posterior, PRIORS.get(prior))
        except TypeError as error:
            raise ValueError(str(error)) from None
        if PRIORS.get(prior).learns_scale and not posterior.has_spread:
            raise ValueError(
                f"the prior {prior!r} learns its scale, but kernel_posterior={self.kernel_posterior!r} is a point. "
                "Weights and scale together have no most probable value: fix the scale (empirical_bayes: false, no "
                "hyperprior)"
            )

    @property
    def priors(self) -> tuple[Spec, ...]:
        """The priors of all weights."""
        return (self.kernel_prior,)

    @property
    def known_groups(self) -> int | None:
        """Number of groups that the last column of the inputs may name; None for inputs without a group."""
        return None

    @property
    def target_scale(self) -> tuple[float, ...]:
        """The standard deviations of the targets; empty for no standardization."""
        return tuple(np.sqrt(self.target_variance or ()).tolist())

    def some_inputs(self, num_rows: int) -> npt.NDArray[np.float64]:
        """Returns fixed raw inputs for the network: uniform noise between 0 and 1.

        Args:
            num_rows: Number of inputs.
        """
        return np.random.default_rng(0).uniform(size=(num_rows, *self.input_shape))

    @property
    def kernel_arguments(self) -> dict[str, Any]:
        """The arguments that every Bayesian layer of the architecture gets."""
        given = self.kernel_posterior
        posterior: dict[str, Any] = {"name": given} if isinstance(given, str) else dict(given)
        if "initial_scale" in POSTERIORS.get(given).get_config():
            posterior.setdefault("initial_scale", self.initial_scale)
        return {"kernel_prior": self.kernel_prior, "kernel_posterior": posterior}

    def dense(self, units: int, **arguments: Any) -> keras.layers.Layer:
        """Makes a Bayesian dense layer of the estimator and the distributions of the config.

        Args:
            units: Number of outputs.
            **arguments: Further arguments of the layer.
        """
        layer = DenseReparameterization if self.estimator == "reparameterization" else DenseFlipout
        units = self.layer_units.get(arguments.get("name", ""), units)
        return layer(units, **self.kernel_arguments, **arguments)

    def variational_model(
        self, inputs: keras.KerasTensor, outputs: keras.KerasTensor, **arguments: Any
    ) -> tfp_bnn.VariationalModel:
        """Makes the model of a graph. The layers of most architectures are Bayesian already.

        Args:
            inputs: The raw inputs.
            outputs: The raw outputs.
            **arguments: Further arguments of `VariationalModel`.
        """
        return tfp_bnn.VariationalModel(inputs, outputs, **arguments)

    def after_activation(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """The outputs of a hidden layer, with the dropout of the config.

        Args:
            x: The outputs, after the activation.
            name: Name of the hidden layer.
        """
        return MCDropout(self.dropout, name=f"{name}_dropout")(x) if self.dropout else x


@dataclass(frozen=True)
class Architecture:
    """A registered architecture.

    Attributes:
        name: Name under which it is registered.
        config: Config class.
        body: Function that builds the layers between preprocessing and outputs: `(config, inputs) -> raw outputs`.
        description: First line of the docstring of `body`.
    """

    name: str
    config: type[ArchitectureConfig]
    body: Callable[[Any, keras.KerasTensor], keras.KerasTensor]
    description: str

    @property
    def default_likelihood(self) -> Spec:
        """Likelihood of a config that names none, as a name or a config."""
        return self.config.model_fields["likelihood"].default

    @property
    def takes_images(self) -> bool:
        """Whether an input may have three axes: rows, columns and channels."""
        field = self.config.model_fields["input_shape"]
        shapes: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
        return TypeAdapter(shapes).json_schema().get("maxItems", 3) >= 3

    def build(
        self, config: ArchitectureConfig, seed: int | None = None, beta_schedule: str | Mapping[str, Any] = "constant"
    ) -> tfp_bnn.VariationalModel:
        """Builds a model with new weights. `model.architecture` stores the name and the config."""
        inputs, outputs = self.graph(config)
        model = config.variational_model(
            inputs, outputs, name=self.name, likelihood=config.likelihood, beta_schedule=beta_schedule, seed=seed
        )
        model.architecture = BuiltFrom(self.name, config)
        return model

    @names_counted_anew()
    def graph(self, config: ArchitectureConfig) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """The raw inputs, and the outputs in units of the targets, of a network with new weights.

        Layers without a name get the same one in each network, because artifacts store weights by name.
        """
        inputs = keras.Input(config.input_shape, name="inputs")
        x = inputs
        if config.input_mean is not None:
            x = _normalized(x, config.input_mean, config.input_variance, name="standardize")
        outputs = self.body(config, x)
        if config.layer_units:
            check_layer_units(self.name, config.layer_units, keras.Model(inputs, outputs))
        if config.target_mean is not None:
            outputs = _in_target_units(config, outputs)
        return inputs, outputs


def _in_target_units(config: ArchitectureConfig, outputs: keras.KerasTensor) -> keras.KerasTensor:
    mean, variance = config.target_mean or (), config.target_variance
    if len(mean) == config.num_outputs:
        # Every output is a location.
        return _normalized(outputs, mean, variance, invert=True, name="in_target_units")
    return LIKELIHOODS.get(config.likelihood).in_target_units(outputs, mean, config.target_scale)


def _normalized(
    x: keras.KerasTensor, mean: Any, variance: Any, invert: bool = False, *, name: str
) -> keras.KerasTensor:
    """Standardizes columns, or undoes it, by a layer of Keras."""
    scale = np.sqrt(variance)
    # Keras divides by no less. So smaller columns change their unit first, by a power of two, which is exact.
    small = scale < keras.config.epsilon()
    if not small.any():
        return keras.layers.Normalization(mean=mean, variance=variance, invert=invert, name=name)(x)
    factor = np.where(small, 2.0 ** -np.floor(np.log2(scale)), 1.0)
    moments = {"mean": (mean * factor).tolist(), "variance": (variance * factor**2).tolist()}
    normalization = keras.layers.Normalization(**moments, invert=invert, name=name)
    # Half precision holds the new unit, but not the old one.
    dtype = keras.config.dtype_policy().variable_dtype
    unit = keras.layers.Rescaling((1 / factor if invert else factor).tolist(), name=f"{name}_unit", dtype=dtype)
    return unit(normalization(x)) if invert else normalization(unit(x))


@keras.saving.register_keras_serializable(package="zoo")
@dataclass(frozen=True)
class BuiltFrom:
    """Name and config from which a model of the zoo can be rebuilt.

    Attributes:
        name: Name of the architecture.
        config: Validated config.
    """

    name: str
    config: ArchitectureConfig

    def get_config(self) -> dict[str, Any]:
        """Both, as JSON values."""
        return {"name": self.name, "config": self.config.model_dump(mode="json")}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> BuiltFrom:
        """The inverse of `get_config`.

        Raises:
            ValueError: For an architecture that is not registered, or values out of bounds.
            PluginError: If a plug-in fails to load.
        """
        load_plugins()
        name = config["name"]
        return cls(name, validate(ARCHITECTURES[name].config, config["config"], f"The architecture {name!r}"))


ARCHITECTURES: Registry[Architecture] = Registry("architecture")


def register_architecture(
    name: str, config: type[ArchitectureConfig]
) -> Callable[[Callable[[Any, keras.KerasTensor], keras.KerasTensor]], Architecture]:
    """Returns a decorator that registers a function that builds the body of a network as an architecture.

    The function takes the validated config and a symbolic tensor of the preprocessed inputs, shape `(batch,
    *config.input_shape)`, and returns the raw outputs, shape `(batch, config.num_outputs)` for most likelihoods. The
    first line of its docstring becomes the description. The decorated name becomes the `Architecture`.

    Args:
        name: Lower-case letters, digits and underscores.
        config: The schema of its arguments: a subclass of `ArchitectureConfig`.

    Raises:
        TypeError: When `config` is no such class.
        ValueError: For a name that is malformed, or taken by another architecture.

    Example:
        >>> import tfp_bnn, zoo
        >>> from zoo.architectures import ARCHITECTURES, ArchitectureConfig
        >>> @zoo.register_architecture("linear_flipout", ArchitectureConfig)
        ... def linear_flipout(config, inputs):
        ...     'A linear model.'
        ...     return tfp_bnn.layers.DenseFlipout(config.num_outputs, **config.kernel_arguments)(inputs)
        >>> zoo.create_model("linear_flipout", input_shape=(4,), num_outputs=2).output_shape
        (None, 2)
        >>> ARCHITECTURES.unregister("linear_flipout")
    """
    check_plain_name("architecture", name)
    if not (isinstance(config, type) and issubclass(config, ArchitectureConfig)):
        raise TypeError(
            f"The config of the architecture {name!r} must be a subclass of zoo.architectures.ArchitectureConfig, but "
            f"got {config!r}."
        )

    def register(body: Callable[[Any, keras.KerasTensor], keras.KerasTensor]) -> Architecture:
        description = (body.__doc__ or "").strip().partition("\n")[0]
        return ARCHITECTURES.register(name, Origin.of(body))(Architecture(name, config, body, description))

    return register


def rescaled(pixel_max: float | None, inputs: keras.KerasTensor) -> keras.KerasTensor:
    """Divides raw pixels by `pixel_max` with a layer named `rescale`; returns the inputs for None."""
    return inputs if pixel_max is None else keras.layers.Rescaling(1.0 / pixel_max, name="rescale")(inputs)

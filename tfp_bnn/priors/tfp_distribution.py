"""Any distribution of TensorFlow Probability as a prior."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.core.arguments import is_number
from tfp_bnn.core.registry import unknown_name_message
from tfp_bnn.priors.base import PRIORS, Prior
from tfp_bnn.priors.heavy_tailed import Cauchy, Laplace, StudentT
from tfp_bnn.priors.normal import Normal

_STANDARD: Mapping[str, Any] = {"loc": 0.0, "scale": 1.0}
_CHECKED = (-30.0, -1.0, 0.0, 1.0, 30.0)
_NOT_PARAMETERS = {"dtype", "validate_args", "allow_nan_stats", "name"}
_OURS = {"Normal": Normal, "Laplace": Laplace, "Cauchy": Cauchy, "StudentT": StudentT}
_FAMILIES = sorted(
    name for name, cls in vars(tfd).items() if inspect.isclass(cls) and issubclass(cls, tfd.Distribution)
)


@PRIORS.register("tfp_distribution")
class TfpDistribution(Prior):
    """A distribution of `tensorflow_probability.distributions` on the real line, independent per weight.

    It is described by names and numbers alone, so it is saved with a model like any other prior. Where a prior is
    expected, the distribution itself will do, as in `kernel_prior=tfd.Gumbel(0.0, 1.0)`. A `tfd.Normal`, `Laplace`,
    `Cauchy` or `StudentT` becomes the prior of that name, whose parameters can be learned; a normal has a KL in closed
    form. That of other distributions is estimated with one draw of the weights.

    Args:
        family: Name of the class, such as `"Logistic"`, the default.
        parameters: Arguments of its constructor, by name: numbers, booleans, lists of numbers, or, for the components
            of a mixture, mappings of `"family"` and `"parameters"`.

    Raises:
        ValueError: If there is no such distribution, an argument does not fit, one draw is not a single number, or the
            density is not positive on the whole real line.

    Example:
        >>> import tfp_bnn
        >>> from tensorflow_probability import distributions as tfd
        >>> layer = tfp_bnn.layers.DenseFlipout(2, kernel_prior=tfd.Normal(1.0, 0.5))
        >>> tfp_bnn.priors.PRIORS.get(tfd.Normal(1.0, 0.5))
        Normal(scale=0.5, empirical_bayes=False, hyperprior=None, shared=None, loc=1.0, learn_loc=False)
        >>> tfp_bnn.priors.PRIORS.get(tfd.Logistic(0.0, 2.0))
        TfpDistribution(family='Logistic', parameters={'loc': 0.0, 'scale': 2.0})
    """

    def __init__(self, family: str = "Logistic", parameters: Mapping[str, Any] = _STANDARD) -> None:
        self.family = family
        self.parameters_given = _plain(family, parameters)
        distribution = _built(family, self.parameters_given)
        if distribution.batch_shape.rank or distribution.event_shape.rank:
            raise ValueError(
                f"The prior {family} has batch shape {distribution.batch_shape} and event shape "
                f"{distribution.event_shape}; () was expected for both: one distribution, of one weight."
            )
        density = distribution.log_prob(tf.constant(_CHECKED)).numpy()
        if not np.isfinite(density).all():
            where = _CHECKED[int(np.argmin(np.isfinite(density)))]
            raise ValueError(
                f"The prior {family} has the log-density {density[_CHECKED.index(where)]} at {where:g}. Expected a "
                "density above 0 for every weight, because the KL of a normal posterior is infinite otherwise. Choose "
                "a distribution on the whole real line."
            )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, JSON-serializable."""
        return {"family": self.family, "parameters": self.parameters_given}

    def distribution(
        self, shape: Sequence[int], weights: Mapping[str, tf.Tensor], noise: tf.Tensor | float = 0.0
    ) -> tfd.Distribution:
        """Builds the prior; see `Prior.distribution`."""
        return tfd.Sample(_built(self.family, self.parameters_given), sample_shape=shape)


@PRIORS.converts(tfd.Distribution)
def prior_of(distribution: tfd.Distribution) -> Prior:
    """Returns the prior that a distribution of TensorFlow Probability describes.

    Args:
        distribution: Distribution of one weight, with numbers as parameters.

    Raises:
        ValueError: If it has variables or functions as parameters, or is no density of one real number.
    """
    # For several independent weights alike, the prior is that of one.
    while isinstance(distribution, tfd.Independent | tfd.Sample):
        distribution = distribution.distribution
    family, parameters = _described(distribution)
    if family in _OURS and all(is_number(value) for value in parameters.values()):
        return _OURS[family](**parameters)
    return TfpDistribution(family, parameters)


def _described(distribution: tfd.Distribution) -> tuple[str, dict[str, Any]]:
    family = type(distribution).__name__
    if getattr(tfd, family, None) is not type(distribution):
        raise ValueError(
            f"A prior cannot be made from {distribution!r}: {type(distribution).__module__}.{family} is not a class of "
            "tensorflow_probability.distributions. Register a class made from tfp_bnn.priors.Prior."
        )
    defaults = inspect.signature(type(distribution).__init__).parameters
    given = {
        name: value
        for name, value in distribution.parameters.items()
        if name not in _NOT_PARAMETERS
        and name in defaults
        and value is not None
        and value is not defaults[name].default
    }
    return family, {name: _as_config(family, name, value) for name, value in given.items()}


def _as_config(family: str, name: str, value: Any) -> Any:
    if isinstance(value, tfd.Distribution):
        of_part, parameters = _described(value)
        return {"family": of_part, "parameters": parameters}
    if isinstance(value, list | tuple) and any(isinstance(part, tfd.Distribution) for part in value):
        return [_as_config(family, name, part) for part in value]
    if isinstance(value, bool | str):
        return value
    if callable(value) or isinstance(value, tf.Variable | keras.Variable):
        raise ValueError(
            f"A prior cannot be made from a {family} whose {name!r} is {value!r}: a saved model holds names and "
            "numbers alone. Pass numbers; to learn a scale or centre, take a prior of tfp_bnn with "
            "empirical_bayes=True or learn_loc=True."
        )
    return np.asarray(value, np.float64).tolist()


def _plain(family: str, parameters: Any) -> dict[str, Any]:
    """Checks and copies parameters from a config, which may come from a file."""
    if family not in _FAMILIES:
        raise ValueError(unknown_name_message("distribution of tensorflow_probability", str(family), _FAMILIES))
    if not isinstance(parameters, Mapping) or not all(isinstance(name, str) for name in parameters):
        raise ValueError(f"`parameters` of the prior {family} must be a mapping by name, but got {parameters!r}.")
    return {name: _plain_value(family, name, value) for name, value in parameters.items()}


def _plain_value(family: str, name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        if set(value) != {"family", "parameters"}:
            raise ValueError(
                f"The parameter {name!r} of the prior {family} has the keys {sorted(value)}; 'family' and 'parameters' "
                "were expected."
            )
        return {"family": value["family"], "parameters": _plain(value["family"], value["parameters"])}
    if isinstance(value, list | tuple):
        return [_plain_value(family, name, part) for part in value]
    if isinstance(value, bool | str):
        return value
    if not is_number(value) or not np.isfinite(value):
        raise ValueError(f"The parameter {name!r} of the prior {family} must be finite numbers, but got {value!r}.")
    return float(value)


def _built(family: str, parameters: Mapping[str, Any]) -> tfd.Distribution:
    arguments = {name: _built_value(value) for name, value in parameters.items()}
    try:
        return getattr(tfd, family)(**arguments)
    except (TypeError, ValueError, tf.errors.OpError) as error:
        raise ValueError(f"The prior {family} cannot be made from {dict(parameters)!r}: {error}") from error


def _built_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _built(value["family"], value["parameters"])
    if isinstance(value, list):
        parts = [_built_value(part) for part in value]
        return parts if any(isinstance(part, tfd.Distribution) for part in parts) else tf.constant(parts, tf.float32)
    return value

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
from tfp_bnn.priors.heavy_tailed import Cauchy, Horseshoe, Laplace, StudentT
from tfp_bnn.priors.normal import Normal

_STANDARD: Mapping[str, Any] = {"loc": 0.0, "scale": 1.0}
_CHECKED = np.array([-30.0, -1.0, 0.0, 1.0, 30.0], np.float32)
# Beyond all weights.
_ENDS = (-1e6, 1e6)
_NOT_PARAMETERS = {"dtype", "validate_args", "allow_nan_stats", "name"}
_OURS = {"Normal": Normal, "Laplace": Laplace, "Cauchy": Cauchy, "StudentT": StudentT, "Horseshoe": Horseshoe}
_FAMILIES = sorted(
    name for name, cls in vars(tfd).items() if inspect.isclass(cls) and issubclass(cls, tfd.Distribution)
)


@PRIORS.register("tfp_distribution")
class TfpDistribution(Prior):
    """A distribution of `tensorflow_probability.distributions` on the real line, independent per weight.

    It is described by names and numbers alone, so it is saved with a model like any other prior. Where a prior is
    expected, the distribution itself will do, as in `kernel_prior=tfd.Gumbel(0.0, 1.0)`. A `tfd.Normal`, `Laplace`,
    `Cauchy`, `StudentT` or `Horseshoe` becomes the prior of that name, whose parameters can be learned; a normal has a
    KL in closed form. That of other distributions is estimated with one draw of the weights.

    Args:
        family: Name of the class, such as `"Logistic"`, the default.
        parameters: Arguments of its constructor, by name: numbers, booleans, lists of numbers, or, for the components
            of a mixture, mappings of `"family"` and `"parameters"`.

    Raises:
        ValueError: If there is no such distribution, an argument does not fit, one draw is not a single number, it or a
            part of it is discrete, or the density is not positive and finite on the whole real line.

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
        _require_density(family, distribution)

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


def _require_density(family: str, distribution: tfd.Distribution) -> None:
    """Refuses a distribution without a density, or with one that is 0 or infinite at a weight."""
    if _is_discrete(distribution):
        raise ValueError(
            f"The prior {family} is discrete, or a part of it is, and has no density. Expected a continuous "
            "distribution on the whole real line, such as Logistic or Gumbel."
        )
    density = distribution.log_prob(_CHECKED).numpy()
    on_whole_line = _is_on_whole_line(distribution)
    # Far from its centre, a density on the whole line may be too small for float32.
    too_small = on_whole_line & (density == -np.inf) & (np.abs(_CHECKED) > 1.0)
    wrong = np.isnan(density) | ((density == -np.inf) & ~too_small)
    if wrong.any() or not on_whole_line:
        first = np.argmax(wrong)
        found = f"the log-density {density[first]} at {_CHECKED[first]:g}" if wrong.any() else "a bounded range"
        raise ValueError(
            f"The prior {family} has {found}. Expected a density above 0 for every weight, because the KL of a normal "
            "posterior is infinite otherwise. Choose a distribution on the whole real line, and none so narrow that "
            "its density at 1 or -1 is 0 in float32."
        )
    poles = _CHECKED[density == np.inf]
    if poles.size:
        raise ValueError(
            f"The prior {family} has the log-density inf at {poles[0]:g}. Expected a finite one, because training "
            "would move every weight there. In place of a Horseshoe take the prior 'horseshoe', whose density is "
            "bounded."
        )


def _components(distribution: tfd.Distribution) -> list[tfd.Distribution]:
    """The components of a mixture, those of one family as one distribution; none for other distributions."""
    of_one_family = getattr(distribution, "components_distribution", None)
    return [*getattr(distribution, "components", ())] if of_one_family is None else [of_one_family]


def _is_discrete(distribution: tfd.Distribution) -> bool:
    """Whether single values have a probability."""
    if components := _components(distribution):
        return any(map(_is_discrete, components))
    # Of all others, TFP has a map from the real line for the continuous ones alone.
    is_point = isinstance(distribution, tfd.Deterministic)
    return is_point or distribution.experimental_default_event_space_bijector() is None


def _is_on_whole_line(distribution: tfd.Distribution) -> bool:
    """Whether a continuous distribution, or at least one component of a mixture, has a density on the real line."""
    if components := _components(distribution):
        return any(map(_is_on_whole_line, components))
    ends = tf.reshape(tf.constant(_ENDS), [2] + [1] * distribution.batch_shape.rank)
    found = distribution.experimental_default_event_space_bijector().inverse(ends).numpy()
    return bool(np.isfinite(found).all(axis=0).any())


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

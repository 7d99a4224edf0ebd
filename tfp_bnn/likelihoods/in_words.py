"""A likelihood and what it has learned, in words for readers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfp_bnn.likelihoods.base import LIKELIHOODS, Likelihood

_KINDS = {
    "bernoulli": "Bernoulli, yes or no for each output",
    "categorical": "categorical, one class of several",
    "laplace": "Laplace noise about the mean",
    "mixture_normal": "mixture of normals",
    "multivariate_normal": "normal noise about the mean, correlated between the targets",
    "negative_binomial": "negative binomial counts",
    "normal": "normal noise about the mean",
    "ordinal": "ordered classes between cutpoints",
    "poisson": "Poisson counts",
    "student_t": "Student's t noise about the mean",
}
_PARAMETERS = {
    "cutpoints": "cutpoints",
    "df": "degrees of freedom",
    "dispersion": "dispersion",
    "scale": "scale of the noise",
    "scale_tril": "Cholesky factor of the covariance of the noise",
}
_OF_NORMAL = {"scale": "standard deviation of the noise"}
_WITH_UNITS = {"scale", "scale_tril"}
_MOST_VALUES = 6


def in_words(likelihood: Likelihood, weights: Mapping[str, Any]) -> str:
    """Returns what a likelihood is, and the values of its parameters, learned or fixed.

    Args:
        likelihood: Likelihood of one output.
        weights: Its learned parameters by role, such as `model.likelihood_weights`.

    Example:
        >>> import tfp_bnn
        >>> from tfp_bnn.likelihoods.in_words import in_words
        >>> in_words(tfp_bnn.likelihoods.Normal(scale=0.5), {})
        'normal noise about the mean; standard deviation of the noise 0.5 units of the target (fixed)'
    """
    name = LIKELIHOODS.name_of(likelihood)
    learned = likelihood.parameters(weights)
    parts = [_KINDS.get(name, name.replace("_", " "))]
    parts += [_parameter(name, role, _shown(value), "learned") for role, value in learned.items()]
    for role, value in likelihood.get_config().items():
        if role in learned or value is None or role.startswith("initial_"):
            continue
        if value == "per_example":
            parts.append(f"{_called(name, role)} is an output of the network, of each example")
        elif role == "missing":
            parts.append(f"targets of {value} are missing")
        elif value != "learned" and not isinstance(value, dict):
            parts.append(_parameter(name, role, _shown(value), "fixed"))
    return "; ".join(parts)


def _called(name: str, role: str) -> str:
    of_normal = _OF_NORMAL if name in ("normal", "multivariate_normal") else {}
    return {**_PARAMETERS, **of_normal}.get(role, role.replace("_", " "))


def _parameter(name: str, role: str, value: str, how: str) -> str:
    unit = " units of the target" if role in _WITH_UNITS else ""
    return f"{_called(name, role)} {value}{unit} ({how})"


def _shown(value: Any) -> str:
    try:
        values = np.asarray(value, float).ravel()
    except (TypeError, ValueError):
        return str(value)
    if values.size > _MOST_VALUES:
        return f"between {values.min():.4g} and {values.max():.4g}, {values.size} values"
    return ", ".join(f"{number:.4g}" for number in values)

"""What the distributions of one weight of a `tfp.layers` layer are in terms of ours."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

# Priors on a weight that, centred and with one scale, exist here too.
_PRIORS = {tfd.Normal: "normal", tfd.Laplace: "laplace", tfd.Cauchy: "cauchy", tfd.StudentT: "student_t"}


@dataclass
class TFPWeight:
    """A weight of a TFP layer.

    Attributes:
        specs: configs of its posterior and its prior, by role; none for a weight without distribution.
        posterior: Parameters of the posterior by name; `loc` alone is the value of a weight without a distribution.
        prior: Learned or informed parameters of the prior by name.
        differences: in what respect its training will differ.
    """

    specs: dict[str, Any]
    posterior: dict[str, np.ndarray]
    prior: dict[str, np.ndarray] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)


def read_weight(layer: Any, name: str) -> TFPWeight | None:
    """Reads the distributions from the attributes of a built layer, because its config has functions only.

    Args:
        layer: of `tfp.layers`.
        name: `"kernel"` or `"bias"`.

    Returns:
        The weight; None when there is none.

    Raises:
        ValueError: for a distribution, or a use of it, that does not exist here.
    """
    posterior, prior = (getattr(layer, f"{name}_{role}") for role in ("posterior", "prior"))
    if posterior is None:
        return None
    q, shape = _per_weight(posterior)
    if type(q) is tfd.Deterministic:
        value = {"loc": _value(q.loc, shape)}
        if prior is None:
            return TFPWeight({} if name == "bias" else {"posterior": "delta", "prior": "flat"}, value)
        return _with_prior(TFPWeight({"posterior": {"name": "delta"}}, value), name, prior, shape)
    if type(q) is not tfd.Normal:
        raise ValueError(
            f"its `{name}_posterior` is {posterior!r}. Expected a Normal or a Deterministic that is independent per "
            "weight."
        )
    if not _is_draw(getattr(layer, f"{name}_posterior_tensor_fn")):
        raise ValueError(
            f"its `{name}_posterior_tensor_fn` is not `lambda d: d.sample()`, so that the {name} is not a draw from "
            "its posterior. Here it always is: set the attribute to that function, if you agree."
        )
    if prior is None:
        raise ValueError(
            f"its `{name}_prior` is None, so that the {name} has a posterior but no KL. Set the attribute "
            f"`{name}_prior` of the layer, as in `tfd.Independent(tfd.Normal(tf.zeros({list(shape)}), 1.0), "
            f"{len(shape)})`."
        )
    num_trained = {role: _num_trained(getattr(q, role)) for role in ("loc", "scale")}
    trained = [role for role, number in num_trained.items() if number]
    spec = {"name": "mean_field_normal", **({"trainable": trained[0]} if len(trained) == 1 else {})}
    weight = TFPWeight({"posterior": spec}, {role: _value(getattr(q, role), shape) for role in num_trained})
    if any(number < math.prod(shape) for number in num_trained.values() if number):
        weight.differences.append(f"the {name} gets a mean and a scale for every weight, where some were shared")
    return _with_prior(weight, name, prior, shape)


def _with_prior(weight: TFPWeight, name: str, prior: Any, shape: tuple[int, ...]) -> TFPWeight:
    p, _ = _per_weight(prior)
    if type(p) not in _PRIORS:
        raise ValueError(
            f"its `{name}_prior` is {prior!r}. Expected one that is independent per weight: a Normal; or a Laplace, "
            f"Cauchy or StudentT centred at 0 with one scale. Set the attribute `{name}_prior` of the layer to one of "
            "these, or write the model anew with a prior of `tfp_bnn.priors`."
        )
    loc, scale = _value(p.loc, shape), _value(p.scale, shape)
    one = {"scale": scale, **({"df": _value(p.df, shape)} if type(p) is tfd.StudentT else {})}
    centred = not loc.any() and all((value == value.flat[0]).all() for value in one.values())
    learned = centred and _num_trained(prior) == _num_trained(p.scale) == 1
    if _num_trained(prior) and not learned:
        weight.differences.append(f"the prior of the {name}, which was trained, is fixed")
    if centred:
        numbers = {role: float(value.flat[0]) for role, value in one.items()}
        weight.specs["prior"] = {"name": _PRIORS[type(p)], **numbers}
        if learned:
            weight.specs["prior"]["empirical_bayes"] = True
            weight.prior["scale"] = scale.flat[0]
    elif type(p) is tfd.Normal:
        weight.specs["prior"] = {"name": "informed"}
        weight.prior |= {"loc": loc, "scale": scale}
    else:
        raise ValueError(
            f"its `{name}_prior` is {prior!r} with several scales, or not centred at 0, which exists for a normal "
            f"prior only. Set the attribute `{name}_prior` of the layer to another one."
        )
    return weight


def _per_weight(distribution: Any) -> tuple[Any, tuple[int, ...]]:
    """The distribution of each weight by itself, and the shape of the whole."""
    shape = (*distribution.batch_shape, *distribution.event_shape)
    while type(distribution) in (tfd.Independent, tfd.Sample):
        distribution = distribution.distribution
    return distribution, shape


def _value(parameter: Any, shape: tuple[int, ...]) -> np.ndarray:
    return np.broadcast_to(np.asarray(tf.convert_to_tensor(parameter)), shape)


def _num_trained(parameter: Any) -> int:
    """How many trainable numbers a parameter, or a distribution, is made of."""
    if isinstance(parameter, tf.Variable):
        variables = [parameter] if parameter.trainable else []
    else:
        variables = [*getattr(parameter, "trainable_variables", [])]
    return sum(math.prod(variable.shape) for variable in variables)


class _Probe:
    """Stands for a distribution, to learn whether a function of it is its `sample`."""

    drawn = object()

    def sample(self, *args: Any, **kwargs: Any) -> Any:
        return self.drawn


def _is_draw(tensor_fn: Callable[[Any], Any]) -> bool:
    try:
        return tensor_fn(_Probe()) is _Probe.drawn
    except Exception:
        # Whatever else it asks of its distribution, it is not a mere draw.
        return False

"""Everything known about the weights of a model, as one typed object. Only this file makes or parses weight names.

conv1/kernel/loc, conv1/kernel/scale      a parameter of the posterior of a weight
conv1/kernel/prior_scale                  a learned parameter of its prior
conv1/bias                                a weight without a distribution
model/token                               the same, of a subclass that has weights besides those of its layers
prior/<name>/scale                        a learned parameter of a prior that layers share
likelihood/scale                          a learned parameter of the likelihood
layer:prior/kernel/loc                    of a layer that is itself named "prior" or "likelihood"
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from tfp_bnn.core.layer_tree import sublayers
from tfp_bnn.layers.base import VariationalLayer
from tfp_bnn.layers.variational_weight import VariationalWeight
from tfp_bnn.models.derived_state import derive_state

# Of a message.
_MOST_NAMES, _MOST_CHARACTERS = 8, 100
_SHARED, _LIKELIHOOD, _OWN_PRIOR, _MODEL = "prior", "likelihood", "prior_", "model"
# Before the names of layers that would be taken for something else.
_LAYER = "layer:"
_LOC = "loc"
_WITHOUT_NAME = re.compile(r"variable(_\d+)?")
LARGEST = 1e15
"""Of the values in a record: their squares and products are finite in float32."""


class Role(StrEnum):
    """What an array says about a weight."""

    VALUE = "value"
    POSTERIOR = "posterior"
    PRIOR = "prior"
    SHARED_PRIOR = "shared prior"
    LIKELIHOOD = "likelihood"


@dataclass(frozen=True, eq=False)
class WeightEntry:
    """One array and its place in a model.

    Attributes:
        role: What the array is.
        owner: Name of the layer, or of the shared prior; empty for the likelihood.
        weight: Name of the weight in its layer, such as `"kernel"`; empty for shared priors and the likelihood.
        parameter: Name of the parameter, such as `"loc"` or `"scale"`; empty for a weight without a distribution.
        array: Values in natural units: `scale` is a standard deviation, `factor` the low-rank part of a covariance,
            `scale_spread` the standard deviation of the logarithm of an inferred scale.
    """

    role: Role
    owner: str
    weight: str
    parameter: str
    array: npt.NDArray[Any]

    @property
    def name(self) -> str:
        """The name under which the array is stored."""
        if self.role is Role.SHARED_PRIOR:
            return f"{_SHARED}/{self.owner}/{self.parameter}"
        if self.role is Role.LIKELIHOOD:
            return f"{_LIKELIHOOD}/{self.parameter}"
        needs_prefix = self.owner in (_SHARED, _LIKELIHOOD) or self.owner.startswith(_LAYER)
        layer = f"{_LAYER}{self.owner}" if needs_prefix else self.owner
        if self.role is Role.VALUE:
            return f"{layer}/{self.weight}"
        prefix = _OWN_PRIOR if self.role is Role.PRIOR else ""
        return f"{layer}/{self.weight}/{prefix}{self.parameter}"

    @property
    def must_be_positive(self) -> bool:
        """Whether the array holds scales."""
        return self.parameter.endswith(("scale", "spread"))


class WeightRecord:
    """Everything a model has learned: posteriors, learned priors, learned noise, deterministic weights.

    Args:
        entries: The arrays with their places.

    Raises:
        ValueError: If two entries have the same name, as for two layers with equal names.
    """

    def __init__(self, entries: list[WeightEntry]) -> None:
        self._by_name: dict[str, WeightEntry] = {}
        for entry in entries:
            if entry.name in self._by_name:
                raise ValueError(
                    f"Two layers are named {entry.owner!r}: {entry.name!r} means two things. Give layers unique names."
                )
            self._by_name[entry.name] = entry

    @classmethod
    def of(cls, model: keras.Model) -> WeightRecord:
        """Reads the weights of a built model.

        Args:
            model: A built model, Bayesian or not. The names of its layers must be unique.

        Returns:
            A record that shares no memory with the model. All Bayesian weights are float32.

        Raises:
            ValueError: If two layers have the same name.
        """
        return cls(list(_entries(model)))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> WeightRecord:
        """Parses arrays by name, as returned by `arrays`.

        Raises:
            ValueError: If a name is not the name of a weight.
        """
        return cls([_parsed(name, array) for name, array in arrays.items()])

    def __iter__(self) -> Iterator[WeightEntry]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays by name, ready to be stored."""
        return {name: entry.array for name, entry in self._by_name.items()}

    def posteriors(self) -> dict[tuple[str, str], dict[str, npt.NDArray[Any]]]:
        """The posterior parameters of each Bayesian weight, by `(layer, weight)`."""
        found: dict[tuple[str, str], dict[str, npt.NDArray[Any]]] = {}
        for entry in self:
            if entry.role is Role.POSTERIOR:
                found.setdefault((entry.owner, entry.weight), {})[entry.parameter] = entry.array
        return found

    @cached_property
    def num_weights(self) -> int:
        """The number of weights of the network.

        A weight with a distribution counts once, at its location, however many parameters its posterior has.
        """
        counted = (entry for entry in self if entry.role is Role.VALUE or _is_location(entry))
        return sum(entry.array.size for entry in counted)

    @property
    def num_parameters(self) -> int:
        """The number of stored values."""
        return sum(entry.array.size for entry in self)

    def assign_to(self, model: keras.Model) -> None:
        """Assigns the weights to a model of the same architecture; nothing changes unless everything fits.

        Args:
            model: A built model.

        Raises:
            ValueError: If names are missing or unexpected, a shape or dtype differs, values are NaN or infinite, or a
                scale is not positive.
        """
        before = WeightRecord.of(model)
        missing = sorted(before._by_name.keys() - self._by_name)
        unexpected = sorted(self._by_name.keys() - before._by_name)
        if missing or unexpected:
            raise ValueError(
                f"The weights do not fit the model: missing {_some(missing)}, unexpected {_some(unexpected)}."
            )
        for name, expected in before._by_name.items():
            _check(self._by_name[name], expected)
        try:
            self._assign(model)
        except ValueError:
            # A prior or posterior may be stricter than the checks above.
            before._assign(model)
            raise

    def _assign(self, model: Any) -> None:
        for owner, layer in _layers(model):
            for name, variable in plain_variables(layer).items():
                variable.assign(self._parameters_of(Role.VALUE, owner, name)[""])
            for name, weight in bayesian_weights(layer).items():
                posterior, prior = (self._parameters_of(role, owner, name) for role in (Role.POSTERIOR, Role.PRIOR))
                weight.assign(posterior, prior)
        for name, shared in getattr(model, "shared_priors", {}).items():
            shared.prior.assign_parameters(shared.weights, self._parameters_of(Role.SHARED_PRIOR, name))
        if hasattr(model, "likelihood"):
            learned = self._parameters_of(Role.LIKELIHOOD)
            model.likelihood.assign_parameters(model.likelihood_weights, learned)
        derive_state(model)

    def _parameters_of(self, role: Role, owner: str = "", weight: str = "") -> dict[str, npt.NDArray[Any]]:
        place = (role, owner, weight)
        return {entry.parameter: entry.array for entry in self if (entry.role, entry.owner, entry.weight) == place}


def weight_distributions(model: keras.Model) -> dict[str, npt.NDArray[Any]]:
    """The arrays of `WeightRecord.of(model)` by name: everything a built model has learned, in natural units."""
    return WeightRecord.of(model).arrays()


def assign_weight_distributions(model: keras.Model, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Assigns arrays of `weight_distributions` to a model of the same architecture; see `WeightRecord.assign_to`."""
    WeightRecord.from_arrays(arrays).assign_to(model)


def freeze_like(copy: Any, model: Any) -> None:
    """Makes each weight without a distribution trainable if it is so in the model. A config only knows whole layers.

    Args:
        copy: Built model with layers and a likelihood of the same names, which is changed. A weight that only the copy
            has stays as it is.
        model: Built model.
    """
    originals = layers_by_name(model)
    for name, layer in layers_by_name(copy).items():
        known = plain_variables(originals[name])
        for key, variable in plain_variables(layer).items():
            if key in known:
                variable.trainable = known[key].trainable
    for role, variable in copy.likelihood_weights.items():
        variable.trainable = model.likelihood_weights[role].trainable


def count_weights(model: keras.Model) -> int:
    """The number of weights of a built network; one with a distribution counts once, however many parameters it has."""
    bayesian = sum(weight.size for _, layer in _layers(model) for weight in bayesian_weights(layer).values())
    plain = (variable for _, layer in _layers(model) for variable in plain_variables(layer).values())
    return bayesian + sum(int(np.prod(variable.shape)) for variable in plain)


def plain_variables(layer: keras.layers.Layer) -> dict[str, keras.Variable]:
    """The variables of a layer itself that belong to no weight with a distribution, by name, such as a bias."""
    bayesian = {id(variable) for weight in bayesian_weights(layer).values() for variable in weight.variables}
    return {name: variable for name, variable in named_weights(layer).items() if id(variable) not in bayesian}


def named_weights(layer: Any) -> dict[str, keras.Variable]:
    """The weights of `own_weights` by name, in their order.

    Keras numbers weights without a name through the whole process, and lets two have the same name. Here both are
    numbered within the layer: `variable`, `variable_1`.
    """
    found: dict[str, keras.Variable] = {}
    for variable in own_weights(layer):
        base = "variable" if _WITHOUT_NAME.fullmatch(variable.name) else variable.name
        names = itertools.chain([base], (f"{base}_{number}" for number in itertools.count(1)))
        found[next(name for name in names if name not in found)] = variable
    return found


def own_weights(layer: Any) -> list[keras.Variable]:
    """The weights of a layer that no layer within it has, such as a class token.

    Those of a variational model are without the state of its training, its likelihood and its shared priors.
    """
    others = {id(variable) for part in sublayers(layer) for variable in part.weights}
    others |= {id(variable) for variable in getattr(layer, "_state_variables", ())}
    return [variable for variable in layer.weights if id(variable) not in others]


def bayesian_weights(layer: keras.layers.Layer) -> Mapping[str, VariationalWeight]:
    """The weights of a layer that have a distribution, by name; none for a deterministic layer."""
    return layer.variational_weights if isinstance(layer, VariationalLayer) else {}


def trainable_values(model: keras.Model) -> dict[str, keras.Variable]:
    """The trainable variables of a model by name, if each weight with a distribution is a point.

    They are called `<layer>/<weight>`, and `likelihood/<role>` for what the likelihood learns, in the coordinates in
    which it is trained.

    Args:
        model: A built model of weights with the posterior `delta` and of weights without a distribution.

    Raises:
        ValueError: If two layers have the same name.
    """
    found: dict[str, keras.Variable] = {}
    for owner, layer in layers_by_name(model).items():
        found |= {f"{owner}/{name}": variable for name, variable in plain_variables(layer).items()}
        for name, weight in bayesian_weights(layer).items():
            found[f"{owner}/{name}"] = weight.posterior_variables[_LOC]
    for role, variable in getattr(model, "likelihood_weights", {}).items():
        found[f"{_LIKELIHOOD}/{role}"] = variable
    return {name: variable for name, variable in found.items() if variable.trainable}


def layers_by_name(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """The layers of a model that have weights of their own, by name, and under `"model"` itself if it is one of them.

    Raises:
        ValueError: If two have the same name.
    """
    found: dict[str, keras.layers.Layer] = {}
    for name, layer in _layers(model):
        if name in found:
            raise ValueError(f"Two layers are named {name!r}. Give layers unique names.")
        found[name] = layer
    return found


def _layers(model: keras.Model) -> Iterator[tuple[str, keras.layers.Layer]]:
    """Those with weights of their own, with their names, before the layers within them."""
    named = itertools.chain([(_MODEL, model)], ((layer.name, layer) for layer in sublayers(model)))
    return ((name, layer) for name, layer in named if own_weights(layer))


def _entries(model: Any) -> Iterator[WeightEntry]:
    for owner, layer in _layers(model):
        for name, variable in plain_variables(layer).items():
            yield WeightEntry(Role.VALUE, owner, name, "", np.asarray(variable))
        for name, weight in bayesian_weights(layer).items():
            parameters = {Role.POSTERIOR: weight.posterior_parameters(), Role.PRIOR: weight.prior_parameters()}
            for role, values in parameters.items():
                for parameter, array in values.items():
                    yield WeightEntry(role, owner, name, parameter, array)
    for name, shared in getattr(model, "shared_priors", {}).items():
        for parameter, array in shared.parameters().items():
            yield WeightEntry(Role.SHARED_PRIOR, name, "", parameter, array)
    if hasattr(model, "likelihood"):
        for parameter, array in model.likelihood.parameters(model.likelihood_weights).items():
            yield WeightEntry(Role.LIKELIHOOD, "", "", parameter, array)


def _parsed(name: str, array: npt.NDArray[Any]) -> WeightEntry:
    first, *others = name.split("/")
    layer = first.removeprefix(_LAYER)
    if not all([layer, *others]) or len(others) not in (1, 2):
        raise ValueError(
            f"{name!r} is not the name of a weight. Expected <layer>/<variable>, or <layer>/<weight>/<parameter>."
        )
    if len(others) == 1:
        if first == _LIKELIHOOD:
            return WeightEntry(Role.LIKELIHOOD, "", "", others[0], array)
        return WeightEntry(Role.VALUE, layer, others[0], "", array)
    weight, parameter = others
    if first == _SHARED:
        return WeightEntry(Role.SHARED_PRIOR, weight, "", parameter, array)
    if parameter.startswith(_OWN_PRIOR):
        return WeightEntry(Role.PRIOR, layer, weight, parameter.removeprefix(_OWN_PRIOR), array)
    return WeightEntry(Role.POSTERIOR, layer, weight, parameter, array)


def _is_location(entry: WeightEntry) -> bool:
    return entry.role is Role.POSTERIOR and entry.parameter == _LOC


def _check(found: WeightEntry, expected: WeightEntry) -> None:
    got, want = np.asarray(found.array), expected.array
    if got.shape != want.shape or got.dtype != want.dtype:
        raise ValueError(
            f"The weight {found.name!r} has shape {got.shape} and dtype {got.dtype}; expected {want.shape} and "
            f"{want.dtype}."
        )
    bad = ~(np.abs(got) <= LARGEST)
    if expected.must_be_positive:
        bad |= got <= 0
    if bad.any():
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"The weight {found.name!r} has {int(bad.sum())} values that are NaN, infinite, beyond {LARGEST:g} or "
            f"not a valid scale, of {got.size}; the first is {got[index]} at index {index}."
        )


def _some(names: list[str]) -> str:
    others = f" and {len(names) - _MOST_NAMES:,} others" if len(names) > _MOST_NAMES else ""
    return f"{[name[:_MOST_CHARACTERS] for name in names[:_MOST_NAMES]]}{others}"

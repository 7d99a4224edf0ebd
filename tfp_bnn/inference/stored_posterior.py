"""Posteriors that are more than the weights of one network, and what a file must hold to rebuild them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tfp_bnn.core.arguments import is_integer
from tfp_bnn.models.predictive_model import PredictiveModel
from tfp_bnn.models.preparation import tell_of_training

Arrays = Mapping[str, npt.NDArray[Any]]
_OF_ITS_OWN = ("_calibration", "_conformal", "class_names", "target_units", "inputs_expected")


class StoredPosterior(PredictiveModel):
    """A posterior made of trained networks, settings and arrays. Abstract.

    If a network is trained further, the posterior loses its `calibration` and `conformal`, with a warning.

    `from_arrays(networks, way, settings(), arrays(), name)` gives the same posterior, with the same draws, for networks
    of the same weights. A new inference method that implements these three is stored in artifacts, copied and pickled
    as it is.

    Attributes:
        way: Name of the inference method, one of `tfp_bnn.inference.WAYS`.
    """

    way: str

    def _take_over(self, *networks: Any) -> None:
        """Takes over from the first network its likelihood, the names of classes and units, and the expected inputs."""
        for each in networks:
            tell_of_training(each, self)
        network: PredictiveModel = networks[0]
        self.likelihood = network.likelihood
        self.class_names, self.target_units = network.class_names, network.target_units
        self.inputs_expected = network.inputs_expected

    def __reduce__(self) -> tuple[Any, ...]:
        """For `copy` and `pickle`: Keras gives a copy of a network new variables, which the rest must be bound to."""
        trainable = [[variable.trainable for variable in network.weights] for network in self.networks]
        made_of = (self.way, self.settings(), self.arrays(), self.name)
        return _made_again, (type(self), self.networks, trainable, *made_of), self.__getstate__()

    def __getstate__(self) -> dict[str, Any]:
        """The attributes of a copy that its networks, settings and arrays do not determine."""
        return {name: vars(self)[name] for name in _OF_ITS_OWN if name in vars(self)}

    @property
    def networks(self) -> tuple[Any, ...]:
        """The networks whose weights belong to the posterior."""
        raise NotImplementedError

    @property
    def num_examples(self) -> int | None:
        """N, the number of training examples; None if it is not known."""
        raise NotImplementedError

    @property
    def input(self) -> Any:
        """The symbolic inputs of a network."""
        return self.networks[0].input

    @property
    def input_shape(self) -> Any:
        """Shape of the inputs, batch axis first."""
        return self.networks[0].input_shape

    @property
    def output_shape(self) -> Any:
        """Shape of the raw outputs, batch axis first."""
        return self.networks[0].output_shape

    def settings(self) -> dict[str, Any]:
        """JSON values that determine, with the networks, the names and shapes of `arrays`. Floats are exact."""
        return {}

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What the posterior knows beside the weights of its networks, by name."""
        return {}

    @classmethod
    def num_networks(cls, settings: Mapping[str, Any]) -> int | None:
        """The number of networks of a posterior of several, according to its settings; None for exactly one.

        Raises:
            ValueError: If the settings are out of range.
        """
        return None

    @classmethod
    def from_arrays(
        cls, networks: Sequence[Any], way: str, settings: Mapping[str, Any], arrays: Arrays, name: str
    ) -> StoredPosterior:
        """Rebuilds a posterior, of settings and arrays that may come from a stranger.

        Args:
            networks: The networks, with their weights. They are not copied.
            way: Name of the inference method.
            settings: Result of `settings`. Other entries are ignored.
            arrays: Result of `arrays`.
            name: Name of the model.

        Raises:
            ValueError: If a setting is missing or out of range, or an array is missing, unexpected, of another shape or
                dtype, or holds NaN or infinity.
        """
        raise NotImplementedError


def _made_again(
    cls: type[StoredPosterior], networks: Sequence[Any], trainable: Sequence[Sequence[bool]], *made_of: Any
) -> StoredPosterior:
    """A posterior of the copies of its networks, in which the same weights are trainable."""
    # The copies of Keras know only of whole layers that are frozen.
    for network, values in zip(networks, trainable, strict=True):
        for variable, value in zip(network.weights, values, strict=True):
            variable.trainable = value
    return cls.from_arrays(networks, *made_of)


def integer_of(settings: Mapping[str, Any], name: str, low: int, high: int) -> int:
    """An integer among settings. ValueError if it is missing or out of range."""
    value = settings.get(name)
    if not is_integer(value) or not low <= value <= high:
        raise ValueError(f"{name!r} must be an integer from {low} to {high}, but is {value!r}.")
    return int(value)


def require_arrays(arrays: Arrays, expected: Mapping[str, tuple[Sequence[int], npt.DTypeLike]]) -> None:
    """Refuses arrays that are not the expected ones: names, shapes and dtypes must agree, and values be finite.

    Args:
        arrays: Arrays to check.
        expected: Shape and dtype of each array, by name.

    Raises:
        ValueError: The message names the first array that differs.
    """
    missing, unexpected = sorted(expected.keys() - arrays.keys()), sorted(arrays.keys() - expected.keys())
    if missing or unexpected:
        raise ValueError(f"The arrays do not fit the posterior: missing {missing}, unexpected {unexpected}.")
    for name, (shape, dtype) in expected.items():
        found = arrays[name]
        if found.shape != tuple(shape) or found.dtype != np.dtype(dtype):
            raise ValueError(
                f"The array {name!r} has shape {found.shape} and dtype {found.dtype}; expected {tuple(shape)} and "
                f"{np.dtype(dtype)}."
            )
        bad = int((~np.isfinite(found)).sum())
        if bad:
            raise ValueError(f"The array {name!r} has {bad} values that are NaN or infinite, of {found.size}.")

"""Ensembles: several trained models of one shape, each an equally probable draw of the posterior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from tfp_bnn.core.arguments import is_integer
from tfp_bnn.core.draws import FiniteDraws
from tfp_bnn.core.noise import require_seed
from tfp_bnn.inference.stored_posterior import Arrays, StoredPosterior, integer_of, require_arrays
from tfp_bnn.models.predictive_model import PredictiveModel
from tfp_bnn.models.variational_mixin import VariationalMixin

MOST_MEMBERS = 100
"""Most members of an ensemble in a recipe, and in an artifact."""

MOST_DRAWS = 10_000
"""Most draws of each member."""


class Ensemble(StoredPosterior):
    """A mixture of trained models, with the same predictions, scores, calibration and reports as one model.

        p(y | x) = 1/M sum_k p(y | x, member k)

    Draw k is member k at its posterior mean. With `draws_per_member=R` the members are variational, or have dropout,
    and draws k, k + M, k + 2 M, ... are R draws of member k. At posterior means, a predictive over all members
    has no Monte Carlo error. That of draws within members is not estimated. Each member keeps what its likelihood has
    learned, such as the noise of a regression. The calibrations of the members are not used; the ensemble has its own.
    Names of classes, units and expected inputs are those of the first member.

    Args:
        members: Built models with the same input shape, output shape and likelihood, and the same names of classes and
            units of targets where they have them.
        draws_per_member: Number R of draws of each member; None for its posterior mean.
        name: Name of the ensemble.

    Raises:
        TypeError: If a member is not a model with `VariationalMixin`.
        ValueError: If there are no members, or one is not built or given twice, or members differ: the message names
            them and says what differs. Also if `draws_per_member` is not from 1 to 10,000, or nothing is random in a
            member.

    References:
        Lakshminarayanan et al. 2017, Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles,
        https://arxiv.org/abs/1612.01474
    """

    way = "ensemble"

    def __init__(
        self, members: Sequence[VariationalMixin], draws_per_member: int | None = None, name: str = "ensemble"
    ) -> None:
        members = list(members)
        _check_members(members)
        if draws_per_member is not None:
            _check_draws(members, draws_per_member)
        self.name = name
        self._take_over(*members)
        self._draws_per_member = None if draws_per_member is None else int(draws_per_member)
        self._members = tuple(members)

    @property
    def members(self) -> tuple[Any, ...]:
        """The member models."""
        return self._members

    @property
    def draws_per_member(self) -> int | None:
        """The number of draws of each member; None for its posterior mean. It cannot be set."""
        return self._draws_per_member

    @property
    def networks(self) -> tuple[Any, ...]:
        """The member models."""
        return self._members

    def settings(self) -> dict[str, Any]:
        """The number of members, and of draws of each, unless they are at their posterior means."""
        drawn = {} if self.draws_per_member is None else {"draws_per_member": self.draws_per_member}
        return {"members": len(self), **drawn}

    @classmethod
    def num_networks(cls, settings: Mapping[str, Any]) -> int | None:
        """The number of members. ValueError if it is out of range."""
        return integer_of(settings, "members", 1, MOST_MEMBERS)

    @classmethod
    def from_arrays(
        cls, networks: Sequence[Any], way: str, settings: Mapping[str, Any], arrays: Arrays, name: str
    ) -> Ensemble:
        """Rebuilds an ensemble; see `StoredPosterior.from_arrays`."""
        require_arrays(arrays, {})
        # Files of ensembles of posterior means have no such entry.
        if settings.get("draws_per_member") is None:
            return cls(networks, name=name)
        return cls(networks, integer_of(settings, "draws_per_member", 1, MOST_DRAWS), name)

    @property
    def num_examples(self) -> int | None:
        """N, the number of training examples, if all members agree; else None."""
        numbers = {member.num_examples for member in self._members}
        return numbers.pop() if len(numbers) == 1 else None

    def __len__(self) -> int:
        """M, the number of members."""
        return len(self._members)

    def __repr__(self) -> str:
        return f"Ensemble({', '.join(_named(self._members))})"

    def draws(self, seed: int = 0) -> FiniteDraws:
        """The members at their posterior means, or `draws_per_member` draws of each.

        Args:
            seed: Integer seed of the draws of members. It has no effect on posterior means.
        """
        require_seed(seed)
        if self.draws_per_member is None:
            return self.plug_in_draws()
        of_members = [member.draws(seed) for member in self._members]
        # Each draw keeps its own number, so no two draws share noise.
        numbered = [(k % len(self), k) for k in range(self.draws_per_member * len(self))]
        return FiniteDraws(
            [of_members[member](k) for member, k in numbered],
            [of_members[member].likelihood_weights(k) for member, k in numbered],
        )

    def plug_in_draws(self) -> FiniteDraws:
        """The members at their posterior means."""
        of_members = [member.plug_in_draws() for member in self._members]
        return FiniteDraws([draws(0) for draws in of_members], [draws.likelihood_weights(0) for draws in of_members])

    def kl_by_layer(self) -> dict[str, tf.Tensor]:
        """Empty: the members are points found by training, which have no density and so no KL to the prior."""
        return {}

    def _check_inputs(self, x: Any) -> None:
        self._members[0]._check_inputs(x)

    def _check_examples(self, x: Any, y: Any) -> None:
        self._members[0]._check_examples(x, y)

    def _check_weights(self) -> None:
        for member in self._members:
            member._check_weights()


def ensemble(
    models: Sequence[VariationalMixin], draws_per_member: int | None = None, name: str = "ensemble"
) -> Ensemble:
    """Joins trained models of one shape into one posterior: see `Ensemble`.

    Args:
        models: Built models with the same input shape, output shape and likelihood, at least one. They are not copied.
            Where they have `class_names` or `target_units`, these are the same, in the same order.
        draws_per_member: Number R of draws of each member; None for its posterior mean.
        name: Name of the ensemble.

    Returns:
        An `Ensemble`.

    Raises:
        TypeError: If a member is not a model with `VariationalMixin`.
        ValueError: If members differ, as in `Ensemble`.

    Example:
        >>> import keras, numpy as np, tfp_bnn
        >>> def member(seed):
        ...     layer = tfp_bnn.layers.DenseReparameterization(3, kernel_posterior="delta")
        ...     return tfp_bnn.VariationalSequential([keras.Input((2,)), layer], seed=seed, name=f"member_{seed}")
        >>> joined = tfp_bnn.inference.ensemble([member(0), member(1)])
        >>> joined.posterior_predictive(np.ones((5, 2))).samples.shape
        (2, 5, 3)
    """
    return Ensemble(models, draws_per_member, name)


def members_of(model: PredictiveModel) -> tuple[Any, ...]:
    """The models that hold the weights of a model: itself, the members of an ensemble, or the network of another."""
    # Not a property of all models: Keras saves what it finds in a model's attributes, and would recurse forever.
    return model.networks if isinstance(model, StoredPosterior) else (model,)


def _named(models: Sequence[Any]) -> list[str]:
    """A description of each member; its index tells members with equal names apart."""
    return [f"{model.name!r} (member {index})" for index, model in enumerate(models)]


def _check_members(models: Sequence[Any]) -> None:
    if not models:
        raise ValueError("An ensemble has at least one member, but got none.")
    for index, model in enumerate(models):
        if not isinstance(model, VariationalMixin):
            raise TypeError(
                f"Member {index} of the ensemble is {type(model).__name__}; expected a VariationalModel, a "
                "VariationalSequential or another model with VariationalMixin."
            )
    names = _named(models)
    for name, model in zip(names, models, strict=True):
        if not model.built or getattr(model, "outputs", None) is None:
            raise ValueError(f"The model {name} is not built, so its shape is not known. Build it first.")
    seen: dict[int, str] = {}
    for name, model in zip(names, models, strict=True):
        if id(model) in seen:
            raise ValueError(f"{seen[id(model)]} and {name} are the same model. Train each member from its own seed.")
        seen[id(model)] = name
    for what, of_model in (
        ("input shapes", lambda model: [tuple(tensor.shape[1:]) for tensor in model.inputs]),
        ("output shapes", lambda model: [tuple(tensor.shape[1:]) for tensor in model.outputs]),
        ("likelihoods", lambda model: model.likelihood),
        ("class_names", lambda model: model.class_names),
        ("target_units", lambda model: model.target_units),
    ):
        # Names that are not known do not differ.
        found = [(name, of_model(model)) for name, model in zip(names, models, strict=True)]
        known = [(name, value) for name, value in found if value is not None]
        if any(value != known[0][1] for _, value in known):
            listed = "; ".join(f"{name} has {value!r}" for name, value in known)
            raise ValueError(
                f"The members of the ensemble have different {what}: {listed}. Only models of one shape and likelihood "
                "whose outputs mean the same can be averaged."
            )


def _check_draws(models: Sequence[VariationalMixin], draws_per_member: int) -> None:
    if not is_integer(draws_per_member) or not 1 <= draws_per_member <= MOST_DRAWS:
        raise ValueError(
            f"`draws_per_member` must be an integer from 1 to {MOST_DRAWS} or None, but got {draws_per_member!r}."
        )
    for name, model in zip(_named(models), models, strict=True):
        if model.draws().num_draws is not None:
            raise ValueError(
                f"Got draws_per_member={draws_per_member}, but nothing is random in {name}. Use draws_per_member=None."
            )

"""Implements `inference` of a recipe: a different posterior in the architecture, or several members."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfp_bnn.posteriors import POSTERIORS
from zoo.hub.networks import POINT
from zoo.recipes import Recipe

_MAX_SEED = 2**31
_FLAT = "flat"
_WITH_SPREAD = ("variational", "vbll")
_WITH_DROPOUT = ("variational", "mc_dropout", "ensemble")
# An ensemble is of points unless it is told otherwise.
_WITH_ANY_POSTERIOR = ("ensemble",)


def architecture_arguments(recipe: Recipe) -> dict[str, Any]:
    """Returns the arguments of a recipe's architecture, with the distributions that its `inference` needs.

    Args:
        recipe: A validated recipe.

    Returns:
        `recipe.model`, with `kernel_posterior: delta` for all methods that start from points, and `kernel_prior: flat`
        for maximum likelihood.

    Raises:
        ValueError: For arguments that contradict `inference`, or Monte Carlo dropout without dropout.
    """
    arguments, way = dict(recipe.model), recipe.inference
    given, dropout = arguments.get("kernel_posterior"), arguments.get("dropout") or 0.0
    if way == "mc_dropout" and not dropout:
        raise _contradiction(recipe, "needs dropout, but `model` has none. Add dropout: 0.1, or another rate")
    if dropout and way not in _WITH_DROPOUT:
        raise _contradiction(recipe, f"needs one set of weights, but `model` has dropout: {dropout}. Use mc_dropout")
    if way == "maximum_likelihood" and arguments.setdefault("kernel_prior", _FLAT) not in (_FLAT, {"name": _FLAT}):
        prior = arguments["kernel_prior"]
        raise _contradiction(recipe, f"has no prior, but `model` has kernel_prior: {prior}. Use kernel_prior: flat")
    if way in _WITH_SPREAD:
        if given is not None and not POSTERIORS.get(given).has_spread:
            raise _contradiction(recipe, f"needs a posterior with a spread, not {given!r}. Use inference: map")
        return arguments
    if given is None:
        return {**arguments, "kernel_posterior": POINT}
    if way not in _WITH_ANY_POSTERIOR and POSTERIORS.get(given).has_spread:
        raise _contradiction(recipe, f"needs points, but `model` has kernel_posterior: {given!r}. Remove it")
    return arguments


def member_recipes(recipe: Recipe) -> list[Recipe]:
    """Returns the recipe of each network to train: the recipe itself, or one per member of an ensemble.

    Members differ only in their seed. The members of training seed s have the seeds s * M to s * M + M - 1, so
    ensembles with different training seeds share no member.

    Raises:
        ValueError: If the training seed is too large for that.
    """
    if recipe.inference != "ensemble":
        return [recipe]
    number = recipe.members or 1
    first = recipe.seed * number
    if first + number > _MAX_SEED:
        raise ValueError(
            f"The seed {recipe.seed} is too large for {number} members. Use one below {_MAX_SEED // number}."
        )
    return [recipe.model_copy(update={"seed": first + index}) for index in range(number)]


def joined_history(histories: list[Mapping[str, list[float]]]) -> Mapping[str, list[float]]:
    """Returns the history of a run: unchanged for one network, with the prefix `member_<k>/` for several."""
    if len(histories) == 1:
        return histories[0]
    return {f"member_{k}/{name}": values for k, history in enumerate(histories) for name, values in history.items()}


def _contradiction(recipe: Recipe, what: str) -> ValueError:
    return ValueError(f"The recipe {recipe.name!r}: inference: {recipe.inference} {what}.")

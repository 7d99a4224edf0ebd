"""How each inference method turns a recipe into a model: one function per method, and what it refuses beforehand."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

import tfp_bnn
from tfp_bnn.inference import (
    Ensemble,
    SwagIterates,
    full_rank,
    hmc,
    laplace,
    mean_field,
    nuts,
    sgld,
    swag,
    way_of,
)
from tfp_bnn.inference.curvature import EIGEN
from tfp_bnn.inference.function_of_weights import FunctionOfWeights
from tfp_bnn.inference.laplace import chosen_variables
from tfp_bnn.inference.log_posterior import LogPosterior
from tfp_bnn.inference.point_weights import point_variables
from tfp_bnn.models.preparation import attach_optimizer
from tfp_bnn.models.weight_record import count_weights
from zoo.datasets import Dataset
from zoo.hub.members import ZooModel, require_small
from zoo.recipes import Recipe
from zoo.training.inference import joined_history, member_recipes
from zoo.training.log import continued

History = Mapping[str, list[float]]
# Numbers of bytes; samplers have at most 8 statistics.
_FLOAT32, _FLOAT64, _STATISTICS_OF_STATE = 4, 8, 64
# Enough to find out whether Laplace's method fits a network.
_TRIAL_ROWS = 2


@dataclass(frozen=True)
class Trainer:
    """What the functions of this file need of a run.

    Attributes:
        data: Data to train on.
        build: Function that builds the untrained network of a recipe.
        fit: Function that trains the network of a recipe from its first step, or from its newest checkpoint.
        go_on: Function that trains a network further: `go_on(recipe, network, name of the part, epochs, callbacks)`.
        tell: Function that receives messages for the user.
    """

    data: Dataset
    build: Callable[[Recipe], tfp_bnn.VariationalModel]
    fit: Callable[[Recipe], tuple[tfp_bnn.VariationalModel, History]]
    go_on: Callable[[Recipe, tfp_bnn.VariationalModel, str, int, Sequence[keras.callbacks.Callback]], History]
    tell: Callable[[str], None]


Maker = Callable[[Recipe, Trainer], tuple[ZooModel, History]]
"""Function that trains the model of a recipe."""


def train_model(recipe: Recipe, trainer: Trainer) -> tuple[ZooModel, History]:
    """Trains the model of a recipe, by its inference method.

    Args:
        recipe: A recipe that fits its data.
        trainer: The run.

    Returns:
        The model, and the history of its training, empty if there are no epochs.
    """
    return _MAKERS.get(recipe.inference, _fitted)(recipe, trainer)


def check_way_fits(recipe: Recipe, network: tfp_bnn.VariationalModel, data: Dataset) -> None:
    """Refuses, before training, a network that the inference method of a recipe does not fit.

    Args:
        recipe: Recipe.
        network: Its untrained network.
        data: Data to train on.

    Raises:
        ValueError: With the number of weights where there are too many.
    """
    if recipe.inference in _CHECKS:
        _CHECKS[recipe.inference](recipe, network, data)


def trains_by_fit(inference: str) -> bool:
    """Whether an inference method trains its networks by `fit`, in steps on batches."""
    return inference not in _WITHOUT_FIT


def _fitted(recipe: Recipe, trainer: Trainer) -> tuple[ZooModel, History]:
    return trainer.fit(recipe)


def _check_maximum_likelihood(recipe: Recipe, network: tfp_bnn.VariationalModel, data: Dataset) -> None:
    if way_of(network) != recipe.inference:
        raise ValueError(
            f"The recipe {recipe.name!r}: weights of {recipe.architecture} have priors beside `kernel_prior`, so "
            "training would not maximize the likelihood. Use inference: map."
        )


# === Ensembles ===


def _ensemble(recipe: Recipe, trainer: Trainer) -> tuple[ZooModel, History]:
    members, histories = zip(*map(trainer.fit, member_recipes(recipe)), strict=True)
    return Ensemble(members, name=recipe.architecture), joined_history(list(histories))


# === SWAG ===


def _swag(recipe: Recipe, trainer: Trainer) -> tuple[ZooModel, History]:
    network, history = trainer.fit(recipe)
    how, iterates = recipe.swag, _iterates(recipe)
    metrics = network.likelihood.training_metrics(network.output_shape[-1])
    # An optimizer belongs to the strategy under which it is made.
    with network.distribute_strategy.scope():
        optimizer = keras.optimizers.SGD(how.learning_rate, how.momentum)  # type: ignore[union-attr]
        network.compile(optimizer, metrics=metrics)
    attach_optimizer(network)
    more = trainer.go_on(recipe, network, "swag", how.epochs, [iterates])  # type: ignore[union-attr]
    return swag(network, iterates, recipe.architecture), continued(history, more)


def _check_swag(recipe: Recipe, network: tfp_bnn.VariationalModel, data: Dataset) -> None:
    iterates = _iterates(recipe)
    iterates.set_model(network)
    iterates.on_train_begin()
    weights = FunctionOfWeights(network, point_variables(network)).num_weights
    require_small(_FLOAT32 * weights * (iterates.rank + 2), count_weights(network))


def _iterates(recipe: Recipe) -> SwagIterates:
    return SwagIterates(recipe.swag.rank, recipe.swag.every)  # type: ignore[union-attr]


# === Laplace ===


def _laplace(recipe: Recipe, trainer: Trainer) -> tuple[ZooModel, History]:
    network, history = trainer.fit(recipe)
    rows = trainer.data.train
    trainer.tell(f"seed {recipe.seed}: curvature of {len(rows)} rows")
    return laplace(network, rows.x, rows.y, **_settings(recipe), name=recipe.architecture), history


def _check_laplace(recipe: Recipe, network: tfp_bnn.VariationalModel, data: Dataset) -> None:
    settings = _settings(recipe)
    chosen = chosen_variables(network, settings["layers"], only_bayesian=settings["prior_precision"] is None)
    of_weights = FunctionOfWeights(network, chosen)
    shapes = EIGEN[settings["structure"]].shapes(of_weights).values()
    require_small(_FLOAT64 * sum(map(math.prod, shapes)), of_weights.num_weights)
    if settings["prior_precision"] == "marginal_likelihood":
        # So few rows may say nothing about the weights.
        settings["prior_precision"] = 1.0
    trial = slice(_TRIAL_ROWS)
    laplace(network, data.train.x[trial], data.train.y[trial], **settings)


# === All data in each step ===


def _of_full_batches(fit: Callable[..., Any]) -> Maker:
    def fitted(recipe: Recipe, trainer: Trainer) -> tuple[ZooModel, History]:
        network = trainer.build(recipe)
        posterior = _with_bar_on_stderr(fit, network, trainer.data.train, seed=recipe.seed, **_settings(recipe))
        return _named(posterior, network, recipe), {"elbo": [float(bound) for bound in posterior.bounds]}

    return fitted


def _check_full_batches(recipe: Recipe, network: tfp_bnn.VariationalModel, data: Dataset) -> None:
    settings = {**_settings(recipe), "num_steps": 1, "num_draws": 2}
    trial = slice(_TRIAL_ROWS)
    fit = {"full_rank": full_rank, "mean_field": mean_field}[recipe.inference]
    posterior = fit(network, data.train.x[trial], data.train.y[trial], **settings, verbose=0)
    require_small(sum(array.nbytes for array in posterior.arrays().values()), posterior.num_weights)


def _with_bar_on_stderr(function: Callable[..., Any], network: Any, rows: Any, **settings: Any) -> Any:
    # Standard output is for results. There is no bar where nobody sees it move.
    with contextlib.redirect_stdout(sys.stderr):
        return function(network, rows.x, rows.y, **settings, verbose=int(sys.stderr.isatty()))


def _named(posterior: Any, network: tfp_bnn.VariationalModel, recipe: Recipe) -> Any:
    """The posterior, whose own copy of the network can be rebuilt as this one."""
    posterior.name = recipe.architecture
    posterior.network.architecture = network.architecture
    return posterior


# === Markov chains ===


def _chains(sample: Callable[..., Any], in_batches: bool = False) -> Maker:
    def sampled(recipe: Recipe, trainer: Trainer) -> tuple[ZooModel, History]:
        network, rows, settings = trainer.build(recipe), trainer.data.train, _settings(recipe)
        if in_batches:
            settings["batch_size"] = min(recipe.batch_size, len(rows))
        trainer.tell(
            f"seed {recipe.seed}: {recipe.inference} samples {settings['num_chains']} chains; they are not "
            "checkpointed, so a run that is stopped starts again"
        )
        chains = _with_bar_on_stderr(sample, network, rows, seed=recipe.seed, **settings)
        return _named(chains, network, recipe), {}

    return sampled


def _check_chains(recipe: Recipe, network: tfp_bnn.VariationalModel, data: Dataset) -> None:
    how, trial = _settings(recipe), slice(_TRIAL_ROWS)
    prior, spread = how["plain_prior"], how["likelihood_spread"]
    posterior = LogPosterior(network, data.train.x[trial], data.train.y[trial], prior, spread, recipe.inference)
    size_of_state = _FLOAT32 * posterior.num_weights + _STATISTICS_OF_STATE
    require_small(size_of_state * how["num_chains"] * how["num_samples"], posterior.num_weights)


def _settings(recipe: Recipe) -> dict[str, Any]:
    """The settings of the inference method as arguments of its function."""
    return getattr(recipe, recipe.inference).model_dump()


_MAKERS: dict[str, Maker] = {
    "ensemble": _ensemble,
    "swag": _swag,
    "laplace": _laplace,
    "full_rank": _of_full_batches(full_rank),
    "mean_field": _of_full_batches(mean_field),
    "hmc": _chains(hmc),
    "nuts": _chains(nuts),
    "sgld": _chains(sgld, in_batches=True),
}
# All others train networks by `fit`.
_WITHOUT_FIT = ("full_rank", "mean_field", "hmc", "nuts", "sgld")
_CHECKS: dict[str, Callable[[Recipe, tfp_bnn.VariationalModel, Dataset], None]] = {
    "maximum_likelihood": _check_maximum_likelihood,
    "swag": _check_swag,
    "laplace": _check_laplace,
    "full_rank": _check_full_batches,
    "mean_field": _check_full_batches,
    "hmc": _check_chains,
    "nuts": _check_chains,
    "sgld": _check_chains,
}

"""What cards and reports say of each inference method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_CHAINS = "{chains} chains of {samples} states each"


@dataclass(frozen=True)
class WayText:
    """The words for one inference method. In braces are entries of `config.json`, `weights`, `number` and `seed`.

    Attributes:
        subject: What the artifact holds.
        draws: How the numbers of a card were obtained, from `number` draws with the `seed`.
        averaged: What the predictions of a report are averaged over.
        posterior: The posterior of the weights, where no weight has a scale.
    """

    subject: str
    draws: str = "with {number} Monte Carlo samples of the weights (seed {seed})"
    averaged: str = "{number} Monte Carlo samples of the weights, seed {seed}"
    posterior: str = "points, without a scale"


_POINT = WayText("", "with the one set of weights", "one set of weights, the most probable")


def _of_chains(method: str) -> WayText:
    return WayText(
        f"{method}, {_CHAINS}, over the {{weights}} weights of",
        "averaged over {number} states of the chains (seed {seed})",
        f"{{number}} states of {_CHAINS}, seed {{seed}}",
        f"states of Markov chains, {_CHAINS}, each with equal probability",
    )


WAY_TEXTS = {
    "variational": WayText("A variational posterior over the {weights} weights of"),
    "map": WayText("A maximum a posteriori estimate of the {weights} weights of", _POINT.draws, _POINT.averaged),
    "mc_dropout": WayText(
        "Monte Carlo dropout with the {weights} weights of",
        "with {number} Monte Carlo samples of the dropout masks (seed {seed})",
        "{number} Monte Carlo samples of the dropout masks, seed {seed}",
    ),
    "ensemble": WayText(
        "An ensemble of {members}, together the {weights} weights of",
        "averaged over all {number} members",
        "{number} draws, all of an ensemble of {members}",
        "the members, each with equal probability",
    ),
    "maximum_likelihood": WayText(
        "A maximum likelihood estimate, without a prior, of the {weights} weights of", _POINT.draws, _POINT.averaged
    ),
    "vbll": WayText("A variational posterior over the last layer, with points below it, of the {weights} weights of"),
    "swag": WayText(
        "SWAG, a normal posterior from {num_iterates} iterates of SGD, over the {weights} weights of",
        posterior="normal, with the moments of {num_iterates} iterates of SGD, rank {rank}",
    ),
    "laplace": WayText(
        "A Laplace approximation around a maximum a posteriori estimate of the {weights} weights of",
        posterior="normal around the estimate, with {structure} curvature; prior precision {prior_precision:.4g}",
    ),
    "full_rank": WayText(
        "A normal posterior with a covariance between all weights over the {weights} weights of",
        posterior="normal, with a covariance between all weights",
    ),
    "mean_field": WayText(
        "A normal posterior of independent weights, fitted with all examples, over the {weights} weights of",
        posterior="normal, each weight independent of the others",
    ),
    "hmc": _of_chains("Hamiltonian Monte Carlo"),
    "nuts": _of_chains("The No-U-Turn sampler"),
    "sgld": _of_chains("Stochastic gradient Langevin dynamics"),
}

DIAGNOSTICS = {
    "rhat": "largest R-hat of the predictions for the first 100 test inputs",
    "ess": "smallest effective sample size of these predictions",
    "log_marginal_likelihood": "log marginal likelihood, nats",
    "prior_precision": "prior precision",
}
"""Meanings of `model.diagnostics`, by name."""


_OF_DRAWN_MEMBERS = WayText(
    WAY_TEXTS["ensemble"].subject,
    "with {number} Monte Carlo samples of the weights (seed {seed}), in turn of each of {members} members",
    "{number} Monte Carlo samples of the weights, seed {seed}, in turn of each member of an ensemble of {members}",
    "the posteriors of the members, each with equal probability",
)


def text_of(config: Mapping[str, Any]) -> WayText:
    """Returns the words for the inference method that `config.json` names. Older files have no such entry."""
    way = config.get("inference", "variational")
    return _OF_DRAWN_MEMBERS if way == "ensemble" and config.get("draws_per_member") else WAY_TEXTS[way]

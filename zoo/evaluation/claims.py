"""What a card says of its training and its data, against the recipe, the files and the data beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tfp_bnn.core.arguments import is_number
from zoo.core.yaml_text import parse_yaml
from zoo.datasets import Dataset
from zoo.evaluation.card_numbers import QUICK_EXAMPLES

Claims = dict[str, tuple[Any, Any]]
"""What the card says, and what the files and the data say, by name."""


def claims_of(artifact: Mapping[str, Any], manifest: Mapping[str, Any]) -> Claims:
    """Returns the statements of a card that other files decide.

    Args:
        artifact: Result of `read_artifact`.
        manifest: Manifest entry of the artifact.

    Returns:
        Pairs of the statement and the truth: `recipe/...` for beta, training seeds, the seed of the measurement and the
        level of a conformal prediction;
        `listed/...` for the numbers that `tfp-bnn list` shows; `sizes/num_weights`; and `spread/...` for the distance
        between the number of the stored posterior and the mean over the seeds, which is at most (n - 1) / sqrt(n)
        standard deviations for one of n values.

    Raises:
        ValueError: If the recipe in the artifact is not valid YAML.
    """
    card, config = artifact["metrics"], artifact["config"]
    recipe = parse_yaml(artifact["recipe"]) if artifact["recipe"] else {}
    claims: Claims = {}
    if isinstance(recipe, dict):
        was_pruned = "pruning" in (config.get("data") or {})
        claims |= {f"recipe/{name}": pair for name, pair in _of_recipe(card, recipe, was_pruned).items()}
        if how := recipe.get("conformal"):
            claims["recipe/level"] = ((config.get("conformal") or {}).get("level"), how.get("level"))
    listed = manifest.get("metrics") or {}
    claims |= {f"listed/{name}": (listed.get(name), card["test"].get(name)) for name in {**card["test"], **listed}}
    claims["sizes/num_weights"] = (config.get("num_weights"), manifest.get("num_weights"))
    return {**claims, **_of_spread(card)}


def sizes_of(artifact: Mapping[str, Any], data: Dataset) -> Claims:
    """Returns the statements about numbers of examples that the data decide, as `claims_of`."""
    card, config = artifact["metrics"], artifact["config"]
    claims: Claims = {}
    if "fine_tuning" not in config.get("data", {}):
        # Of a fine-tuning, the rows are chosen.
        claims["sizes/num_examples"] = (config.get("num_examples"), len(data.train))
    if quick := card.get("quick"):
        claims["sizes/quick"] = (quick["num_examples"], min(QUICK_EXAMPLES, len(data.test)))
    return claims


def _of_recipe(card: Mapping[str, Any], recipe: Mapping[str, Any], was_pruned: bool) -> Claims:
    evaluation = recipe.get("evaluation") or {}
    claims: Claims = {"seed": (card["seed"], evaluation.get("seed", card["seed"]))}
    if card.get("beta") is not None and is_number(recipe.get("beta")):
        claims["beta"] = (card["beta"], recipe["beta"])
    # The recipe of a pruned model is that of its source, whose other seeds are not pruned.
    if "training_seeds" in card and "spread_seeds" in evaluation and not was_pruned:
        seeds = list(dict.fromkeys([recipe.get("seed", 0), *evaluation["spread_seeds"]]))
        claims["training_seeds"] = (card["training_seeds"], seeds)
    return claims


def _of_spread(card: Mapping[str, Any]) -> Claims:
    number, spread = len(card.get("training_seeds", [])), card.get("spread") or {}
    claims: Claims = {}
    if number > 1:
        claims["spread/metrics"] = (sorted(spread), sorted(card["test"]))
    for name, over in spread.items():
        distance = abs(card["test"].get(name, math.nan) - over["mean"])
        most = over["std"] * (number - 1) / math.sqrt(max(number, 1))
        # The truth is the largest distance that is possible; the comparison allows for rounding.
        claims[f"spread/{name}"] = (distance, min(distance, most * (1 + 1e-6) + 1e-9))
    return claims


def agrees(stated: Any, truth: Any) -> bool:
    """Whether a statement is true; numbers to the rounding of float32."""
    if is_number(stated) and is_number(truth):
        return math.isclose(stated, truth, rel_tol=1e-6, abs_tol=1e-12)
    return bool(stated == truth)

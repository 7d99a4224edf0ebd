"""What a report is about: which artifact, how it was trained, and when the report was written."""

from __future__ import annotations

import datetime
import math
import os
from collections.abc import Mapping
from typing import Any

from tfp_bnn.inference import members_of
from tfp_bnn.likelihoods.in_words import in_words
from tfp_bnn.models import PredictiveModel
from zoo.core.yaml_text import parse_yaml

DATE_VARIABLE = "SOURCE_DATE_EPOCH"
"""Environment variable with the seconds since 1970 that stand for now, as in reproducible builds."""


def provenance(model: PredictiveModel, name: str) -> dict[str, str]:
    """Returns what is known of an artifact, in words, by name: only that which is known.

    Args:
        model: Model; one of the zoo has a card.
        name: Name of the artifact.
    """
    card = getattr(model, "card", None) or {}
    config, metrics, recipe = card.get("config", {}), card.get("metrics", {}), _recipe(card)
    examples = getattr(model, "num_examples", None) or config.get("num_examples")
    beta = metrics.get("beta", recipe.get("beta", getattr(model, "beta", None)))
    facts = {
        "artifact": name if config else f"{name} (a model in memory, without a card)",
        "architecture": config.get("architecture"),
        "recipe": recipe.get("name"),
        "overrides": _overrides(recipe),
        "epochs": str(recipe["epochs"]) if "epochs" in recipe else None,
        "steps": str(recipe["steps"]) if recipe.get("steps") else None,
        "beta": None if beta is None or math.isnan(beta) else f"{beta:g}{_temperature(beta)}",
        "training examples, N": f"{examples:,}" if examples else None,
    }
    return {key: value for key, value in facts.items() if value}


def subtitle(facts: Mapping[str, str], date: str) -> str:
    """Returns the line below the title of a report.

    Args:
        facts: Result of `provenance`.
        date: Result of `date_of_report`.
    """
    parts = [facts["artifact"]]
    if facts.get("overrides"):
        parts.append(f"overrides: {facts['overrides']}")
    parts += [f"{facts[key]} {key}" for key in ("epochs", "steps") if key in facts]
    parts += [f"beta {facts['beta']}"] if "beta" in facts else []
    parts += [f"N = {facts['training examples, N']}"] if "training examples, N" in facts else []
    return " · ".join([*parts, date])


def likelihood_in_words(model: PredictiveModel) -> str:
    """Returns the likelihood of a model with its learned values; those of each member of an ensemble."""
    texts = [in_words(model.likelihood, member.likelihood_weights) for member in members_of(model)]
    return texts[0] if len(set(texts)) == 1 else " | ".join(texts)


def date_of_report() -> str:
    """Returns the date of today in UTC, such as `2026-03-01`, or that of `SOURCE_DATE_EPOCH` if it is set.

    Raises:
        ValueError: If that is not a number of seconds.
    """
    given = os.environ.get(DATE_VARIABLE)
    if given is None:
        return datetime.datetime.now(datetime.UTC).date().isoformat()
    try:
        return datetime.datetime.fromtimestamp(int(given), datetime.UTC).date().isoformat()
    except (ValueError, OverflowError, OSError):
        raise ValueError(
            f"The environment variable {DATE_VARIABLE} is {given!r}. Expected whole seconds since 1970; or unset it."
        ) from None


def _recipe(card: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        found = parse_yaml(card.get("recipe") or "")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _overrides(recipe: Mapping[str, Any]) -> str | None:
    changes = recipe.get("overrides")
    if not recipe:
        return None
    return ", ".join(f"{key}={value}" for key, value in changes.items()) if changes else "none"


def _temperature(beta: float) -> str:
    return " (a cold posterior)" if beta < 1 else ""

"""What a card says of how a variational posterior was trained, and whether it is at the optimum of the ELBO."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import yaml

# Of the logarithm of the temperature of the scales, which is estimated from 20 draws or fewer.
_NEAR_OPTIMUM = 0.1


def training_lines(recipe: str) -> list[str]:
    """Returns what tells the training of a posterior from that by `fit` with a usual optimizer, as lines of a list.

    Args:
        recipe: Text of `recipe.yaml`.
    """
    values = yaml.safe_load(recipe) or {}
    lines = []
    how, start = (values.get("optimizer") or {}).get("natural_gradient"), values.get("deterministic_start")
    if how is not None:
        cold = f"; a cold posterior, of temperature {how['temperature']:g}" if how["temperature"] != 1 else ""
        lines.append(f"- trained along the natural gradient, curvature rate {how['curvature_rate']:g}{cold}")
    if start is not None:
        found = "" if start.get("model") is None else f": those of {start['model']}"
        lines.append(f"- the means were trained first, as a point estimate, for {start['epochs']} epochs{found}")
    return lines


def optimum_lines(metrics: Mapping[str, Any]) -> list[str]:
    """Returns what tells a posterior at the optimum of the ELBO from one that is cold or was stopped short of it.

    Args:
        metrics: Contents of `metrics.json`.
    """
    numbers = metrics.get("optimum")
    if not numbers:
        return []
    temperature = numbers["temperature_of_scales"]
    if abs(math.log(max(temperature, 1e-9))) <= _NEAR_OPTIMUM:
        where = "as at the optimum of the ELBO"
    elif temperature < 1:
        where = "narrower than at the optimum of the ELBO: cooled, or stopped short of it"
    else:
        where = "wider than at the optimum of the ELBO: stopped short of it"
    return [
        f"- ELBO at beta 1: {numbers['elbo']:.4g} nats per training example; expected NLL: {numbers['nll']:.4g}",
        f"- temperature of the scales: {temperature:.3g}, {where}",
    ]

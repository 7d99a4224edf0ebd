"""How near two predictives are, by the kind of their targets: what of a predictive is compared, and the distances."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tfp_bnn.likelihoods.scoring import for_each_class

NUM_LEVELS = 50
LEVELS = ((np.arange(NUM_LEVELS) + 0.5) / NUM_LEVELS).tolist()
"""Levels of the quantiles that stand for the distribution of a number: the middles of 50 equal parts."""

Array = npt.NDArray[Any]


def _probabilities(predictive: Any) -> Array:
    return np.asarray(predictive.mean(), np.float32)


def _of_each_class(predictive: Any) -> Array:
    return for_each_class(_probabilities(predictive))


def _quantiles(predictive: Any) -> Array:
    return np.moveaxis(np.asarray(predictive.quantiles(LEVELS), np.float32), 0, -1)


def _between_classes(ours: Array, reference: Array) -> dict[str, float]:
    return {
        "agreement": float(np.mean(ours.argmax(axis=-1) == reference.argmax(axis=-1))),
        "total_variation": float(0.5 * np.abs(ours - reference).sum(axis=-1, dtype=np.float64).mean()),
    }


def _between_labels(ours: Array, reference: Array) -> dict[str, float]:
    return {
        "agreement": float(np.mean((ours > 0.5) == (reference > 0.5))),
        "total_variation": float(np.abs(ours - reference).mean(dtype=np.float64)),
    }


def _between_numbers(ours: Array, reference: Array) -> dict[str, float]:
    return {"wasserstein": float(np.abs(ours - reference).mean(dtype=np.float64))}


# By the kind of target.
COMPARED = {"class": _of_each_class, "labels": _probabilities, "number": _quantiles}
DISTANCES = {"class": _between_classes, "labels": _between_labels, "number": _between_numbers}

"""Verifying a model: its golden outputs and the numbers of its card, measured again.

A number is compared with what is measured now, from the same inputs, the same number of samples and the same seed. On
the platform that it comes from the two agree to the last digits; on another they must agree within

    4 standard errors + 1e-4 |number of the card| + 1e-6

where the standard error is the Monte Carlo one, by a jackknife over the samples drawn now: the card has no say in it.
The rest is for float32, and all that there is for numbers without noise: posterior statistics, counts, and the KL where
it has a closed form. Where it has none, its draws are new ones: the standard error is that of the difference of two
means.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from tfp_bnn.core.arguments import is_number
from tfp_bnn.models import PredictiveModel
from tfp_bnn.predictive import score, standard_errors
from zoo.core.validation import validate
from zoo.datasets import DataMissingError, load_dataset
from zoo.evaluation.card_numbers import Block, kl_draws, labelled_blocks, out_of_distribution_block
from zoo.hub.artifacts import GOLDEN_SAMPLES, GOLDEN_SEED
from zoo.hub.cards import posterior_statistics
from zoo.hub.loading import open_model
from zoo.hub.manifest import locate
from zoo.hub.members import records_of
from zoo.hub.reading import read_artifact
from zoo.recipes import EvaluationRecipe

NUM_STANDARD_ERRORS = 4
RELATIVE_TOLERANCE = 1e-4
ABSOLUTE_TOLERANCE = 1e-6
GOLDEN = "golden"

# A number and its standard error, by name.
Numbers = dict[str, tuple[float, float | None]]


class Status(StrEnum):
    """The outcome of a check."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_MEASURED = "not re-measured: data missing"


@dataclass(frozen=True)
class Check:
    """One number of a card, measured again.

    Attributes:
        model: The name of the model.
        quantity: Block and name, such as `"test/nll"`; `"golden"` for the golden outputs, whose number is the largest
            deviation |d| / (1 + |golden|); `"artifact"` for files that cannot be used.
        card: The number in the card; None when it has none.
        measured: The number that was measured now; None when it could not be.
        standard_error: Of `measured`; None for numbers without Monte Carlo noise.
        status: The outcome.
        message: Why it failed or was not measured, where the numbers do not tell.
    """

    model: str
    quantity: str
    card: float | None
    measured: float | None
    standard_error: float | None
    status: Status
    message: str = ""


def verify(name: str | os.PathLike[str], full: bool = False) -> list[Check]:
    """Compares what a model says, and what its card says, with what is measured now.

    The golden outputs and the `quick` numbers (at most 2,000 test examples, 10 samples) take seconds. Everything else
    that the card says about the stored posterior is for `full`: `test`, `test_uncalibrated`, `validation`,
    `out_of_distribution`, `kl` and `posterior`. What it says about other training seeds would need their training.

    Args:
        name: Of a pretrained model, or else the path of an artifact's folder, which is held against its own manifest:
            no trust is needed, because loading runs no code from it and nothing of it is used.
        full: Whether everything is measured.

    Returns:
        A check for each number. Files that are damaged are a failed check; numbers whose data are missing are neither
        passed nor failed.

    Raises:
        ValueError: For an unknown name (names the nearest), or a folder without a manifest.
        PluginError: If a plug-in fails to load.
    """
    locate(name)
    checks = []
    try:
        for check in _checks(str(name), full):
            checks.append(check)
    except (ValueError, OSError) as error:
        checks.append(Check(str(name), "artifact", None, None, None, Status.FAILED, str(error)))
    return checks


def _checks(name: str, full: bool) -> Iterator[Check]:
    artifact, model = read_artifact(name), open_model(name, trust=True)
    yield _golden(name, model, artifact["golden"])
    card, dataset = _mapping(artifact["metrics"]), _mapping(artifact["config"].get("data")).get("dataset")
    if not card:
        raise ValueError("The card has no numbers that could be measured again. Save an artifact that was measured.")
    if not isinstance(dataset, str):
        raise ValueError(
            "The card does not name a dataset, so that none of its numbers could be measured again. Train or fine-tune "
            "the model on a dataset by its name."
        )
    how = _how(card, name)
    data = functools.cache(functools.partial(load_dataset, dataset))

    def labelled(block: str) -> Numbers:
        return _of_block(model, labelled_blocks(model, data(), how.num_samples).get(block), how.seed)

    def outside() -> Numbers:
        return _of_block(model, out_of_distribution_block(data(), how.out_of_distribution, how.num_samples), how.seed)

    def num_examples() -> Numbers:
        return {"test": (len(data().test), None)}

    ways: dict[str, Callable[[], Numbers]] = {
        "num_examples": num_examples,
        "test": functools.partial(labelled, "test"),
        "test_uncalibrated": functools.partial(labelled, "test_uncalibrated"),
        "validation": functools.partial(labelled, "validation"),
        "quick": functools.partial(labelled, "quick"),
        "out_of_distribution": outside,
        "kl": functools.partial(_kl, model),
        "posterior": functools.partial(_posterior, model),
    }
    for block in ways if full else ["quick"]:
        yield from _compare(name, block, _in_card(card, block), ways[block])


def _golden(name: str, model: PredictiveModel, golden: Mapping[str, np.ndarray]) -> Check:
    if set(golden) != {"inputs", "mean"}:
        raise ValueError(
            f"golden.safetensors has {sorted(golden)}; 'inputs' and 'mean' were expected. Restore the folder from "
            "where it came."
        )
    mean = model.posterior_predictive(golden["inputs"], num_samples=GOLDEN_SAMPLES, seed=GOLDEN_SEED).mean()
    if mean.shape != golden["mean"].shape:
        raise ValueError(
            f"The golden outputs have the shape {golden['mean'].shape}, but the model's are {mean.shape}. Restore the "
            "folder from where it came."
        )
    deviation = float(np.max(np.abs(mean - golden["mean"]) / (1.0 + np.abs(golden["mean"]))))
    status = Status.PASSED if deviation <= RELATIVE_TOLERANCE else Status.FAILED
    return Check(name, GOLDEN, 0.0, deviation, None, status)


def _how(card: Mapping[str, Any], name: str) -> EvaluationRecipe:
    settings = {key: card[key] for key in ("num_samples", "seed") if key in card}
    outside = _mapping(card.get("out_of_distribution"))
    if "data" in outside:
        settings["out_of_distribution"] = outside["data"]
    return validate(EvaluationRecipe, settings, f"The card of {name!r}")


def _in_card(card: Mapping[str, Any], block: str) -> dict[str, float]:
    """The numbers of a block of a card by their names."""
    if block == "num_examples":
        return {"test": card[block]} if is_number(card.get(block)) else {}
    part = _mapping(card.get(block))
    if block == "quick":
        part = _mapping(part.get("test"))
    elif block == "kl":
        part = {"total": part.get("total"), **_mapping(part.get("by_layer"))}
    return {key: value for key, value in part.items() if is_number(value) and key != "num_examples"}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _of_block(model: PredictiveModel, block: Block | None, seed: int) -> Numbers:
    if block is None:
        return {}
    predictive = block.predict(model, seed)
    errors = standard_errors(predictive, block.y)
    return {key: (value, errors.get(key)) for key, value in score(predictive, block.y).items()}


def _kl(model: PredictiveModel) -> Numbers:
    draws = kl_draws(model)
    if not draws:
        return {}
    draws = {"total": sum(draws.values(), np.zeros(())), **draws}
    # The card has the mean of as many draws of its own.
    return {key: (float(kl.mean()), float(np.sqrt(2 * kl.var(ddof=1) / len(kl))) or None) for key, kl in draws.items()}


def _posterior(model: PredictiveModel) -> Numbers:
    return {key: (value, None) for key, value in posterior_statistics(*records_of(model)).items()}


def _compare(name: str, block: str, card: Mapping[str, float], measure: Callable[[], Numbers]) -> Iterator[Check]:
    try:
        measured = measure()
    except DataMissingError as error:
        for key, value in card.items():
            yield Check(name, f"{block}/{key}", value, None, None, Status.NOT_MEASURED, str(error))
        return
    for key in {**card, **measured}:
        yield _check(name, f"{block}/{key}", card.get(key), *measured.get(key, (None, None)))


def _check(name: str, quantity: str, card: float | None, measured: float | None, error: float | None) -> Check:
    if card is None:
        return Check(name, quantity, None, measured, error, Status.FAILED, "The card has no such number.")
    if measured is None:
        return Check(name, quantity, card, None, None, Status.FAILED, "The model has no such number.")
    if not math.isfinite(measured):
        return Check(name, quantity, card, None, None, Status.FAILED, f"The number measured now is {measured}.")
    tolerance = NUM_STANDARD_ERRORS * (error or 0.0) + RELATIVE_TOLERANCE * abs(card) + ABSOLUTE_TOLERANCE
    status = Status.PASSED if abs(measured - card) <= tolerance else Status.FAILED
    return Check(name, quantity, card, measured, error, status)

"""Verification of models: golden outputs and the numbers of the card are measured again.

A number of the card is measured again with the same inputs, number of samples and seed, which reproduces it but for the
rounding of float32, whatever the platform and the number of threads. It must agree within

    1e-4 |number of the card| + 1e-6

Rounding can move a single example over a threshold: accuracy, ECE, coverage and the size of conformal sets, which move
in steps, may differ by one example in 2,000. Only a KL without closed form is estimated from new draws, of both
measurements: it may differ by 4 standard errors of their difference. R-hat and effective sample sizes, whose ranks and
cut-offs rounding can move, may differ by 1 %, and so may the temperature of scales, a sum over all weights. What the
card says of its training, of sizes and of the spread over seeds is compared with the recipe, the files and the data.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from tfp_bnn.core.arguments import is_number
from tfp_bnn.core.expected_inputs import any_inputs
from tfp_bnn.core.plugins import load_plugins
from tfp_bnn.likelihoods.scoring import STEPS
from tfp_bnn.models import PredictiveModel
from tfp_bnn.predictive import PosteriorPredictive, standard_errors
from tfp_bnn.predictive.conformal import STEPS as CONFORMAL_STEPS
from zoo.core.shown import shown
from zoo.core.untrusted import ArtifactError, artifact_errors
from zoo.core.validation import validate
from zoo.datasets import DataMissingError, Dataset, load_dataset
from zoo.evaluation.blocks import Block
from zoo.evaluation.card_numbers import (
    agreement_numbers,
    diagnostics_of,
    kl_draws,
    labelled_blocks,
    out_of_distribution_block,
    out_of_distribution_numbers,
)
from zoo.evaluation.claims import Claims, agrees, claims_of, sizes_of
from zoo.evaluation.data_checks import with_groups_of
from zoo.evaluation.optimum import optimum_numbers
from zoo.hub.artifacts import GOLDEN_SAMPLES, GOLDEN_SEED
from zoo.hub.cards import posterior_statistics
from zoo.hub.loading import open_model
from zoo.hub.locating import local, locate
from zoo.hub.members import records_of
from zoo.hub.reading import REFERENCE_NAME, read_artifact
from zoo.recipes import EvaluationRecipe

NUM_STANDARD_ERRORS = 4
RELATIVE_TOLERANCE = 1e-4
ABSOLUTE_TOLERANCE = 1e-6
GOLDEN = "golden"
STATED = ("recipe/", "listed/", "sizes/", "spread/")
"""How the names of checks of statements begin, which need no measurement."""
ONE_EXAMPLE = 1 / 2000
_DIAGNOSTIC_TOLERANCE = 0.01
_COMPARED = ("model", "model_uncalibrated", "plug_in")


@dataclass(frozen=True)
class Number:
    """A number measured now.

    Attributes:
        value: The number.
        standard_error: Its Monte Carlo standard error, or None.
        tolerance: How far it may be from the card beyond the rounding of float32.
    """

    value: float
    standard_error: float | None = None
    tolerance: float = 0.0


Numbers = dict[str, Number]


class Status(StrEnum):
    """Outcome of a check."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_MEASURED = "not re-measured: data missing"


@dataclass(frozen=True)
class Check:
    """One number of a card, measured again.

    Attributes:
        model: Name of the model.
        quantity: Block and name, such as `"test/nll"`. `"golden"` for the golden outputs, with the largest deviation
            |d| / (1 + |golden|) as their number. `"artifact"` for files that cannot be used.
        card: Number on the card, or None if missing.
        measured: Number measured now, or None if that failed.
        standard_error: Standard error of `measured`, or None for numbers without Monte Carlo noise.
        status: Outcome of the check.
        message: Reason for a failure or a missing measurement, if the numbers do not show it.
    """

    model: str
    quantity: str
    card: float | None
    measured: float | None
    standard_error: float | None
    status: Status
    message: str = ""


def verify(name: str | os.PathLike[str], full: bool = False) -> list[Check]:
    """Compares golden outputs and the numbers of the card with new measurements.

    By default: the golden outputs, what the card says of its training and its data, the numbers on the `test` split,
    coverage and size of a `conformal` prediction there, the `quick` numbers (at most 2,000 test examples, 10 samples)
    and the agreement with a stored `reference`, where the model has them. `full` checks everything else on the card
    about the stored posterior: `test_uncalibrated`, `test_plug_in`, `validation`, `out_of_distribution`, `kl`,
    `optimum`, `posterior` and `diagnostics`. The posteriors of the other training seeds and the chains of a reference
    are not there, so their numbers are only compared with the others on the card.

    Args:
        name: Name of a pretrained model, or folder or address of an artifact, which is checked against its own
            manifest. No trust is needed, because loading runs no code from there and the model is not used for anything
            else.
        full: Whether to check everything.

    Returns:
        One check per number. Damaged files are a failed check. Numbers whose data are missing neither pass nor fail.

    Raises:
        ArtifactError: For an unknown name (the message gives the nearest), or a folder without a manifest.
        PluginError: If a plug-in fails to load.
    """
    load_plugins()
    # Of an address, one version is verified.
    place = local(name)
    locate(place)
    checks = []
    try:
        with artifact_errors():
            for check in _checks(str(name), place, full):
                checks.append(check)
    except ArtifactError as error:
        checks.append(Check(str(name), "artifact", None, None, None, Status.FAILED, str(error)))
    return checks


def _checks(name: str, place: str | os.PathLike[str], full: bool) -> Iterator[Check]:
    artifact, model = read_artifact(place), open_model(place, trust=True)
    _, manifest = locate(place)
    yield _golden(name, model, artifact["golden"])
    card, dataset = _mapping(artifact["metrics"]), _mapping(artifact["config"].get("data")).get("dataset")
    if not card:
        raise ValueError("The card has no numbers that could be measured again. Save an artifact that was measured.")
    if not isinstance(dataset, str):
        raise ValueError(
            "The card does not name a dataset, so none of its numbers can be measured again. Train or fine-tune "
            "the model on a dataset by its name."
        )
    how = _how(card, name)

    @functools.cache
    def data() -> Dataset:
        return with_groups_of(model, load_dataset(dataset))

    # Drawn once for the two blocks that need it.
    @functools.cache
    def on_test_split() -> PosteriorPredictive:
        return on_test_block().predict(model, how.seed)

    def on_test_block() -> Block:
        return labelled_blocks(model, data(), how.num_samples)["test"]

    def test() -> Numbers:
        return _of_block(model, on_test_block(), how.seed, on_test_split())

    def conformal() -> Numbers:
        if model.conformal is None:
            return {}
        found = on_test_block().conformal_score(model, how.seed, on_test_split())
        return {
            key: Number(value, None, ONE_EXAMPLE if key in CONFORMAL_STEPS else 0.0) for key, value in found.items()
        }

    def labelled(block: str) -> Numbers:
        return _of_block(model, labelled_blocks(model, data(), how.num_samples).get(block), how.seed)

    def outside() -> Numbers:
        block = out_of_distribution_block(data(), how.out_of_distribution, how.num_samples)
        numbers = _flat(out_of_distribution_numbers(model, data(), block, how.seed))
        # Older cards have means only.
        older = "plug_in" not in _mapping(card["out_of_distribution"])
        stated = _in_card(card, "out_of_distribution")
        return {key: Number(value) for key, value in numbers.items() if key in stated or not older}

    def num_examples() -> Numbers:
        return {"test": Number(len(data().test))}

    def diagnostics() -> Numbers:
        of_model = diagnostics_of(model, data().test.x)
        return {key: Number(value, None, _DIAGNOSTIC_TOLERANCE * abs(value)) for key, value in of_model.items()}

    def optimum() -> Numbers:
        # Older cards do not have it.
        of_model = optimum_numbers(model, data()) if "optimum" in card else {}
        return {key: Number(value, None, _DIAGNOSTIC_TOLERANCE * abs(value)) for key, value in of_model.items()}

    def reference() -> Numbers:
        return _of_reference(model, data(), artifact, how) if "reference" in card else {}

    ways: dict[str, Callable[[], Numbers]] = {
        "num_examples": num_examples,
        "test": test,
        "conformal": conformal,
        "test_uncalibrated": functools.partial(labelled, "test_uncalibrated"),
        "test_plug_in": functools.partial(labelled, "test_plug_in") if "test_plug_in" in card else dict,
        "validation": functools.partial(labelled, "validation"),
        "quick": functools.partial(labelled, "quick"),
        "out_of_distribution": outside,
        "kl": functools.partial(_kl, model),
        "optimum": optimum,
        "posterior": functools.partial(_posterior, model),
        "diagnostics": diagnostics,
        "reference": reference,
    }
    yield from _claims(name, claims_of(artifact, manifest))
    with contextlib.suppress(DataMissingError):
        # The numbers below tell of missing data.
        yield from _claims(name, sizes_of(artifact, data()))
    for block in ways if full else ["num_examples", "test", "conformal", "quick", "reference"]:
        yield from _compare(name, block, _in_card(card, block), ways[block])


def _golden(name: str, model: PredictiveModel, golden: Mapping[str, np.ndarray]) -> Check:
    if set(golden) != {"inputs", "mean"}:
        raise ValueError(
            f"golden.safetensors has {sorted(golden)}; 'inputs' and 'mean' were expected. Restore the folder from "
            "where it came."
        )
    with any_inputs():
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
    """Returns the numbers of a block of a card, by name."""
    if block == "num_examples":
        return {"test": card[block]} if is_number(card.get(block)) else {}
    part = _mapping(card.get(block))
    if block == "quick":
        part = _mapping(part.get("test"))
    elif block == "reference":
        # The numbers of the chains themselves are not measured again.
        part = {of: _mapping(part.get(of)) for of in _COMPARED}
    elif block == "kl":
        part = {"total": part.get("total"), **_mapping(part.get("by_layer"))}
    return {key: value for key, value in _flat(part).items() if is_number(value) and key != "num_examples"}


def _flat(part: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a mapping and of those in it, by path."""
    flat: dict[str, Any] = {}
    for key, value in part.items():
        flat |= {f"{key}/{inner}": x for inner, x in value.items()} if isinstance(value, Mapping) else {key: value}
    return flat


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _of_block(
    model: PredictiveModel, block: Block | None, seed: int, predictive: PosteriorPredictive | None = None
) -> Numbers:
    if block is None:
        return {}
    predictive = block.predict(model, seed) if predictive is None else predictive
    errors = standard_errors(predictive, block.y) if predictive.has_draws else {}
    return {
        key: Number(value, errors.get(key), ONE_EXAMPLE if key in STEPS else 0.0)
        for key, value in block.score(model, seed, predictive).items()
    }


def _kl(model: PredictiveModel) -> Numbers:
    draws = kl_draws(model)
    if not draws:
        return {}
    draws = {"total": sum(draws.values(), np.zeros(())), **draws}

    def number(kl: np.ndarray) -> Number:
        # The number on the card is the mean of as many draws.
        error = float(np.sqrt(2 * kl.var(ddof=1) / len(kl)))
        return Number(float(kl.mean()), error or None, NUM_STANDARD_ERRORS * error)

    return {key: number(kl) for key, kl in draws.items()}


def _posterior(model: PredictiveModel) -> Numbers:
    return {key: Number(value) for key, value in posterior_statistics(*records_of(model)).items()}


def _of_reference(model: PredictiveModel, data: Dataset, artifact: Mapping[str, Any], how: EvaluationRecipe) -> Numbers:
    arrays, card = artifact["reference"], _mapping(artifact["metrics"].get("reference"))
    if "predictive" not in arrays:
        raise ValueError(
            f"The card compares with a reference, but {REFERENCE_NAME} has the arrays {sorted(arrays)}; 'predictive' "
            "was expected. Restore the folder from where it came."
        )
    if card.get("test_sha256") != data.test.digest:
        raise ValueError(
            f"The reference is for other inputs than the test split of {data.name!r}: SHA-256 "
            f"{card.get('test_sha256')} and {data.test.digest}. Make it again."
        )
    numbers = agreement_numbers(model, data, arrays["predictive"], how.seed)
    return {
        f"{of}/{key}": Number(value, None, ONE_EXAMPLE if key in (*STEPS, "agreement") else 0.0)
        for of, part in numbers.items()
        for key, value in part.items()
    }


def _compare(name: str, block: str, card: Mapping[str, float], measure: Callable[[], Numbers]) -> Iterator[Check]:
    try:
        measured = measure()
    except DataMissingError as error:
        for key, value in card.items():
            yield Check(name, f"{block}/{key}", value, None, None, Status.NOT_MEASURED, str(error))
        return
    for key in {**card, **measured}:
        yield _check(name, f"{block}/{key}", card.get(key), measured.get(key))


def _check(name: str, quantity: str, card: float | None, measured: Number | None) -> Check:
    if measured is None:
        return Check(name, quantity, card, None, None, Status.FAILED, "The model has no such number.")
    value, error = measured.value, measured.standard_error
    if card is None:
        return Check(name, quantity, None, value, error, Status.FAILED, "The card has no such number.")
    if not math.isfinite(value):
        return Check(name, quantity, card, None, None, Status.FAILED, f"The number measured now is {value}.")
    tolerance = measured.tolerance + RELATIVE_TOLERANCE * abs(card) + ABSOLUTE_TOLERANCE
    status = Status.PASSED if abs(value - card) <= tolerance else Status.FAILED
    return Check(name, quantity, card, value, error, status)


def _claims(name: str, claims: Claims) -> Iterator[Check]:
    for quantity, (stated, truth) in claims.items():
        card, measured = (float(value) if is_number(value) else None for value in (stated, truth))
        holds = agrees(stated, truth)
        message = "" if holds else f"The card says {shown(stated)}; its files and data say {shown(truth)}."
        yield Check(name, quantity, card, measured, None, Status.PASSED if holds else Status.FAILED, message)

"""Measures the cards of bundled artifacts again: `python -m zoo.evaluation.remeasuring`, of all or of those named.

After a change to what is measured, or to the draws of a seed, this brings the bundled artifacts up to date. Weights,
calibration, recipe and log stay as they are. The golden outputs and the numbers of the stored posterior are new. Those
of the other training seeds stay as they were measured after their training, since only their spread is stored.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from tfp_bnn.core.expected_inputs import any_inputs
from zoo.core.files import write_atomically
from zoo.core.validation import validate
from zoo.datasets import load_dataset
from zoo.evaluation.card_numbers import agreement_numbers, measure
from zoo.evaluation.data_checks import with_groups_of
from zoo.hub.artifacts import GOLDEN_SAMPLES, GOLDEN_SEED
from zoo.hub.loading import open_model
from zoo.hub.locating import locate
from zoo.hub.manifest import bundled_models, to_json, write_package_manifest
from zoo.hub.reading import read_artifact
from zoo.hub.renewal import write_card
from zoo.recipes import EvaluationRecipe


def measure_again(name: str | os.PathLike[str]) -> Path:
    """Measures the numbers of an artifact again, and writes them with its card and its golden outputs.

    Args:
        name: Name of a bundled model, or folder of an artifact. What is in it is trusted.

    Returns:
        Its folder.

    Raises:
        DataMissingError: If a dataset is not on this machine.
        ValueError: If a file is missing, changed or malformed.
    """
    (folder, _), artifact, model = locate(name), read_artifact(name), open_model(name, trust=True)
    config, before = artifact["config"], artifact["metrics"]
    data = with_groups_of(model, load_dataset(config["data"]["dataset"]))
    settings = {
        "num_samples": before["num_samples"],
        "seed": before["seed"],
        "out_of_distribution": before["out_of_distribution"]["data"],
    }
    how = validate(EvaluationRecipe, settings, f"The card of {name!r}")
    measured = measure(model, data, how)
    # Known only from the training.
    measured.pop("beta", None)
    metrics = {**before, **measured}
    metrics["spread"] = moved_spread(before, metrics["test"])
    if "reference" in before:
        predictive = artifact["reference"]["predictive"]
        numbers = agreement_numbers(model, data, predictive, how.seed)
        metrics["reference"] = {**before["reference"], **numbers}
    inputs = artifact["golden"]["inputs"]
    with any_inputs():
        mean = model.posterior_predictive(inputs, num_samples=GOLDEN_SAMPLES, seed=GOLDEN_SEED).mean()
    write_atomically(folder / "golden.safetensors", safetensors.numpy.save({"inputs": inputs, "mean": np.array(mean)}))
    write_atomically(folder / "metrics.json", to_json(metrics))
    write_card(folder, config, metrics)
    return folder


def moved_spread(before: Mapping[str, Any], test: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """The spread over training seeds, after the numbers of the first seed were measured again.

    Args:
        before: Contents of `metrics.json`, with `test`, `training_seeds` and `spread`.
        test: The new numbers of the first seed.

    Returns:
        Mean and standard deviation (n - 1) of each number: exact, because both sums are known.
    """
    number, spread = len(before.get("training_seeds", [])), {}
    for name, over in before.get("spread", {}).items():
        old, new = before["test"][name], test[name]
        total = number * over["mean"] - old + new
        squares = (number - 1) * over["std"] ** 2 + number * over["mean"] ** 2 - old**2 + new**2
        variance = max(0.0, squares - total**2 / number) / (number - 1)
        spread[name] = {"mean": total / number, "std": math.sqrt(variance)}
    return spread


if __name__ == "__main__":
    for _name in sys.argv[1:] or bundled_models():
        print(measure_again(_name), write_package_manifest())

"""The mistake of peers that concerns a collection: counts of parameters that were typed by hand, and wrong."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest

import zoo
from tfp_bnn.models.weight_record import count_weights
from zoo.hub.manifest import bundled_models
from zoo.hub.reading import read_artifact

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(bundled_models())


@pytest.mark.parametrize("name", NAMES)
def test_parameter_counts_are_not_typed_by_hand(name):
    model, artifact = zoo.load_model(name), read_artifact(name)
    weights = []
    for layer in model.variational_layers:
        weights += layer.variational_weights.values()
        weights += [] if "bias" in layer.variational_weights or layer.bias is None else [layer.bias]
    # Normalizations between them.
    bayesian = {id(layer) for layer in model.variational_layers}
    weights += [weight for layer in model.layers if id(layer) not in bayesian for weight in layer.trainable_weights]
    counted = sum(int(np.prod(weight.shape)) for weight in weights)
    assert count_weights(model) == counted > 0
    (row,) = [
        row for row in csv.DictReader((ROOT / "zoo/results/test.csv").read_text().splitlines()) if row["name"] == name
    ]
    (line,) = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith(f"| `{name}` |")]
    (of_card,) = re.findall(r"(?:over|of) the ([\d,]+) weights of", artifact["card"])
    assert {
        "the manifest": bundled_models()[name]["num_weights"],
        "the config": artifact["config"]["num_weights"],
        "the card": int(of_card.replace(",", "")),
        "the results": int(row["num_weights"]),
        "the README": int(line.split("|")[2].strip().replace(",", "")),
    } == dict.fromkeys(("the manifest", "the config", "the card", "the results", "the README"), counted)


def test_the_accuracy_of_the_served_plug_in_is_that_of_the_results():
    (told,) = re.findall(r"10,000 test images, and of (\S+) in 32\s+bits", (ROOT / "docs/serving.md").read_text())
    rows = csv.DictReader((ROOT / "zoo/results/test.csv").read_text().splitlines())
    (row,) = [row for row in rows if row["name"] == "lenet5_flipout.mnist"]
    assert float(told) == float(row["accuracy_plug_in"])

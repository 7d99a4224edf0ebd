"""The results in the package, and the cards that they agree with."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tfp_bnn.models.weight_record import WeightRecord
from zoo.evaluation.results_table import models_table, read_results
from zoo.hub.cards import model_card, posterior_statistics
from zoo.hub.manifest import bundled_models
from zoo.hub.reading import read_artifact

RESULTS = {row["name"]: row for row in read_results()}


def test_every_bundled_model_has_its_row():
    assert list(RESULTS) == list(bundled_models())
    assert len(RESULTS) >= 5


@pytest.mark.parametrize("name", sorted(bundled_models()))
def test_results_agree_with_the_card(name):
    artifact, row = read_artifact(name), RESULTS[name]
    config, metrics = artifact["config"], artifact["metrics"]
    exact = {
        "dataset": config["data"]["dataset"],
        "task": config["data"]["task"],
        "num_weights": str(config["num_weights"]),
        "num_examples": str(metrics["num_examples"]),
        "num_samples": str(metrics["num_samples"]),
        "seed": str(metrics["seed"]),
        "num_training_seeds": str(len(metrics["training_seeds"])),
        "ood_data": metrics.get("out_of_distribution", {}).get("data", ""),
    }
    assert {column: row[column] for column in exact} == exact
    calibration = config.get("calibration") or {}
    numbers = {
        "beta": metrics["beta"],
        "temperature": calibration.get("temperature"),
        "scale": calibration.get("scale"),
        "kl": metrics["kl"]["total"],
        **metrics["test"],
        **{
            f"{key}_{of}": value
            for of in ("uncalibrated", "plug_in")
            for key, value in metrics.get(f"test_{of}", {}).items()
        },
        **{f"{key}_spread": value["std"] for key, value in metrics["spread"].items()},
        **{
            f"ood_{key}": value
            for key, value in metrics.get("out_of_distribution", {}).items()
            if f"ood_{key}" in row and key != "data"
        },
        **{
            f"ood_{key}_{of}": value
            for of in ("uncalibrated", "plug_in")
            for key, value in metrics["out_of_distribution"].get(of, {}).items()
        },
        **metrics.get("posterior", {}),
    }
    for column, value in numbers.items():
        if value is None:
            assert row[column] == ""
        else:
            # Drawn again if the KL has no closed form.
            tolerance = 0.02 if column == "kl" else 1e-3
            assert float(row[column]) == pytest.approx(value, rel=tolerance, abs=1e-4), column


def test_table_shows_the_results():
    for name, row in RESULTS.items():
        (line,) = [line for line in models_table().splitlines() if f"`{name}`" in line]
        assert f"| {int(row['num_weights']):,} |" in line
        assert f"| {float(row['nll']):.4g} |" in line


def test_the_table_is_made_without_tensorflow():
    code = "import sys; from zoo.evaluation import results_table as t; t.models_table(); print(sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for heavy in ("tensorflow", "keras"):
        assert f"'{heavy}'" not in modules


def test_card_shows_numbers_with_and_without_calibration(calibrated_artifact):
    artifact = read_artifact(calibrated_artifact)
    card, metrics, config = artifact["card"], artifact["metrics"], artifact["config"]
    header = (
        "| metric | test | test, not calibrated | test, plug-in mean | mean ± standard deviation over training seeds |"
    )
    assert f"{header}\n|---|---|---|---|---|\n" in card
    nll, raw, plug_in = (metrics[block]["nll"] for block in ("test", "test_uncalibrated", "test_plug_in"))
    spread = metrics["spread"]["nll"]
    numbers = f"| nll | {nll:.4g} | {raw:.4g} | {plug_in:.4g} | {spread['mean']:.4g} ± {spread['std']:.2g} |\n"
    assert numbers in card
    assert f"calibration: temperature {config['calibration']['temperature']:.4g}" in card
    outside = metrics["out_of_distribution"]
    information = metrics["test"]["mutual_information"], outside["mutual_information"]
    assert "| mean over the inputs | test | `uniform` |\n" in card
    assert f"| mutual_information | {information[0]:.4g} | {information[1]:.4g} |\n" in card
    aurocs = (outside["auroc_entropy"], outside["uncalibrated"]["auroc_entropy"], outside["plug_in"]["auroc_entropy"])
    assert "| AUROC by | calibrated | not calibrated | plug-in mean |\n" in card
    assert f"| entropy | {' | '.join(f'{value:.4g}' for value in aurocs)} |\n" in card
    assert f"{outside['num_examples']} inputs of noise" in card
    for name, value in metrics["kl"]["by_layer"].items():
        assert f"  - {name}: {value:.1f} nats\n" in card
    assert f"final beta {metrics['beta']:g}" in card
    for value in metrics["posterior"].values():
        assert f": {value:.4g}\n" in card


def test_card_of_an_artifact_that_was_not_measured():
    config = {
        "name": "mine",
        "num_weights": 2,
        "architecture": "mlp_flipout",
        "config": {"kernel_prior": "normal", "likelihood": "categorical"},
        "num_examples": None,
        "data": {},
    }

    arrays = {"logits/kernel/loc": np.array([0.3, -0.1]), "logits/kernel/scale": np.array([0.2, 0.2])}
    card = model_card(config, {}, "", WeightRecord.from_arrays(arrays))
    assert "calibration: none" in card
    assert "Out of distribution" not in card


def test_posterior_statistics():

    arrays = {
        "a/kernel/loc": np.array([[0.3, -0.4], [0.0, 1.0]]),
        "a/kernel/scale": np.full((2, 2), 0.2),
        "b/kernel/loc": np.array([-0.1]),
        "b/kernel/scale": np.array([0.1]),
        "b/bias": np.array([9.0]),
    }
    # A mean of exactly one scale is not active.
    assert posterior_statistics(WeightRecord.from_arrays(arrays)) == {
        "median_scale": 0.2,
        "median_signal_to_noise": pytest.approx(1.5),
        "active_fraction": 0.6,
    }

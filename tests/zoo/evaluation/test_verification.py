"""Verification: what is true passes, what was changed fails, and what cannot be measured is no pass."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import tfp_bnn
import zoo
from zoo.datasets import DataMissingError
from zoo.evaluation import verification
from zoo.evaluation.card_numbers import measure
from zoo.evaluation.claims import claims_of
from zoo.evaluation.verification import Status, verify
from zoo.hub.reading import read_artifact
from zoo.training.by_recipe import build


def by_quantity(checks):
    return {check.quantity: check for check in checks}


def statuses(checks, prefix=""):
    return {check.status for check in checks if check.quantity.startswith(prefix)}


def tamper(rewrite, folder, *keys, by=1.0):
    """Changes a number in metrics.json, and updates the manifest."""
    metrics = json.loads((folder / "metrics.json").read_text())
    part = metrics
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] += type(part[keys[-1]])(by)
    rewrite("metrics.json", json.dumps(metrics).encode())


@pytest.fixture
def artifact(calibrated_artifact: Path, tmp_path: Path) -> Path:
    """A copy to spoil, which `rewrite` works on."""
    return Path(shutil.copytree(calibrated_artifact, tmp_path / "artifact"))


# === What is true passes ===


def test_default_verification_of_an_artifact(artifact):
    metrics, checks = read_artifact(artifact)["metrics"], by_quantity(verify(artifact))
    assert set(checks) == {
        "golden",
        *(f"recipe/{name}" for name in ("seed", "beta", "training_seeds")),
        *(f"sizes/{name}" for name in ("num_weights", "num_examples", "quick")),
        *(f"{block}/{name}" for block in ("listed", "spread", "test", "quick") for name in metrics["test"]),
        "spread/metrics",
        "num_examples/test",
    }
    assert statuses(checks.values()) == {Status.PASSED}
    assert all(checks[f"test/{name}"].standard_error is not None for name in metrics["test"])


def test_full_verification_measures_every_number_of_the_posterior(artifact):
    metrics, checks = read_artifact(artifact)["metrics"], verify(artifact, full=True)
    assert statuses(checks) == {Status.PASSED}
    expected = {"kl/total"}
    for block in ("test", "test_uncalibrated", "test_plug_in", "validation", "optimum", "posterior"):
        expected |= {f"{block}/{name}" for name in metrics[block]}
    expected |= {f"kl/{name}" for name in metrics["kl"]["by_layer"]}
    for of in ("", "uncalibrated/"):
        for name in ("mutual_information", "entropy"):
            expected |= {f"out_of_distribution/{of}{name}", f"out_of_distribution/{of}auroc_{name}"}
    expected |= {f"out_of_distribution/plug_in/{name}" for name in ("mutual_information", "entropy", "auroc_entropy")}
    assert set(by_quantity(checks)) == expected | set(by_quantity(verify(artifact)))
    for check in checks[1:]:
        if check.card is not None:
            assert check.measured == pytest.approx(check.card, rel=1e-5, abs=1e-6), check.quantity


def test_cards_from_before_there_were_plug_in_numbers_pass(artifact, rewrite):
    metrics = json.loads((artifact / "metrics.json").read_text())
    del metrics["test_plug_in"]
    kept = ("data", "num_examples", "mutual_information", "entropy")
    metrics["out_of_distribution"] = {key: metrics["out_of_distribution"][key] for key in kept}
    rewrite("metrics.json", json.dumps(metrics).encode())
    assert statuses(verify(artifact, full=True)) == {Status.PASSED}


# === What was changed fails ===


@pytest.mark.parametrize(
    "keys",
    [
        ("num_examples",),
        ("quick", "test", "nll"),
        ("kl", "by_layer", "logits"),
        *(
            pytest.param(keys, marks=pytest.mark.slow)
            for keys in (
                ("test", "nll"),
                ("test_uncalibrated", "brier"),
                ("test_plug_in", "ece"),
                ("validation", "entropy"),
                ("out_of_distribution", "mutual_information"),
                ("kl", "total"),
                ("posterior", "active_fraction"),
            )
        ),
    ],
)
def test_a_number_that_was_changed_fails(artifact, rewrite, keys):
    tamper(rewrite, artifact, *keys)
    failed = {check.quantity: check for check in verify(artifact, full=True) if check.status is not Status.PASSED}
    quantity = "num_examples/test" if len(keys) == 1 else f"{keys[0]}/{keys[-1]}"
    # Numbers of the test split are also compared with the list of models and with the spread.
    assert {name for name in failed if not name.startswith(("listed/", "spread/"))} == {quantity}
    assert failed[quantity].status is Status.FAILED
    assert failed[quantity].card == pytest.approx(failed[quantity].measured + 1.0, abs=1e-3)


@pytest.mark.parametrize(
    "forged",
    [
        {
            "test/accuracy": (("test", "accuracy"), 0.9999),
            "test/nll": (("test", "nll"), 0.01),
            "test/ece": (("test", "ece"), 0.0001),
            "recipe/beta": (("beta",), 0.5),
            "num_examples/test": (("num_examples",), 5000),
            "sizes/quick": (("quick", "num_examples"), 10),
        },
        {"recipe/seed": (("seed",), 5), "spread/nll": (("spread", "nll", "std"), 1e-4)},
        {"recipe/training_seeds": (("training_seeds",), [0, 7]), "spread/nll": (("spread", "nll", "mean"), 0.1)},
        {"recipe/training_seeds": (("training_seeds",), [0, 1, 2, 3]), "spread/metrics": (("spread",), {})},
    ],
    ids=", ".join,
)
def test_every_forged_number_of_a_card_fails_by_default(artifact, rewrite, forged):
    metrics = json.loads((artifact / "metrics.json").read_text())
    for keys, value in forged.values():
        part = metrics
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] = value
    rewrite("metrics.json", json.dumps(metrics).encode())
    checks = by_quantity(verify(artifact))
    assert {checks[quantity].status for quantity in forged} == {Status.FAILED}


def test_training_seeds_are_those_that_were_trained(artifact):
    read, recipe = read_artifact(artifact), {"evaluation": {"spread_seeds": [1, 2, 2]}}
    for seed, pruning, expected in ((0, {}, [0, 1, 2]), (2, {}, [2, 1]), (0, {"pruning": {}}, None)):
        config = {**read["config"], "data": {**read["config"]["data"], **pruning}}
        told = claims_of({**read, "config": config, "recipe": json.dumps({"seed": seed, **recipe})}, {})
        assert told.get("recipe/training_seeds", (None, None))[1] == expected


def test_sizes_are_those_of_files_and_data(artifact, rewrite):
    config = json.loads((artifact / "config.json").read_text())
    rewrite("config.json", json.dumps({**config, "num_examples": 10**6, "num_weights": 1}).encode())
    checks = by_quantity(verify(artifact))
    assert checks["sizes/num_examples"].status is checks["sizes/num_weights"].status is Status.FAILED
    assert checks["sizes/num_examples"].message == "The card says 1000000; its files and data say 96."


def test_the_tolerance_is_rounding(artifact, rewrite):
    nll = read_artifact(artifact)["metrics"]["test"]["nll"]
    tamper(rewrite, artifact, "test", "nll", by=0.9e-4 * nll)
    assert by_quantity(verify(artifact))["test/nll"].status is Status.PASSED
    tamper(rewrite, artifact, "test", "nll", by=0.3e-4 * nll)
    assert by_quantity(verify(artifact))["test/nll"].status is Status.FAILED
    # One example in 2,000.
    tamper(rewrite, artifact, "test", "accuracy", by=4.9e-4)
    assert by_quantity(verify(artifact))["test/accuracy"].status is Status.PASSED
    tamper(rewrite, artifact, "test", "accuracy", by=2e-4)
    assert by_quantity(verify(artifact))["test/accuracy"].status is Status.FAILED


def test_a_standard_error_on_the_card_has_no_say(artifact, rewrite):
    metrics = json.loads((artifact / "metrics.json").read_text())
    metrics["quick"]["test"] |= {"nll": 9.0, "standard_error": 100.0}
    rewrite("metrics.json", json.dumps(metrics).encode())
    checks = by_quantity(verify(artifact))
    assert checks["quick/nll"].status is Status.FAILED
    assert checks["quick/standard_error"].status is Status.FAILED
    assert checks["quick/standard_error"].message == "The model has no such number."


def test_a_number_that_the_card_hides_fails(artifact, rewrite):
    metrics = json.loads((artifact / "metrics.json").read_text())
    del metrics["quick"]["test"]["ece"]
    rewrite("metrics.json", json.dumps(metrics).encode())
    check = by_quantity(verify(artifact))["quick/ece"]
    assert (check.status, check.message) == (Status.FAILED, "The card has no such number.")


def test_a_weight_that_was_changed_fails_at_the_golden_outputs(artifact, rewrite):
    tensors = safetensors.numpy.load((artifact / "weights.safetensors").read_bytes())
    tensors["logits/kernel/loc"][0, 0] += 0.05
    rewrite("weights.safetensors", safetensors.numpy.save(tensors))
    golden = by_quantity(verify(artifact))["golden"]
    assert golden.status is Status.FAILED
    assert golden.measured > 1e-4


def test_a_calibration_that_was_changed_fails(artifact, rewrite):
    config = json.loads((artifact / "config.json").read_text())
    config["calibration"]["temperature"] *= 1.5
    rewrite("config.json", json.dumps(config).encode())
    checks = by_quantity(verify(artifact, full=True))
    assert checks["golden"].status is Status.FAILED
    assert statuses(checks.values(), "test_uncalibrated/") == {Status.PASSED}


@pytest.fixture
def with_sets(artifact, rewrite):
    """Gives the artifact sets of a level of 0.8, with what the card says of them."""
    config, metrics = (json.loads((artifact / f"{name}.json").read_text()) for name in ("config", "metrics"))
    model, data = zoo.load_artifact(artifact, trust=True), zoo.load_dataset("iris")
    conformal = tfp_bnn.conformalize(model, data.validation.x, data.validation.y, 0.8, num_samples=10)
    metrics["conformal"] = conformal.score(model.posterior_predictive(data.test.x, 10), data.test.y)
    rewrite("config.json", json.dumps({**config, "conformal": {"name": "sets", **conformal.get_config()}}).encode())
    rewrite("metrics.json", json.dumps(metrics).encode())


@pytest.mark.parametrize(
    "name", [None, *(pytest.param(name, marks=pytest.mark.slow) for name in ("coverage", "mean_size"))]
)
def test_a_forged_coverage_alone_fails_by_default(artifact, with_sets, rewrite, name):
    if name is not None:
        tamper(rewrite, artifact, "conformal", name, by=-0.01)
    checks = by_quantity(verify(artifact))
    assert {"conformal/coverage", "conformal/mean_size"} < set(checks)
    failed = {quantity for quantity, check in checks.items() if check.status is not Status.PASSED}
    assert failed == (set() if name is None else {f"conformal/{name}"})


def test_sets_that_were_changed_or_that_the_card_hides_fail(artifact, with_sets, rewrite):
    config, metrics = (json.loads((artifact / f"{name}.json").read_text()) for name in ("config", "metrics"))
    wider = {**config, "conformal": {**config["conformal"], "thresholds": 1.0}}
    rewrite("config.json", json.dumps(wider).encode())
    check = by_quantity(verify(artifact))["conformal/mean_size"]
    assert (check.status, check.measured) == (Status.FAILED, 3.0)
    del metrics["conformal"]
    rewrite("metrics.json", json.dumps(metrics).encode())
    assert by_quantity(verify(artifact))["conformal/coverage"].message == "The card has no such number."


def test_the_level_is_that_of_the_recipe(artifact, with_sets, rewrite):
    recipe = (artifact / "recipe.yaml").read_text()
    rewrite("recipe.yaml", f"{recipe}conformal: {{level: 0.8, by_class: false}}\n".encode())
    assert by_quantity(verify(artifact))["recipe/level"].status is Status.PASSED
    rewrite("recipe.yaml", f"{recipe}conformal: {{level: 0.9, by_class: false}}\n".encode())
    check = by_quantity(verify(artifact))["recipe/level"]
    assert (check.status, check.card, check.measured) == (Status.FAILED, 0.8, 0.9)


def test_damaged_files_are_a_failed_check(artifact):
    with (artifact / "weights.safetensors").open("ab") as file:
        file.write(b"x")
    (check,) = verify(artifact, full=True)
    assert (check.quantity, check.status, check.measured) == ("artifact", Status.FAILED, None)
    assert "is not the one that was published" in check.message


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("metrics.json", "{}", "no numbers that could be measured again"),
        ("metrics.json", "[1]", "holds list; a mapping of keys was expected"),
        ("metrics.json", '{"test": 5, "num_samples": "many"}', "num_samples"),
        ("metrics.json", '{"test": {"x": 1.0}, "out_of_distribution": {"data": 3}, "kl": 3}', "out_of_distribution"),
        ("golden.safetensors", None, "'inputs' and 'mean' were expected"),
    ],
)
def test_malformed_files_are_a_failed_check(artifact, rewrite, file, text, says):
    rewrite(file, text.encode() if text is not None else safetensors.numpy.save({"mean": np.zeros(2, np.float32)}))
    last = verify(artifact, full=True)[-1]
    assert (last.quantity, last.status) == ("artifact", Status.FAILED)
    assert says in last.message


def test_unknown_name_names_the_nearest():
    with pytest.raises(ValueError, match=r"Did you mean 'mlp_flipout\.iris'"):
        verify("mlp_flipout.irs")


# === What cannot be measured is no pass ===


def no_data(name):
    raise DataMissingError(f"The dataset {name!r} is not prepared.")


def test_missing_data_are_neither_passed_nor_failed(artifact, monkeypatch):
    monkeypatch.setattr(verification, "load_dataset", no_data)
    checks = verify(artifact, full=True)
    for block in ("num_examples/", "test/", "test_uncalibrated/", "validation/", "quick/", "out_of_distribution/"):
        assert statuses(checks, block) == {Status.NOT_MEASURED}
    for block in ("golden", "kl/", "posterior/"):
        assert statuses(checks, block) == {Status.PASSED}
    nll = by_quantity(checks)["test/nll"]
    assert nll.card is not None
    assert nll.measured is None
    assert "is not prepared" in nll.message


def test_missing_out_of_distribution_data_leave_the_rest_to_be_measured(artifact, rewrite, monkeypatch):
    metrics = json.loads((artifact / "metrics.json").read_text())
    metrics["out_of_distribution"]["data"] = "wine"
    rewrite("metrics.json", json.dumps(metrics).encode())
    monkeypatch.setattr("zoo.evaluation.card_numbers.load_dataset", no_data)
    checks = verify(artifact, full=True)
    assert statuses(checks, "out_of_distribution/") == {Status.NOT_MEASURED}
    assert {check.status for check in checks if not check.quantity.startswith("out_")} == {Status.PASSED}


def test_a_measured_number_that_is_not_finite_fails(artifact, monkeypatch):
    monkeypatch.setattr("zoo.evaluation.blocks.score", lambda predictive, y: {"nll": float("nan")})
    check = by_quantity(verify(artifact))["quick/nll"]
    assert (check.status, check.measured) == (Status.FAILED, None)
    assert "nan" in check.message


@pytest.mark.thorough
def test_regression_is_verified_too(tmp_path):
    recipe = zoo.load_recipe(
        {
            "name": "mlp_flipout.d",
            "architecture": "mlp_flipout",
            "dataset": "diabetes",
            "model": {"hidden": [8], "kernel_prior": "scale_mixture"},
            "standardize_inputs": True,
            "standardize_targets": True,
            "epochs": 2,
            "evaluation": {"num_samples": 5},
        }
    )
    data = zoo.load_dataset("diabetes")
    model = build(recipe, data)
    model.fit(data.train.x, data.train.y, epochs=recipe.epochs, verbose=0)
    numbers = measure(model, data, recipe.evaluation)
    about = {"dataset": data.name, "task": data.task}
    folder = zoo.save_artifact(model, tmp_path / "d", recipe=recipe, metrics=numbers, data=about)
    checks = verify(folder, full=True)
    assert statuses(checks) == {Status.PASSED}
    # The KL to a scale mixture is drawn.
    assert by_quantity(checks)["kl/logits"].standard_error > 0
    assert by_quantity(checks)["out_of_distribution/auroc_epistemic_std"].status is Status.PASSED

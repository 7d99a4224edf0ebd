"""References by Markov chains: what they say is stored, shown, and measured again; bad ones are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import zoo
from tfp_bnn.predictive import agreement
from zoo.datasets import Split
from zoo.evaluation.references import MOST_RHAT, SAMPLERS, Reference, Sampler, add_reference, make_reference
from zoo.evaluation.verification import Status, verify
from zoo.hub.cards import AGREEMENT_SAMPLES
from zoo.hub.manifest import bundled_models
from zoo.hub.reading import read_artifact

# Each measures the reference again.
pytestmark = pytest.mark.slow

QUICK = Sampler(num_leapfrog_steps=2, num_samples=6, burn_in=5, num_chains=2)


@pytest.fixture(scope="module")
def reference(tiny_artifact):
    """A reference of few short chains, which says that they have converged. Its arrays are not in C order."""
    made = make_reference(zoo.load_artifact(tiny_artifact, trust=True), zoo.load_dataset("iris"), QUICK, "make it")
    arrays = {name: np.asfortranarray(array) for name, array in made.arrays.items()}
    return Reference(arrays, {**made.about, "worst_rhat": 1.01})


@pytest.fixture
def with_reference(artifact, reference):
    """A copy of the artifact with the reference, which `rewrite` works on."""
    return add_reference(artifact, reference)


def by_quantity(checks):
    return {check.quantity: check for check in checks if check.quantity.startswith("reference/")}


def test_a_reference_says_how_it_was_made(reference):
    about = reference.about
    assert about["method"] == "hmc"
    assert [about[key] for key in ("num_chains", "num_samples", "burn_in", "num_leapfrog_steps")] == [2, 6, 5, 2]
    # 4 x 8 and 8 x 3 kernels, and no biases.
    assert about["num_weights"] == 56
    assert "empirical_bayes=False" in about["priors"]["dense1/kernel"]
    assert reference.arrays["predictive"].shape == reference.arrays["rhat"].shape == (30, 3)
    np.testing.assert_allclose(reference.arrays["predictive"].sum(axis=-1), 1.0, rtol=1e-5)


def test_the_numbers_are_those_of_the_stored_predictions(with_reference, reference):
    numbers = read_artifact(with_reference)["metrics"]["reference"]
    model, data = zoo.load_artifact(with_reference, trust=True), zoo.load_dataset("iris")
    stored = read_artifact(with_reference)["reference"]["predictive"]
    np.testing.assert_array_equal(stored, reference.arrays["predictive"])
    expected = agreement(model.posterior_predictive(data.test.x, num_samples=AGREEMENT_SAMPLES, seed=0), stored)
    assert numbers["model"] == pytest.approx(expected)
    plug_in = model.plug_in_predictive(data.test.x).mean()
    assert numbers["plug_in"]["total_variation"] == pytest.approx(0.5 * np.abs(plug_in - stored).sum(axis=-1).mean())
    assert numbers["plug_in"]["accuracy"] == np.mean(plug_in.argmax(axis=-1) == data.test.y)
    assert numbers["test"]["accuracy"] == np.mean(stored.argmax(axis=-1) == data.test.y)


def test_the_other_numbers_of_the_card_stay(artifact, reference):
    before = read_artifact(artifact)
    after = read_artifact(add_reference(artifact, reference))
    assert {key: value for key, value in after["metrics"].items() if key != "reference"} == before["metrics"]
    assert after["config"] == before["config"]
    assert "## Agreement with Bayes' rule" in after["card"]
    assert "Bayes' rule" not in before["card"]
    assert before["reference"] == {}


def test_chains_that_have_not_converged_are_refused_and_nothing_is_written(artifact, reference):
    before = {path.name: path.read_bytes() for path in artifact.iterdir()}
    for bad in (MOST_RHAT, float("nan")):
        with pytest.raises(ValueError, match="have not converged: the worst R-hat"):
            add_reference(artifact, Reference(reference.arrays, {**reference.about, "worst_rhat": bad}))
    assert {path.name: path.read_bytes() for path in artifact.iterdir()} == before


def test_the_agreement_is_measured_again(with_reference, rewrite):
    checks = by_quantity(verify(with_reference))
    assert {check.status for check in checks.values()} == {Status.PASSED}
    assert {"reference/model/total_variation", "reference/plug_in/nll"} < set(checks)
    metrics = json.loads((with_reference / "metrics.json").read_text())
    metrics["reference"]["model"]["total_variation"] += 0.01
    rewrite("metrics.json", json.dumps(metrics).encode())
    failed = [name for name, check in by_quantity(verify(with_reference)).items() if check.status is Status.FAILED]
    assert failed == ["reference/model/total_variation"]


def test_a_reference_for_other_rows_fails(with_reference, rewrite):
    metrics = json.loads((with_reference / "metrics.json").read_text())
    metrics["reference"]["test_sha256"] = "0" * 64
    rewrite("metrics.json", json.dumps(metrics).encode())
    assert "The reference is for other inputs" in verify(with_reference)[-1].message


def test_a_card_that_lost_its_reference_fails(with_reference):
    from zoo.hub.manifest import describe_files, read_manifest

    (with_reference / "reference.safetensors").unlink()
    manifest = {**read_manifest(with_reference), "files": describe_files(with_reference)}
    (with_reference / "manifest.json").write_text(json.dumps(manifest))
    assert verify(with_reference)[-1].status is Status.FAILED
    assert "has the arrays []; 'predictive' was expected" in verify(with_reference)[-1].message


def test_a_digest_tells_rows_apart():
    x, y = np.zeros((2, 3), np.float32), np.array([0, 1])
    digests = {
        Split(x, y).digest,
        Split(x + 1, y).digest,
        Split(x, y[::-1]).digest,
        Split(x.reshape(2, 3, 1), y).digest,
    }
    assert len(digests) == 4
    assert Split(x.copy(), y.copy()).digest in digests


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_the_small_models_have_a_reference_that_converged(name):
    assert name in bundled_models()
    artifact = read_artifact(name)
    reference, arrays = artifact["metrics"]["reference"], artifact["reference"]
    assert reference["worst_rhat"] == pytest.approx(np.nanmax(arrays["rhat"]), rel=1e-6)
    assert reference["worst_rhat"] < MOST_RHAT
    assert reference["test_sha256"] == zoo.load_dataset(artifact["config"]["data"]["dataset"]).test.digest
    assert f"worst R-hat is {reference['worst_rhat']:.3f}" in artifact["card"]


def test_the_guide_shows_the_numbers_of_the_cards():
    guide = (Path(__file__).parents[3] / "docs" / "inference.md").read_text("utf-8")
    for name in sorted(SAMPLERS):
        reference = read_artifact(name)["metrics"]["reference"]
        distance = list(reference["model"])[-1]
        numbers = [reference["model"][distance], reference["plug_in"][distance]]
        cells = [f"`{name}`", f"{reference['worst_rhat']:.3f}", f"`{distance}`", *(f"{value:.4g}" for value in numbers)]
        assert f"| {' | '.join(cells)} |" in guide

"""The suite measures what plain loops over the predictions of a model give, and refuses early what it cannot judge."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import zoo
from zoo.datasets import DATASETS, DataMissingError
from zoo.datasets.corruptions import CORRUPTIONS, corrupt
from zoo.datasets.development import development_out_of_distribution
from zoo.evaluation import suite as module
from zoo.evaluation.card_numbers import load_outside
from zoo.evaluation.suite import evaluate_suite
from zoo.evaluation.suite_files import suite_csv, write_probabilities

from ..image_parts import tiny_classifier, tiny_images

SAMPLES = 5


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_classifier()


@pytest.fixture(scope="module")
def others() -> Any:
    """Two registered datasets of images: one of the same shape, one larger."""
    names = {"tiny_other": {"seed": 5}, "tiny_large": {"seed": 6, "side": 12}}
    for name, arguments in names.items():
        DATASETS.register(name)(lambda name=name, arguments=arguments: tiny_images(name, **arguments))
    yield list(names)
    for name in names:
        DATASETS.unregister(name)


@pytest.fixture(scope="module")
def suite(model: Any, others: list[str]) -> Any:
    return evaluate_suite(model, tiny_images(), num_samples=SAMPLES, seed=3, out_of_distribution=others)


def test_scores_are_those_of_evaluate_and_of_the_plug_in_mean(model, suite):
    data = tiny_images()
    scores = zoo.evaluate(model, data, num_samples=SAMPLES, seed=3)
    assert {name: suite.scores[name] for name in scores} == scores
    plug_in = model.plug_in_predictive(data.test.x).mean()
    assert suite.plug_in["accuracy"] == np.mean(plug_in.argmax(axis=1) == data.test.y)
    assert suite.plug_in["mutual_information"] == 0
    assert suite.plug_in["nll"] == pytest.approx(-np.log(plug_in[np.arange(60), data.test.y]).mean(), rel=1e-5)


def test_risk_and_coverage_are_those_of_a_loop(model, suite):
    data = tiny_images()
    predictive = model.posterior_predictive(data.test.x, num_samples=SAMPLES, seed=3)
    entropy, wrong = predictive.entropy(), predictive.mean().argmax(axis=1) != data.test.y
    assert len(set(entropy.tolist())) == 60
    risks = []
    for threshold in sorted(entropy.tolist()):
        answered = [w for w, e in zip(wrong, entropy, strict=True) if e <= threshold]
        risks.append(sum(answered) / len(answered))
    assert suite.scores["area_under_risk_coverage"] == pytest.approx(sum(risks) / 60)
    assert suite.risks() == pytest.approx({k / 20: risks[3 * k - 1] for k in range(1, 21)})


def test_out_of_distribution_numbers_are_counted_by_hand(model, suite, others):
    def uncertainty(x: np.ndarray) -> dict[str, np.ndarray]:
        predictive = model.posterior_predictive(x, num_samples=SAMPLES, seed=3)
        return {"entropy": predictive.entropy(), "mutual_information": predictive.epistemic()}

    assert list(suite.out_of_distribution) == others
    inside, outside = uncertainty(tiny_images().test.x), uncertainty(tiny_images(seed=5).test.x)
    for name in inside:
        pairs = [(o > i) + 0.5 * (o == i) for o in outside[name] for i in inside[name]]
        numbers = suite.out_of_distribution["tiny_other"]
        assert numbers[f"auroc_{name}"] == pytest.approx(np.mean(pairs))
        # The highest threshold that at least 95 %, 57 of 60, reach.
        threshold = max(t for t in outside[name] if sum(outside[name] >= t) >= 57)
        assert numbers[f"fpr95_{name}"] == pytest.approx(sum(inside[name] >= threshold) / 60)
    assert set(suite.out_of_distribution_plug_in["tiny_other"]) == {"auroc_entropy", "fpr95_entropy"}


def test_each_corruption_and_severity_is_measured(model, suite):
    data = tiny_images()
    assert list(suite.corruptions) == ["clean", *CORRUPTIONS]
    assert suite.corruptions["clean"] == {0: {key: suite.scores[key] for key in ("accuracy", "nll", "ece")}}
    images = corrupt(data.test.x, "contrast", 4)
    predictive = model.posterior_predictive(images, num_samples=SAMPLES, seed=3)
    measured = suite.corruptions["contrast"][4]
    assert measured["accuracy"] == np.mean(predictive.mean().argmax(axis=1) == data.test.y)
    assert measured["nll"] == pytest.approx(-predictive.log_prob(data.test.y).mean(), rel=1e-5)
    mean = np.mean([suite.corruptions[name][4]["nll"] for name in CORRUPTIONS])
    assert suite.by_severity()[4]["nll"] == pytest.approx(mean)


def test_large_networks_have_fewer_corrupted_images_and_draws(model, monkeypatch):
    monkeypatch.setattr(module, "_MANY_WEIGHTS", 10)
    monkeypatch.setattr(module, "_FEW_EXAMPLES", 7)
    monkeypatch.setattr(module, "_FEW_SAMPLES", 2)
    monkeypatch.setattr(module, "CORRUPTIONS", {"fog": CORRUPTIONS["fog"]})
    found = evaluate_suite(model, tiny_images(), num_samples=3, out_of_distribution=(), split_name="all")
    assert found.to_dict()["split"] == found.split == "all"
    assert (found.num_examples, found.num_samples, found.num_corrupted, found.num_samples_corrupted) == (60, 3, 7, 2)


def test_on_the_validation_split_the_other_data_are_made_from_it(model, monkeypatch):
    monkeypatch.setattr(module, "CORRUPTIONS", {})
    monkeypatch.setattr(module, "load_outside", None)
    data = tiny_images()
    found = evaluate_suite(model, data, "validation", num_samples=3)
    sets = development_out_of_distribution(data.validation.x)
    assert list(found.out_of_distribution) == list(sets)
    outside = model.posterior_predictive(sets["noise"], num_samples=3, seed=0).entropy()
    inside = model.posterior_predictive(data.validation.x, num_samples=3, seed=0).entropy()
    pairs = [(o > i) + 0.5 * (o == i) for o in outside for i in inside]
    assert found.out_of_distribution["noise"]["auroc_entropy"] == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mnist", ["fashion_mnist", "cifar10"]),
        ("fashion_mnist", ["mnist", "cifar10"]),
        ("cifar10", ["fashion_mnist", "mnist"]),
        ("digits", ["fashion_mnist", "cifar10"]),
    ],
)
def test_two_other_datasets_are_the_default(name, expected, monkeypatch):
    monkeypatch.setattr(module, "load_outside", lambda data, other, known: tiny_images(other, side=12))
    found = module._outside(tiny_images(name), "test", None, None)
    assert list(found) == expected
    # Nor is what the model was trained on out of distribution, whatever file it is judged on.
    assert list(module._outside(tiny_images("my_photos"), "test", None, name)) == expected
    assert {images.shape for images in found.values()} == {(60, 8, 8, 1)}


def test_data_of_the_model_and_data_that_are_judged_are_refused(others):
    mine, other = tiny_images("my_photos"), tiny_images("tiny_other", seed=5)
    assert load_outside(mine, "tiny_other", "tiny_large").name == "tiny_other"
    with pytest.raises(ValueError, match="'tiny_other' is the dataset of the model itself"):
        load_outside(mine, "tiny_other", "tiny_other")
    with pytest.raises(ValueError, match="'tiny_other' is the dataset that is judged"):
        load_outside(other, "tiny_other", "tiny_large")


def test_probabilities_in_16_bit_keep_the_nll(suite, tmp_path):
    write_probabilities(suite, "mine", tmp_path / "p.npz")
    with np.load(tmp_path / "p.npz", allow_pickle=False) as file:
        logs, labels = file["log_probabilities"], file["labels"]
        assert (logs.dtype, str(file["name"]), int(file["seed"])) == (np.float16, "mine", 3)
    np.testing.assert_allclose(np.exp(logs.astype(float)), np.exp(suite.log_probabilities), rtol=3e-3, atol=1e-6)
    assert -logs[np.arange(60), labels].astype(float).mean() == pytest.approx(suite.scores["nll"], rel=1e-3)


def test_every_number_is_a_row_of_the_csv(suite):
    header, *rows = [line.split(",") for line in suite_csv(suite, "mine").splitlines()]
    assert header[:3] == ["name", "dataset", "split"]
    found = {tuple(row[header.index(key)] for key in ("part", "condition", "severity", "metric")) for row in rows}
    assert len(found) == len(rows) == 2 * 7 + 2 * (4 + 2) + 3 + 12 * 5 * 3 + 20
    assert ("corruption", "fog", "5", "ece") in found
    assert ("out_of_distribution", "tiny_large", "", "auroc_entropy_plug_in") in found


@pytest.mark.parametrize(
    ("data", "other", "says"),
    [
        ("iris", (), "inputs of shape \\(4,\\)"),
        ("diabetes", (), "is for regression"),
        (tiny_images(side=12), (), "has the shape"),
        (tiny_images(), ("wine",), "images of at least 8 x 8"),
        (tiny_images(), ("tiny_image",), "Unknown|unknown"),
    ],
)
def test_what_cannot_be_judged_is_refused_before_the_work(data, other, says, model):
    told: list[str] = []
    with pytest.raises(ValueError, match=says):
        evaluate_suite(model, data, num_samples=1, out_of_distribution=other, tell=told.append)
    assert told == []


def test_a_network_with_other_classes_is_refused():
    with pytest.raises(ValueError, match="one of the 3"):
        evaluate_suite(tiny_classifier(num_outputs=4), tiny_images(), num_samples=1, out_of_distribution=())


def test_missing_data_are_refused_with_the_command_that_gets_them(model, monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    told: list[str] = []
    with pytest.raises(DataMissingError, match=r"tensorflow_datasets\.load"):
        evaluate_suite(model, tiny_images(), num_samples=1, tell=told.append)
    assert told == []

"""Evaluation reports: the page, the predictions and the numbers."""

from __future__ import annotations

import base64
import csv
import dataclasses
import io
import json
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

import zoo
from tfp_bnn import metrics
from zoo.datasets import Dataset, Split
from zoo.evaluation.card_numbers import evaluate
from zoo.evaluation.report import write_evaluation_report

NUM_SAMPLES, SEED = 4, 3
KINDS = {
    "mlp_flipout.iris": [
        *("confusion", "reliability", "confidence", "risk_coverage"),
        *("entropy", "mutual_information", "kl_by_layer"),
    ],
    "mlp_flipout.diabetes": ["predictions", "quantiles", "epistemic_std", "kl_by_layer"],
    "lenet5_flipout.digits": [
        *("confusion", "reliability", "confidence", "risk_coverage"),
        *("least_certain_1", "least_certain_2", "least_certain_3"),
        *("entropy", "mutual_information", "kl_by_layer"),
    ],
    "mlp_flipout.moons": [
        *("confusion", "reliability", "confidence", "risk_coverage", "decision_surface"),
        *("entropy", "mutual_information", "kl_by_layer"),
    ],
}
# Their metrics are those of iris; only their figures are others.
FIGURES = [pytest.param(name, marks=pytest.mark.slow) for name in ("mlp_flipout.moons", "lenet5_flipout.digits")]
DAY = "2026-02-03"
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Reads a page strictly: what is opened must be closed, in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.text, self._open = [], [], [], []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        assert len(dict(attrs)) == len(attrs)
        self.attributes.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.text.append((self._open[-1] if self._open else "", data))

    def texts(self, *tags):
        return [text for tag, text in self.text if tag in tags]

    def images(self):
        return [attributes for tag, attributes in self.attributes if tag == "img"]


@pytest.fixture(scope="module", autouse=True)
def _fixed_day():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "1770100000")
        yield


def load(folder):
    rows = list(csv.DictReader(io.StringIO((folder / "predictions.csv").read_text("utf-8"))))
    return Page((folder / "index.html").read_text("utf-8")), rows, json.loads((folder / "metrics.json").read_text())


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A function that writes the report of a pretrained model once, and gives its folder and the model."""
    made = {}

    def write(name):
        if name not in made:
            model, folder = zoo.load_model(name), tmp_path_factory.mktemp("reports") / name
            data = name.rpartition(".")[2]
            report = write_evaluation_report(
                model, data, "test", folder, name=name, num_samples=NUM_SAMPLES, seed=SEED, command="the command"
            )
            assert report.path == folder / "index.html"
            made[name] = folder, model, report
        return made[name]

    return write


# === The page ===


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_page_is_valid_and_needs_nothing_beside_it(name, written):
    folder, _, _ = written(name)
    text = (folder / "index.html").read_text("utf-8")
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>\n")
    assert page.attributes[0] == ("html", {"lang": "en"})
    assert page.tags.count("h1") == page.tags.count("title") == page.tags.count("main") == 1
    assert not {"script", "link", "iframe", "object", "a"} & set(page.tags)
    for tag, attributes in page.attributes:
        assert not {"href", "srcset", "style", "onload", "onerror"} & set(attributes)
        assert tag != "img" or attributes["src"].startswith("data:image/png;base64,")
    # On a small screen a row is a list of its cells, each with the name of its column.
    labels = {attributes.get("data-label") for tag, attributes in page.attributes if tag == "td"}
    assert {"value", "of the draws", "unit", "meaning"} <= labels
    (style,) = page.texts("style")
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme: dark" in style


@pytest.mark.slow
@pytest.mark.parametrize(("name", "figures"), KINDS.items())
def test_page_shows_every_figure_and_each_is_a_file_too(name, figures, written):
    folder, _, _ = written(name)
    page, _, numbers = load(folder)
    images = page.images()
    assert len(images) == len(figures)
    for attributes, figure in zip(images, figures, strict=True):
        png = base64.b64decode(attributes["src"].partition(",")[2], validate=True)
        assert png == (folder / f"{figure}.png").read_bytes()
        with Image.open(io.BytesIO(png)) as image:
            assert image.format == "PNG"
            assert (image.width, image.height) == (int(attributes["width"]), int(attributes["height"]))
            image.load()
        assert len(attributes["alt"]) > 20
    files = sorted(["index.html", "metrics.json", "predictions.csv", *(f"{figure}.png" for figure in figures)])
    assert sorted(path.name for path in folder.iterdir()) == numbers["files"] == files
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.slow
def test_page_says_what_was_measured_and_how_to_do_it_again(name, written):
    folder, model, report = written(name)
    page, rows, numbers = load(folder)
    assert page.texts("h1") == page.texts("title") == [f"Evaluation of {name}"]
    (lead,) = [text for tag, text in page.text if text.startswith("On the test split of ")]
    assert f"{len(rows)} examples, 4 Monte Carlo samples of the weights, seed 3" in lead
    assert page.texts("code") == ["the command"]
    if name == "mlp_flipout.diabetes":
        assert "standard deviation of the noise 55.62 units of the target (learned)" in numbers["likelihood"]
    cells = page.texts("th", "td")
    for metric, value in report.metrics.items():
        # The name is followed by the value, two errors, a unit and a meaning.
        shown, of_draws, unit = cells[cells.index(metric) + 1 :][:3]
        errors = numbers["standard_errors"]
        # Five digits, four of them at most after the point.
        digits = 5 - len(str(int(value)))
        assert shown == f"{value:.{digits}f} ± {2 * errors['examples'][metric]:.{digits}f}"
        assert of_draws == f"± {2 * errors['draws'][metric]:.{digits}f}"
        assert unit in ("share", "nats per example", "probability", "0 to 2", "nats", "units of the target")
    card = zoo.load_model(name).card
    facts = page.texts("p")[0].replace("\xa0", " ")
    assert facts.startswith(f"{name} · overrides: none · ")
    assert f" · N = {card['config']['num_examples']:,} · {DAY}" in facts
    assert f"beta {card['metrics']['beta']:g}" in facts
    for layer, kl in model.kl_by_layer().items():
        assert cells[cells.index(layer) + 1] == f"{float(kl):,.2f}"


# === The numbers ===


@pytest.mark.parametrize("name", ["mlp_flipout.iris", "mlp_flipout.diabetes", *FIGURES])
def test_metrics_are_those_of_evaluate(name, written):
    folder, model, report = written(name)
    _, rows, numbers = load(folder)
    expected = evaluate(model, name.rpartition(".")[2], num_samples=NUM_SAMPLES, seed=SEED)
    assert report.metrics == numbers["metrics"] == expected
    about = {"name": name, "split": "test", "num_samples": NUM_SAMPLES, "seed": SEED, "calibrated": True}
    assert {key: numbers[key] for key in about} == about
    assert numbers["num_examples"] == len(rows)
    assert numbers["kl"]["total"] == pytest.approx(float(model.kl()))


@pytest.mark.parametrize("name", ["mlp_flipout.iris", *FIGURES])
def test_predictions_of_a_classifier_give_the_metrics(name, written):
    folder, model, report = written(name)
    _, rows, numbers = load(folder)
    data = zoo.load_dataset(name.rpartition(".")[2])
    predictive = model.posterior_predictive(data.test.x, num_samples=NUM_SAMPLES, seed=SEED)
    classes = data.class_names
    probabilities = np.float32([[row[f"probability_{label}"] for label in classes] for row in rows])
    np.testing.assert_array_equal(probabilities, predictive.mean())
    assert [int(row["index"]) for row in rows] == list(range(len(data.test)))
    assert [row["label"] for row in rows] == [classes[label] for label in data.test.y]
    assert [row["predicted"] for row in rows] == [classes[best] for best in probabilities.argmax(axis=1)]
    assert np.mean([int(row["correct"]) for row in rows]) == report.metrics["accuracy"]
    np.testing.assert_array_equal(np.float32([row["confidence"] for row in rows]), probabilities.max(axis=1))
    for column in ("entropy", "aleatoric", "epistemic"):
        found = np.float32([row[column] for row in rows])
        np.testing.assert_array_equal(found, getattr(predictive, column)())
    assert metrics.expected_calibration_error(data.test.y, probabilities) == report.metrics["ece"]
    further = numbers["further"]
    assert further["classwise_calibration_error"] == metrics.classwise_calibration_error(data.test.y, probabilities)
    assert further["area_under_risk_coverage"] == metrics.area_under_risk_coverage(
        data.test.y, probabilities, predictive.entropy()
    )


def test_predictions_of_a_regression_give_the_metrics(written):
    folder, model, report = written("mlp_flipout.diabetes")
    _, rows, numbers = load(folder)
    column = {name: np.float32([row[name] for row in rows]) for name in rows[0]}
    data = zoo.load_dataset("diabetes").test
    predictive = model.posterior_predictive(data.x, num_samples=NUM_SAMPLES, seed=SEED)
    np.testing.assert_array_equal(column["target"], data.y[:, 0])
    np.testing.assert_array_equal(column["mean"], predictive.mean()[:, 0])
    assert metrics.rmse(column["target"], column["mean"]) == pytest.approx(report.metrics["rmse"])
    assert column["inside_90"].mean() == pytest.approx(report.metrics["coverage_90"])
    assert metrics.interval_width(column["lower_90"], column["upper_90"]) == pytest.approx(
        numbers["further"]["interval_width_90"]
    )
    variances = column["aleatoric_std"] ** 2 + column["epistemic_std"] ** 2
    np.testing.assert_allclose(column["std"], np.sqrt(variances), rtol=1e-5)
    assert np.sqrt(np.mean(column["epistemic_std"] ** 2)) == pytest.approx(report.metrics["epistemic_std"])


@pytest.mark.parametrize("name", ["mlp_flipout.iris", "mlp_flipout.diabetes"])
def test_least_certain_examples_come_first(name, written):
    folder, _, _ = written(name)
    page, rows, _ = load(folder)
    uncertainty = [float(row["std" if "std" in row else "entropy"]) for row in rows]
    order = np.argsort(-np.array(uncertainty), kind="stable")[:10]
    cells = page.texts("th", "td")
    start = cells.index("index")
    columns = cells.index("epistemic std" if "std" in rows[0] else "epistemic", start) + 1 - start
    assert cells[start + columns :: columns][: len(order)] == [str(row) for row in order]


@pytest.mark.slow
def test_out_of_distribution_numbers_are_those_of_the_metrics(written):
    folder, model, report = written("lenet5_flipout.digits")
    _, rows, numbers = load(folder)
    from zoo.evaluation.card_numbers import out_of_distribution_block

    block = out_of_distribution_block(zoo.load_dataset("digits"), "uniform", NUM_SAMPLES)
    outside = block.predict(model, SEED)
    found = numbers["out_of_distribution"]
    assert (found["data"], found["num_examples"]) == ("uniform", 360)
    inside = np.float32([row["entropy"] for row in rows])
    assert found["entropy"]["auroc"] == metrics.out_of_distribution_auroc(inside, outside.entropy())
    assert found["entropy"]["fpr_95"] == metrics.out_of_distribution_fpr(inside, outside.entropy())
    assert found["entropy"]["mean"] > report.metrics["entropy"]
    assert set(found) == {"data", "num_examples", "entropy", "mutual_information"}


# === Other models and data ===


def iris_with(**changes):
    return dataclasses.replace(zoo.load_dataset("iris"), **changes)


@pytest.fixture(scope="module")
def iris_model():
    return zoo.load_model("mlp_flipout.iris")


def write(folder, model, data, split="test", **arguments):
    arguments = {"num_samples": 3, "out_of_distribution": None, **arguments}
    write_evaluation_report(model, data, split, folder, **arguments)
    return load(folder)


@pytest.mark.slow
def test_the_same_report_is_the_same_bytes(iris_model, tmp_path):
    folders = [tmp_path / "a" / "report", tmp_path / "b" / "report"]
    for folder in folders:
        write(folder, iris_model, "iris", command="x", out_of_distribution="uniform")
    for path in folders[0].iterdir():
        assert path.read_bytes() == (folders[1] / path.name).read_bytes(), path.name


def test_names_of_the_user_are_escaped(iris_model, tmp_path):
    names = ('<script>alert("x")</script>', "a & b &amp;", "$x$ 'quoted', \"twice\"")
    title = "</title><img src=x onerror=alert(1)>"
    command = "tfp-bnn evaluate '<b>' && echo"
    page, rows, _ = write(tmp_path / "report", iris_model, iris_with(class_names=names), name=title, command=command)
    assert page.texts("h1") == page.texts("title") == [f"Evaluation of {title}"]
    assert page.texts("code") == [command]
    assert "script" not in page.tags
    assert all("onerror" not in attributes for _, attributes in page.attributes)
    assert set(page.texts("td")) & set(names) == set(names[1:])
    assert {row["label"] for row in rows} == set(names)
    assert f"probability_{names[2]}" in rows[0]


@pytest.mark.slow
def test_one_right_example_leaves_some_numbers_undefined(iris_model, tmp_path):
    data = zoo.load_dataset("iris")
    predictive = iris_model.posterior_predictive(data.test.x, num_samples=3, seed=0)
    row = int(np.flatnonzero(predictive.mean().argmax(axis=1) == data.test.y)[0])
    # Which draws there are does not depend on the other rows.
    only = Split(data.test.x[row : row + 1], data.test.y[row : row + 1])
    page, rows, numbers = write(tmp_path / "report", iris_model, iris_with(test=only), out_of_distribution="uniform")
    assert len(rows) == 1
    assert numbers["metrics"]["accuracy"] == 1
    assert numbers["further"]["misclassification_auroc"] is None
    cells = page.texts("th", "td")
    assert cells[cells.index("misclassification_auroc") + 1] == "not defined"


@pytest.mark.slow
def test_uncalibrated_and_calibrated_differ(tmp_path):
    model = zoo.load_model("mlp_flipout.iris")
    model.calibration = {"name": "temperature", "temperature": 1.7}
    page, _, numbers = write(tmp_path / "report", model, "iris", calibrated=False)
    assert numbers["metrics"] == evaluate(model, "iris", num_samples=3, calibrated=False)
    assert numbers["metrics"]["nll"] != evaluate(model, "iris", num_samples=3)["nll"]
    assert numbers["calibration"] == "temperature 1.7, not applied"
    assert "calibrated=False" in page.texts("code")[0]


@pytest.mark.slow
def test_another_dataset_may_be_out_of_distribution(tmp_path):
    model = zoo.create_model("mlp_flipout", input_shape=(2,), num_outputs=2, hidden=(4,))
    page, _, numbers = write(tmp_path / "report", model, "moons", "validation", out_of_distribution="circles")
    assert numbers["out_of_distribution"]["data"] == "circles"
    assert "mean, circles" in page.texts("th")
    assert page.texts("code") == [
        f"zoo.write_evaluation_report(model, 'moons', 'validation', '{tmp_path / 'report'}', name='mlp_flipout', "
        "num_samples=3, seed=0, calibrated=True, out_of_distribution='circles')"
    ]


@pytest.mark.slow
def test_one_logit_is_reported_as_two_classes(tmp_path):
    model = zoo.create_model("mlp_flipout", input_shape=(2,), num_outputs=1, likelihood="bernoulli", hidden=(4,))
    _, rows, numbers = write(tmp_path / "report", model, "moons")
    assert numbers["metrics"] == evaluate(model, "moons", num_samples=3)
    for row in rows[:5]:
        assert float(row["probability_upper"]) + float(row["probability_lower"]) == pytest.approx(1)
    assert (tmp_path / "report" / "decision_surface.png").is_file()


@pytest.mark.slow
def test_a_model_may_have_more_outputs_than_the_data_have_classes(tmp_path):
    model = zoo.create_model("mlp_flipout", input_shape=(2,), num_outputs=4, hidden=(4,))
    _, rows, _ = write(tmp_path / "report", model, "moons")
    assert list(rows[0])[-4:] == [f"probability_{name}" for name in ("upper", "lower", "class 2", "class 3")]


@pytest.mark.slow
def test_every_target_of_a_regression_has_its_columns(tmp_path):
    rng = np.random.default_rng(0)
    splits = {
        name: Split(rng.normal(size=(12, 2)).astype(np.float32), rng.normal(size=(12, 2)).astype(np.float32))
        for name in ("train", "validation", "test")
    }
    data = Dataset("two", "regression", **splits, feature_names=None, class_names=None, description="", source="")
    data.test.y[0, 1] = -999
    likelihood = {"name": "normal", "scale": 1.0, "missing": -999}
    model = zoo.create_model("mlp_flipout", input_shape=(2,), num_outputs=2, hidden=(4,), likelihood=likelihood)
    page, rows, numbers = write(tmp_path / "report", model, data)
    # The marker of a missing target is none.
    assert [rows[0][f"inside_90_{i}"] in ("0", "1") for i in (0, 1)] == [True, False]
    told = " ".join(attributes["alt"] for attributes in page.images())
    assert "of 11 examples against" in told
    assert "Share of 23 targets" in told
    assert numbers["metrics"] == evaluate(model, data, num_samples=3)
    np.testing.assert_allclose([[float(row[f"target_{i}"]) for i in (0, 1)] for row in rows], data.test.y, rtol=1e-6)
    assert {"mean_1", "lower_90_0", "epistemic_std_1"} <= set(rows[0])
    assert len(page.images()) == 4


def test_data_that_do_not_fit_are_refused_and_nothing_is_left(iris_model, tmp_path):
    with pytest.raises(ValueError, match="for regression, but the model has the likelihood"):
        write(tmp_path / "report", iris_model, "diabetes")
    with pytest.raises(ValueError, match="Did you mean 'test'"):
        write(tmp_path / "report", iris_model, "iris", "tset")
    with pytest.raises(ValueError, match="has inputs of shape"):
        write(tmp_path / "report", iris_model, "iris", out_of_distribution="digits")
    assert list(tmp_path.iterdir()) == []

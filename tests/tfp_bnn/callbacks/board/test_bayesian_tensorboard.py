"""Contents of the log of a training, compared with direct computation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pytest
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams import metadata as hparams_metadata

import tfp_bnn
from tfp_bnn import metrics
from tfp_bnn.callbacks import BayesianTensorBoard
from tfp_bnn.callbacks.board.dashboard import CATEGORIES
from tfp_bnn.callbacks.board.tags import TAGS, safe_names, tag_table
from tfp_bnn.layers import Convolution2DFlipout, DenseFlipout

# What happens between epochs is tested here.
pytestmark = pytest.mark.usefixtures("steps_run_eagerly")

SAMPLES, SEED, EPOCHS = 5, 3, 3
LEARNED = {"name": "normal", "scale": 0.5, "empirical_bayes": True}
INFERRED = {"name": "normal", "hyperprior": "half_cauchy", "shared": "all"}
OF_FIT = [tag for tag in TAGS if tag.runs != "evaluation"]
# Of which models a tag with one kind of uncertainty, or of one kind of data, is found.
OF_REGRESSION = re.compile("rmse|mae|coverage_90|_std|regression|quantile")
OF_NATURAL_GRADIENT = re.compile("curvature/|natural_gradient/")
OF_CLASSES = re.compile(
    "accuracy|ece|brier|entropy|mutual|precision|reliability|confidence|risk|least_certain|decision_surface"
)


class Watched(NamedTuple):
    """A model that was trained with a callback, its log and its data."""

    model: tfp_bnn.VariationalModel
    log_dir: Path
    history: dict[str, list[float]]
    x: np.ndarray
    y: np.ndarray
    outside: np.ndarray


@pytest.fixture(scope="module")
def of_images(tmp_path_factory):
    """A classifier of images, with a learned and an inferred prior scale."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 6, 6, 1)).astype(np.float32)
    y = (x.sum(axis=(1, 2, 3)) > 0).astype(np.int64) + (x[:, 0, 0, 0] > 1)
    outside = 5 * rng.normal(size=(40, 6, 6, 1)).astype(np.float32)
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 1))
    h = Convolution2DFlipout(2, 3, name="conv>1.a", kernel_prior=INFERRED)(inputs)
    logits = DenseFlipout(3, name="logits", kernel_prior=LEARNED)(keras.layers.Flatten()(h))
    model = tfp_bnn.VariationalModel(inputs, logits, seed=0)
    model.compile("adam", metrics=["accuracy"])
    log_dir = tmp_path_factory.mktemp("logs") / "with spaces, ünicode"
    board = BayesianTensorBoard(
        log_dir,
        validation_data=(x, y),
        ood_data=outside,
        num_samples=SAMPLES,
        every=2,
        seed=SEED,
        class_names=["zero", "one/half", ""],
        recipe={"name": "small", "layers": [1, 2]},
        hparams={"prior": {"kind": "learned"}, "width": np.int64(2), "unset": None},
    )
    history = model.fit(x, y, epochs=EPOCHS, batch_size=20, validation_data=(x, y), verbose=0, callbacks=[board])
    return Watched(model, log_dir, history.history, x, y, outside)


@pytest.fixture(scope="module")
def of_numbers(tmp_path_factory):
    """A regression."""
    x = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    y = x.sum(axis=1)
    inputs = keras.Input((2,))
    model = tfp_bnn.VariationalModel(inputs, DenseFlipout(1, name="out")(inputs), likelihood="normal", seed=0)
    model.compile("adam")
    log_dir = tmp_path_factory.mktemp("logs")
    board = BayesianTensorBoard(log_dir, (x, y), ood_data=10 * x, num_samples=SAMPLES, seed=SEED)
    history = model.fit(x, y, epochs=1, validation_data=(x, y), verbose=0, callbacks=[board])
    return Watched(model, log_dir, history.history, x, y, 10 * x)


def assert_tags_found(watched, patterns, read_run):
    """Each pattern is found in each of its runs, all its values are finite, and there are no other tags."""
    runs = {name: read_run(watched.log_dir, name) for name in ("", "train", "validation")}
    known = set()
    for tag in patterns:
        expression = re.escape(tag.pattern).replace("<", "(").replace(">", ")")
        expression = re.sub(r"\([a-z_\\]+\)", ".+", expression)
        for run in tag.runs.replace(".", "").split(", "):
            found = {name for name in runs[run].values if re.fullmatch(expression, name)}
            assert found, f"{tag.pattern} is not in {run!r}"
            known |= {(run, name) for name in found}
            for name in found:
                for value in runs[run][name].values():
                    assert value.dtype == object or np.isfinite(value).all(), name
    found = {(run, tag) for run, of_run in runs.items() for tag in of_run.values}
    assert {(run, tag) for run, tag in found - known if tag[0] != "_" and "config__" not in tag} == set()


def test_every_tag_of_a_classifier_of_images_is_found_with_finite_values(of_images, read_run):
    absent = re.compile(f"{OF_REGRESSION.pattern}|decision|{OF_NATURAL_GRADIENT.pattern}")
    patterns = [tag for tag in OF_FIT if not absent.search(tag.pattern)]
    assert_tags_found(of_images, patterns, read_run)


def test_every_tag_of_a_regression_is_found_with_finite_values(of_numbers, read_run):
    absent = re.compile(f"{OF_CLASSES.pattern}|metrics|priors|prior_scale|recipe|{OF_NATURAL_GRADIENT.pattern}")
    assert_tags_found(of_numbers, [tag for tag in OF_FIT if not absent.search(tag.pattern)], read_run)


def test_numbers_come_each_epoch_and_figures_each_second_and_at_the_last(of_images, read_run):
    train, validation = read_run(of_images.log_dir, "train"), read_run(of_images.log_dir, "validation")
    for tag in ("elbo/elbo", "kl/total", "posterior/logits/signal_to_noise"):
        assert set(train[tag]) == {1, 2, 3}
    assert set(validation["calibration/ece"]) == {1, 2, 3}
    for tag in ("figures/reliability_diagram", "rows/predictive_entropy", "precision_recall/one/half"):
        assert set(validation[tag]) == {2, 3}
    assert set(train["weights/conv>1.a/posterior_scale"]) == {2, 3}
    assert train.repeated == validation.repeated == []


def test_the_numbers_of_fit_are_logged_as_they_are(of_images, read_run):
    train, validation = read_run(of_images.log_dir, "train"), read_run(of_images.log_dir, "validation")
    tags = {name: f"elbo/{name}" for name in ("elbo", "nll", "kl", "loss", "beta")} | {"accuracy": "metrics/accuracy"}
    for name, tag in tags.items():
        for run, key in ((train, name), (validation, f"val_{name}")):
            np.testing.assert_allclose(list(run[tag].values()), of_images.history[key], rtol=1e-6)
    np.testing.assert_allclose(train.last("elbo/kl_per_example"), of_images.history["kl"][-1] / 60, rtol=1e-6)


def test_the_scores_are_those_of_the_posterior_predictive_on_the_same_samples(of_images, read_run):
    validation = read_run(of_images.log_dir, "validation")
    predictive = of_images.model.posterior_predictive(of_images.x, num_samples=SAMPLES, seed=SEED)
    p, samples, y = predictive.mean(), predictive.samples, of_images.y
    expected = {
        "predictive/accuracy": metrics.accuracy(y, p),
        "predictive/nll": -predictive.log_prob(y).mean(),
        "calibration/ece": metrics.expected_calibration_error(y, p),
        "calibration/brier": metrics.brier_score(y, p),
        "uncertainty/predictive_entropy": metrics.predictive_entropy(p).mean(),
        "uncertainty/mutual_information": metrics.mutual_information(samples).mean(),
    }
    other = of_images.model.posterior_predictive(of_images.outside, num_samples=SAMPLES, seed=SEED)
    inside, outside = metrics.uncertainty_scores(samples), metrics.uncertainty_scores(other.samples)
    for name, key in (("predictive_entropy", "entropy"), ("mutual_information", "mutual_information")):
        area = metrics.out_of_distribution_auroc(inside[key], outside[key])
        expected[f"out_of_distribution/auroc/{name}"] = area
        expected[f"out_of_distribution/{name}"] = outside[key].mean()
    for tag, value in expected.items():
        assert validation.last(tag) == pytest.approx(value, rel=1e-4, abs=1e-5), tag


def test_the_scores_of_a_regression_are_those_of_the_posterior_predictive(of_numbers, read_run):
    validation = read_run(of_numbers.log_dir, "validation")
    predictive = of_numbers.model.posterior_predictive(of_numbers.x, num_samples=SAMPLES, seed=SEED)
    y, mean = of_numbers.y[:, None], predictive.mean()
    lower, upper = predictive.quantiles([0.05, 0.95])
    expected = {
        "predictive/nll": -predictive.log_prob(y).mean(),
        "predictive/rmse": metrics.rmse(y, mean),
        "predictive/mae": metrics.mae(y, mean),
        "calibration/coverage_90": metrics.interval_coverage(y, lower, upper),
        "uncertainty/aleatoric_std": np.sqrt(predictive.aleatoric().mean()),
        "uncertainty/epistemic_std": np.sqrt(predictive.epistemic().mean()),
    }
    for tag, value in expected.items():
        assert validation.last(tag) == pytest.approx(value, rel=1e-5), tag


def test_margins_are_two_jackknife_standard_errors(of_images, read_run):
    validation = read_run(of_images.log_dir, "validation")
    samples = of_images.model.posterior_predictive(of_images.x, num_samples=SAMPLES, seed=SEED).samples
    without = [metrics.nll(of_images.y, np.delete(samples, draw, axis=0).mean(axis=0)) for draw in range(SAMPLES)]
    error = np.sqrt((SAMPLES - 1) * np.var(without))
    value = validation.last("predictive/nll")
    assert validation.last("margins/predictive/nll/lower") == pytest.approx(value - 2 * error, abs=1e-4)
    assert validation.last("margins/predictive/nll/upper") == pytest.approx(value + 2 * error, abs=1e-4)


def test_kl_and_posterior_are_those_of_the_layers(of_images, read_run):
    train, model = read_run(of_images.log_dir, "train"), of_images.model
    layer = model.network.get_layer("logits")
    weight = layer.variational_weights["kernel"].parameters()
    ratio = np.abs(weight["loc"]) / weight["scale"]
    assert train.last("kl/layers/logits") == pytest.approx(float(layer.kl()), rel=1e-5)
    assert train.last("posterior/logits/signal_to_noise") == pytest.approx(np.median(ratio), rel=1e-5)
    assert train.last("posterior/logits/active_fraction") == pytest.approx(np.mean(ratio > 1))
    assert train.last("prior_scale/logits/kernel") == pytest.approx(float(weight["prior_scale"]), rel=1e-5)
    parts = [train.last(tag) for tag in train.values if tag.startswith(("kl/layers/", "kl/priors/"))]
    assert train.last("kl/total") == pytest.approx(sum(parts), rel=1e-5)
    assert train.last("prior_scale/all") == pytest.approx(float(model.shared_priors["all"].parameters()["scale"]))


def test_histograms_count_every_weight(of_images, read_run):
    buckets = read_run(of_images.log_dir, "train")["weights/logits/posterior_mean"][EPOCHS]
    loc = of_images.model.network.get_layer("logits").variational_weights["kernel"].parameters()["loc"]
    assert buckets[:, 2].sum() == loc.size
    np.testing.assert_allclose([buckets[0, 0], buckets[-1, 1]], [loc.min(), loc.max()], rtol=1e-6)


def test_precision_and_recall_are_counted_over_the_rows(of_images, read_run):
    curve = read_run(of_images.log_dir, "validation")["precision_recall/zero"][EPOCHS]
    p = of_images.model.posterior_predictive(of_images.x, num_samples=SAMPLES, seed=SEED).mean()[:, 0]
    positive, threshold = of_images.y == 0, 30
    told = np.floor(p * 100) >= threshold
    true_positives, false_positives, _, false_negatives, precision, recall = curve[:, threshold]
    assert (true_positives, false_positives) == ((told & positive).sum(), (told & ~positive).sum())
    assert false_negatives == (~told & positive).sum()
    assert precision == pytest.approx(true_positives / max(told.sum(), 1))
    assert recall == pytest.approx(true_positives / positive.sum())


def test_figures_are_png_images(of_images, read_run):
    validation = read_run(of_images.log_dir, "validation")
    figures = [tag for tag in validation.values if tag.startswith("figures/")]
    assert len(figures) == 5
    for tag in figures:
        width, height, png = validation[tag][EPOCHS]
        assert int(width) > 300
        assert int(height) > 200
        assert png.startswith(b"\x89PNG")
        assert validation.plugins[tag] == "images"


def test_text_pages_have_the_recipe_the_summary_and_the_tags(of_images, read_run):
    root = read_run(of_images.log_dir)
    pages = {name: root[f"about/{name}"][0].item().decode() for name in ("recipe", "model", "tags")}
    assert '"name": "small"' in pages["recipe"]
    assert "Bayesian weights" in pages["model"]
    assert "conv>1.a" in pages["model"]
    assert all(tag.pattern in pages["tags"] for tag in TAGS)


def test_the_guide_has_the_table_of_tags():
    guide = Path(__file__).parents[4] / "docs" / "tensorboard.md"
    assert tag_table() in guide.read_text("utf-8")


def test_hyperparameters_of_the_model_and_of_the_user_are_logged(of_images):
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

    reader = EventAccumulator(str(of_images.log_dir))
    reader.Reload()
    content = reader.SummaryMetadata(hparams_metadata.SESSION_START_INFO_TAG).plugin_data.content
    found = hparams_metadata.parse_session_start_info_plugin_data(content).hparams
    assert found["optimizer"].string_value == "adam"
    assert found["learning_rate"].number_value == pytest.approx(1e-3)
    assert found["num_examples"].number_value == 60
    assert found["width"].number_value == 2
    assert found["prior.kind"].string_value == "learned"
    assert "unset" not in found
    assert hparams_metadata.SESSION_END_INFO_TAG in reader.Tags()["tensors"]


def test_the_dashboard_has_five_categories_whose_charts_find_their_tags(of_images, of_numbers, read_run):
    for watched in (of_images, of_numbers):
        layout = Layout.FromString(read_run(watched.log_dir)["custom_scalars__config__"][0].item())
        assert tuple(category.title for category in layout.category) == CATEGORIES
        tags = [tag for run in ("train", "validation") for tag in read_run(watched.log_dir, run).values]
        for chart in (chart for category in layout.category for chart in category.chart):
            for series in chart.margin.series:
                assert {series.value, series.lower, series.upper} <= set(tags), chart.title
            for expression in chart.multiline.tag:
                found = [tag for tag in tags if re.match(expression, tag)]
                assert found, chart.title
        assert any(chart.margin.series for category in layout.category[2:4] for chart in category.chart)


def test_each_run_folder_has_one_file(of_images):
    for run in ("", "train", "validation"):
        assert len([path for path in (of_images.log_dir / run).iterdir() if path.is_file()]) == 1


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (["dense", "conv>1.a"], ["dense", "conv>1.a"]),
        (["a  b\n", "a b"], ["a b", "a b#2"]),
        (["", " ", "/"], ["unnamed", "unnamed#2", "unnamed#3"]),
        (["/a//b/", "Größe 重"], ["a/b", "Größe 重"]),
    ],
)
def test_odd_names_become_parts_of_tags_that_differ(names, parts):
    assert list(safe_names(names).items()) == list(zip(names, parts, strict=True))

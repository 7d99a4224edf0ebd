"""Training by recipe and evaluation."""

from __future__ import annotations

import dataclasses
import math

import keras
import numpy as np
import pytest

import zoo
from tfp_bnn import metrics
from tfp_bnn.models.weight_record import weight_distributions
from zoo.datasets import DataMissingError
from zoo.training.by_recipe import _fingerprint, build
from zoo.training.log import continued, log_text
from zoo.training.planning import planned

from ..recipe_parts import RECIPE as BASE

# What happens around the steps is tested here; test_kill_and_resume.py and test_bad_numbers.py compile them.
pytestmark = pytest.mark.usefixtures("steps_run_eagerly")

RECIPE = {**BASE, "warmup": 0.5}


@pytest.mark.slow
def test_same_recipe_same_weights():
    first, second = (zoo.train(RECIPE, measure=False) for _ in range(2))
    other = zoo.train(RECIPE, measure=False, seed=1)
    for name, value in weight_distributions(first.model).items():
        np.testing.assert_array_equal(value, weight_distributions(second.model)[name])
    assert first.history == second.history
    assert not np.array_equal(
        weight_distributions(first.model)["logits/kernel/loc"], weight_distributions(other.model)["logits/kernel/loc"]
    )


@pytest.mark.slow
def test_a_run_that_is_not_measured_is_saved_all_the_same(tmp_path):
    recipe = {**RECIPE, "epochs": 1, "evaluation": {"out_of_distribution": "wine"}}
    run = zoo.train(recipe, tmp_path / "model", measure=False)
    saved = zoo.load_artifact(run.path, trust=True)
    for name, value in weight_distributions(run.model).items():
        np.testing.assert_allclose(value, weight_distributions(saved)[name], rtol=1e-5)


@pytest.mark.slow
def test_schedule_and_preprocessing_follow_the_recipe():
    run = zoo.train({**RECIPE, "beta": 0.5}, measure=False)
    # 96 examples in batches of 40 are 3 steps an epoch; the warm-up is the first half of 6 steps.
    assert run.model.beta_schedule.get_config() == {"steps": 3, "initial": 0.0, "final": 0.5}
    assert run.history["beta"] == pytest.approx([0.5 * (0 * 40 + 1 / 3 * 40 + 2 / 3 * 16) / 96, 0.5])
    assert run.model.num_examples == 96
    train = zoo.load_dataset("iris").train.x
    config = run.model.architecture.config
    np.testing.assert_allclose(config.input_mean, train.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(config.input_variance, train.var(axis=0), rtol=1e-4)


@pytest.mark.slow
def test_regression_predicts_in_units_of_the_target():
    recipe = {**RECIPE, "name": "mlp_flipout.d", "dataset": "diabetes", "standardize_targets": True, "batch_size": 150}
    run = zoo.train(recipe, measure=False)
    data = zoo.load_dataset("diabetes")
    mean = run.model.posterior_predictive(data.test.x, num_samples=20).mean()
    assert abs(mean.mean() - data.train.y.mean()) < data.train.y.std()
    measured = zoo.evaluate(run.model, "diabetes", num_samples=20)
    assert measured["rmse"] == pytest.approx(np.sqrt(((mean - data.test.y) ** 2).mean()), rel=1e-5)
    assert set(measured) == {"rmse", "mae", "nll", "coverage_90", "aleatoric_std", "epistemic_std"}


@pytest.mark.slow
def test_evaluation_is_of_the_posterior_predictive():
    model, data = zoo.train(RECIPE, measure=False).model, zoo.load_dataset("iris")
    measured = zoo.evaluate(model, data, "validation", num_samples=7, seed=3)
    predictive = model.posterior_predictive(data.validation.x, num_samples=7, seed=3)
    assert measured["accuracy"] == (predictive.mean().argmax(axis=1) == data.validation.y).mean()
    assert measured["nll"] == pytest.approx(metrics.nll(data.validation.y, predictive.mean()), rel=1e-5)
    assert measured["ece"] == metrics.expected_calibration_error(data.validation.y, predictive.mean())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"dataset": "irs"}, "Did you mean 'iris'"),
        ({"dataset": "iris", "split": "tets"}, "Did you mean 'test'"),
        ({"dataset": "diabetes"}, "for regression, but the model has the likelihood"),
        ({"dataset": "wine"}, r"shape \(36, 13\), but the model takes \('batch', 4\)"),
        ({}, "Pass `dataset`"),
    ],
)
def test_bad_evaluation(arguments, says):
    model = zoo.create_model("mlp_flipout", input_shape=(4,), num_outputs=3)
    with pytest.raises(ValueError, match=says):
        zoo.evaluate(model, **arguments)


def test_existing_folder_is_refused_before_training(tmp_path):
    with pytest.raises(ValueError, match="exists"):
        zoo.train({**RECIPE, "epochs": 100_000}, tmp_path)


def test_folder_that_is_no_artifact_is_refused_before_training(tmp_path):
    (tmp_path / "thesis.txt").write_text("words")
    with pytest.raises(ValueError, match="not an artifact"):
        zoo.train({**RECIPE, "epochs": 100_000}, tmp_path, overwrite=True)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("wine", r"'wine' has inputs of shape \(13,\), but 'iris' has"),
        ("wien", "Did you mean 'wine'"),
        ("iris", "'iris' is the dataset of the model itself. Choose another, or 'uniform'"),
        ("not_here", "is not prepared"),
    ],
)
def test_bad_out_of_distribution_data_are_refused_before_training(name, says, tmp_path, registrations_undone):
    @zoo.register_dataset("not_here")
    def missing():
        raise DataMissingError("The dataset 'not_here' is not prepared.")

    recipe = {**RECIPE, "evaluation": {"num_samples": 2, "spread_seeds": [], "out_of_distribution": name}}
    with pytest.raises((ValueError, DataMissingError), match=says):
        zoo.train(recipe, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_another_dataset_has_no_out_of_distribution_data_of_its_own():
    recipe, chosen = "mlp_flipout.mnist", "evaluation.out_of_distribution"
    for changes, expected in (
        ({"dataset": "fashion_mnist"}, "uniform"),
        ({"dataset": None}, "uniform"),
        ({"dataset": "mnist"}, "fashion_mnist"),
        ({"dataset": "kmnist", chosen: "mnist"}, "mnist"),
    ):
        assert planned(recipe, changes).evaluation.out_of_distribution == expected


def test_a_model_of_another_dataset_is_named_after_it():
    """So its rows do not replace those of the recipe in the leaderboard."""
    for recipe, changes, expected in (
        ("mlp_flipout.iris", {"dataset": "wine"}, "mlp_flipout.wine"),
        ("mlp_flipout.iris", {"dataset": "wine", "name": "mine"}, "mine"),
        ("resnet20_flipout.cifar10_map", {"dataset": "cifar10"}, "resnet20_flipout.cifar10_map"),
        # Own files have a name once they are read.
        ("mlp_flipout.iris", {"dataset": None}, "mlp_flipout.iris"),
    ):
        assert planned(recipe, changes).name == expected


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"calibration": "scale"}, "does not fit the likelihood Categorical.*Use the calibration 'temperature'"),
        ({"calibration": "temperature", "dataset": "diabetes"}, "does not fit the likelihood Normal.*'scale'"),
    ],
)
def test_a_calibration_that_does_not_fit_is_refused_before_training(changes, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        zoo.train({**RECIPE, **changes}, tmp_path / "model", measure=False)
    assert list(tmp_path.iterdir()) == []


def test_what_is_too_large_for_an_artifact_is_refused_before_training(tmp_path, monkeypatch):
    network = zoo.create_model("mlp_flipout", input_shape=(4,), num_outputs=3, hidden=(8,))
    zoo.save_artifact(network, tmp_path / "one")
    size = (tmp_path / "one" / "weights.safetensors").stat().st_size
    tuning = {"name": "mlp_flipout.tuned", "start_from": {"model": "mlp_flipout.iris"}, "dataset": "iris"}
    for recipe, most in (
        (RECIPE, size - 1),
        # Of points, with half the numbers of a posterior.
        ({**RECIPE, "inference": "ensemble", "members": 4}, size),
        (tuning, size - 1),
    ):
        monkeypatch.setattr("zoo.hub.artifacts.MAX_FILE_BYTES", most)
        with pytest.raises(ValueError, match=r"weights\.safetensors would have .* Use a smaller network"):
            zoo.train({**recipe, "name": "mlp_flipout.large"}, tmp_path / "large")
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_names_that_an_artifact_cannot_hold_are_refused_before_training(tmp_path):
    iris = zoo.load_dataset("iris")
    data = dataclasses.replace(iris, feature_names=("n" * 201, *iris.feature_names[1:]))
    tuning = {"name": "mlp_flipout.tuned", "start_from": {"model": "mlp_flipout.iris"}}
    for recipe in (RECIPE, tuning):
        with pytest.raises(ValueError, match=r"'feature_names\.0' got 'nnn.*at most 200 characters"):
            zoo.train(recipe, tmp_path / "out", data=data)
    with pytest.raises(ValueError, match=r"nnn' has 201 bytes, and at most 200 .* Choose a shorter one"):
        zoo.train(RECIPE, tmp_path / ("n" * 201))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_no_training_seed_counts_twice(tmp_path):
    recipe = {**RECIPE, "epochs": 1, "evaluation": {"num_samples": 2, "spread_seeds": [1, 2, 2]}}
    assert zoo.train(recipe, seed=1).metrics["training_seeds"] == [1, 2]


@pytest.mark.slow
def test_it_is_told_which_epoch_was_best():
    told = []
    run = zoo.train(RECIPE, measure=False, tell=told.append)
    best = int(np.argmin(run.history["val_nll"]))
    assert told == [f"seed 0: lowest validation NLL {run.history['val_nll'][best]:.4f} in epoch {best + 1}"]


@pytest.mark.slow
def test_images_are_augmented_in_their_own_dtype_and_only_for_training():
    recipe = {
        **RECIPE,
        "name": "mlp_flipout.a",
        "dataset": "digits",
        "standardize_inputs": False,
        "model": {"hidden": [4], "pixel_max": 16.0},
        "batch_size": 600,
        "epochs": 1,
    }
    plain = zoo.train(recipe, measure=False)
    nothing = zoo.train({**recipe, "augmentation": {}}, measure=False)
    shifted = zoo.train({**recipe, "augmentation": {"shift": 2}}, measure=False)
    # An augmentation that does nothing changes no bit, and neither order nor noise depend on it.
    assert nothing.history == plain.history
    assert shifted.history["nll"] != plain.history["nll"]
    assert shifted.history["beta"] == plain.history["beta"]


class Scorer(keras.callbacks.Callback):
    """Adds to the logs as `CalibrationEarlyStopping` does; in the second epoch one more score, text and an array."""

    def on_epoch_end(self, epoch, logs=None):
        logs |= {"val_mine": np.float32(epoch)}
        if epoch:
            logs |= {"val_late": 7, "note": "best so far", "by_class": np.zeros(3)}


def test_scores_of_callbacks_are_in_the_history_and_the_log(tiny, folder):
    _, history = tiny.go(folder, callbacks=[Scorer()])
    assert history["val_mine"] == [0.0, 1.0]
    np.testing.assert_array_equal(history["val_late"], [np.nan, 7.0])
    assert not {"note", "by_class"} & set(history)
    header, *rows = (folder / "log.csv").read_text().splitlines()
    assert header.split(",")[-2:] == ["val_mine", "val_late"]
    assert [row.split(",")[-2:] for row in rows] == [["0.0", "nan"], ["1.0", "7.0"]]
    # In a resumed run without the callback, which has nothing left to do, they stay.
    assert repr(tiny.go(folder, resume=True)[1]) == repr(history)


def test_epochs_without_a_name_are_nan_in_what_is_joined():
    """A callback may score in some epochs alone, and members of an ensemble stop after different epochs."""
    joined = continued({"loss": [3.0, 2.0], "of_first": [0.1, 0.2]}, {"of_second": [0.5], "loss": [1.0]})
    of_parts = {"of_first": [0.1, 0.2, math.nan], "of_second": [math.nan, math.nan, 0.5]}
    assert repr(joined) == repr({"loss": [3.0, 2.0, 1.0], **of_parts})
    members = {"member_0/loss": [1.0, 2.0], "member_1/loss": [3.0]}
    assert log_text(members) == "epoch,member_0/loss,member_1/loss\n1,1.0,3.0\n2,2.0,nan\n"


@pytest.mark.slow
def test_objective_and_draws_follow_the_recipe_and_old_checkpoints_stay_those_of_their_run():
    plain, several = zoo.load_recipe(RECIPE), zoo.load_recipe({**RECIPE, "objective": "pac_m", "num_draws": 3})
    data = zoo.load_dataset("iris")
    model = build(several, data)
    assert (model.objective.get_config(), type(model.objective).__name__, model.num_draws) == ({}, "PacM", 3)
    batches = -(-len(data.train) // several.batch_size)
    before = int(model.noise_variables["training_noise"][1])
    model.fit(data.train.x, data.train.y, batch_size=several.batch_size, verbose=0)
    assert int(model.noise_variables["training_noise"][1]) - before == 3 * batches
    assert "num_draws" not in _fingerprint(plain, data, 1)["recipe"]
    assert _fingerprint(several, data, 1)["recipe"].items() >= {"objective": "pac_m", "num_draws": 3}.items()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"objective": "iwae"}, "Unknown objective 'iwae'"),
        ({"num_draws": 0}, "num_draws"),
        ({"objective": "importance_weighted"}, "layers have none: .*flipout estimator"),
        ({"objective": "importance_weighted", "inference": "map"}, r"needs all 96 examples .* batch_size: 40"),
    ],
)
def test_an_objective_that_does_not_fit_is_refused_before_anything_is_written(changes, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        zoo.train({**RECIPE, **changes}, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []

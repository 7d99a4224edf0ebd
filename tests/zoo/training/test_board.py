"""The log of a training by a recipe: its numbers are those of `zoo.evaluate`, and it changes no bit of the training."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

import zoo
from tfp_bnn.callbacks import PosteriorDoctor
from tfp_bnn.models.weight_record import weight_distributions
from zoo.datasets import DataMissingError
from zoo.training import board

# What happens around the steps is tested here; test_kill_and_resume.py and test_bad_numbers.py compile them.
pytestmark = pytest.mark.usefixtures("steps_run_eagerly")

RECIPE = {
    "name": "mlp_flipout.board",
    "architecture": "mlp_flipout",
    "dataset": "iris",
    "model": {"hidden": [4]},
    "batch_size": 50,
    "epochs": 3,
    "evaluation": {"num_samples": 2, "seed": 5, "spread_seeds": [1]},
}
TAGS = {
    "accuracy": "predictive/accuracy",
    "nll": "predictive/nll",
    "ece": "calibration/ece",
    "brier": "calibration/brier",
    "entropy": "uncertainty/predictive_entropy",
    "mutual_information": "uncertainty/mutual_information",
}


def scalars(folder, tag):
    """The values of a tag by their steps; each step once."""
    reader = EventAccumulator(str(folder))
    reader.Reload()
    events = reader.Tensors(tag)
    assert len({event.step for event in events}) == len(events)
    return {event.step: float(tensor_util.make_ndarray(event.tensor_proto)) for event in events}


class Stop(Exception):
    """As if the process had been killed."""


class StopAfter(keras.callbacks.Callback):
    """Ends a run in the midst of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self._epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self._epoch:
            raise Stop


@pytest.fixture(scope="module")
def plain():
    """The same training without a log."""
    return zoo.train(RECIPE, measure=False)


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logs")
    return zoo.train(RECIPE, measure=True, tensorboard=folder), folder


@pytest.mark.thorough
def test_each_training_seed_has_a_log(logged):
    _, folder = logged
    assert sorted(path.name for path in folder.iterdir()) == ["seed-0", "seed-1"]
    for seed in (0, 1):
        assert set(scalars(folder / f"seed-{seed}" / "train", "elbo/elbo")) == {1, 2, 3}


@pytest.mark.slow
def test_the_numbers_of_validation_are_those_of_evaluate_on_the_same_samples(logged):
    run, folder = logged
    measured = zoo.evaluate(run.model, "iris", "validation", num_samples=10, seed=5)
    assert set(measured) == set(TAGS)
    for name, tag in TAGS.items():
        assert scalars(folder / "seed-0" / "validation", tag)[3] == pytest.approx(measured[name], rel=1e-5), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "runs"),
    [
        ({"laplace": {"prior_precision": 1.0}}, {"train", "validation", "evaluation"}),
        ({"sgld": {"num_samples": 4, "num_steps": 20, "num_chains": 2}}, {"evaluation"}),
    ],
)
def test_a_posterior_that_fit_does_not_find_is_logged_as_an_evaluation(settings, runs, tmp_path):
    (way,) = settings
    run = zoo.train({**RECIPE, "inference": way, **settings}, measure=False, tensorboard=tmp_path)
    folder = tmp_path / "seed-0"
    assert {path.name for path in folder.iterdir() if path.is_dir()} == runs
    measured = zoo.evaluate(run.model, "iris", "validation", num_samples=10, seed=5)
    for name, tag in TAGS.items():
        (value,) = scalars(folder / "evaluation", tag).values()
        assert value == pytest.approx(measured[name], rel=1e-5), name
    names = {"laplace": "log_marginal_likelihood", "sgld": "rhat"}
    assert len(scalars(folder / "evaluation", f"diagnostics/{names[way]}")) == 1


@pytest.mark.slow
def test_the_log_changes_no_bit_of_the_training(logged, plain):
    run, _ = logged
    for name, value in weight_distributions(plain.model).items():
        np.testing.assert_array_equal(value, weight_distributions(run.model)[name])
    assert run.history == plain.history


@pytest.mark.slow
def test_a_run_that_is_resumed_goes_on_in_its_log(plain, tmp_path):
    log, out = tmp_path / "log", tmp_path / "out"
    with pytest.raises(Stop):
        zoo.train(RECIPE, out, seeds=1, checkpoint_seconds=0, callbacks=[StopAfter(2)], tensorboard=log)
    assert set(scalars(log / "seed-0" / "train", "elbo/elbo")) == {1, 2}
    run = zoo.train(RECIPE, out, seeds=1, resume=True, tensorboard=log)
    elbo = scalars(log / "seed-0" / "train", "elbo/elbo")
    assert list(elbo) == [1, 2, 3]
    np.testing.assert_allclose(list(elbo.values()), run.history["elbo"], rtol=1e-6)
    assert run.history == plain.history
    reader = EventAccumulator(str(log / "seed-0"))
    reader.Reload()
    for tag in ("about/recipe", "custom_scalars__config__"):
        assert len(reader.Tensors(tag)) == 1


def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_written(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(OSError, match="file"):
        zoo.train(RECIPE, tmp_path / "out", tensorboard=file / "log")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
def test_without_the_out_of_distribution_data_the_rest_is_logged(monkeypatch, tmp_path):
    def missing(*arguments):
        raise DataMissingError("fashion_mnist is not on this machine")

    monkeypatch.setattr(board, "out_of_distribution_block", missing)
    told = []
    zoo.train(RECIPE, measure=False, epochs=1, tensorboard=tmp_path, tell=told.append)
    assert any("out-of-distribution scores: fashion_mnist is not" in message for message in told)
    with pytest.raises(KeyError):
        scalars(tmp_path / "seed-0" / "validation", "out_of_distribution/predictive_entropy")


@pytest.mark.parametrize("name", ["lenet5_flipout.digits", "mlp_flipout.moons", "mlp_flipout.diabetes"])
def test_the_doctor_finds_nothing_wrong_with_a_pretrained_posterior(name):
    model = zoo.load_model(name)
    doctor = PosteriorDoctor(patience=1)
    doctor.set_model(model)
    doctor.on_train_begin()
    doctor.on_epoch_end(0, {"nll": 0.1, "kl": float(model.kl()), "beta": 1.0})
    doctor.on_train_end()
    assert doctor.findings == []


@pytest.mark.slow
def test_the_log_of_an_ensemble_is_not_that_of_a_member_of_another(tmp_path):
    """Members of training seed 1 have the seeds 2 and 3."""
    ensemble = {"inference": "ensemble", "members": 2, "epochs": 1, "seed": 1}
    zoo.train({**RECIPE, **ensemble}, measure=False, tensorboard=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ensemble-1", "seed-2", "seed-3"]

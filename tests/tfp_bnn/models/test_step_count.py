"""The warm-up of beta counts the steps of the model, whatever optimizers took them."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import tfp_bnn
from tfp_bnn.layers import DenseReparameterization
from tfp_bnn.models.training_state import restore_training_state, training_state
from tfp_bnn.transfer import informed_prior, update

X, Y = np.ones((8, 2), np.float32), np.arange(8) % 2
WARMUP = {"name": "linear_warmup", "steps": 8}


def make(optimizer="sgd", beta_schedule=WARMUP, **kwargs):
    layers = [keras.Input((2,)), DenseReparameterization(2)]
    model = tfp_bnn.VariationalSequential(layers, beta_schedule=beta_schedule, seed=0)
    model.compile(optimizer, run_eagerly=True, **kwargs)
    model.num_examples = len(X)
    return model


def step(model, number=1):
    """Trains, and returns beta of the last step."""
    for _ in range(number):
        model.train_on_batch(X, Y)
    return model.beta


@pytest.fixture
def trained():
    """A model after 4 of the 8 steps of its warm-up."""
    model = make("adam")
    assert step(model, 4) == 3 / 8
    return model


def test_compile_does_not_start_the_warm_up_again(trained):
    trained.compile("sgd", run_eagerly=True)
    assert trained.num_steps == 4
    assert step(trained) == 4 / 8
    # One that goes on counting, too.
    trained.compile(trained.optimizer, metrics=["accuracy"], run_eagerly=True)
    assert step(trained) == 5 / 8
    assert (trained.num_steps, int(trained.optimizer.iterations)) == (6, 2)


def test_an_optimizer_that_is_taken_up_again_brings_its_own_iterations(trained):
    first = trained.optimizer
    trained.compile("sgd", run_eagerly=True)
    step(trained)
    trained.compile(first, run_eagerly=True)
    assert trained.num_steps == 5
    assert step(trained) == 5 / 8


def test_steps_are_those_of_the_first_optimizer_until_there_is_another():
    optimizer = keras.optimizers.SGD()
    optimizer.iterations.assign(2)
    model = make(optimizer)
    assert step(model) == 2 / 8
    optimizer.iterations.assign(6)
    assert step(model) == 6 / 8


def test_the_warm_up_starts_again_on_purpose(trained):
    trained.num_steps = 0
    assert step(trained) == 0
    assert step(trained) == 1 / 8
    for wrong in (-1, 1.5):
        with pytest.raises(ValueError, match="`num_steps` must be an integer >= 0"):
            trained.num_steps = wrong


@pytest.mark.parametrize("compiled", [True, False])
def test_a_file_keeps_the_number_of_steps_with_and_without_its_optimizer(trained, compiled, tmp_path):
    trained.compile("sgd", run_eagerly=True)
    step(trained)
    trained.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=compiled)
    assert loaded.num_steps == 5
    if not compiled:
        loaded.compile("sgd", run_eagerly=True)
    assert int(loaded.optimizer.iterations) == (1 if compiled else 0)
    assert step(loaded) == 5 / 8
    assert loaded.num_steps == 6
    loaded.save(tmp_path / "again.keras")
    assert keras.models.load_model(tmp_path / "again.keras").num_steps == 6


@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
def test_weights_alone_keep_it_where_the_optimizer_does_not_fit(trained, tmp_path):
    trained.save_weights(tmp_path / "model.weights.h5")
    other = make()
    other.load_weights(tmp_path / "model.weights.h5")
    assert step(other) == 4 / 8


def test_a_file_from_before_counts_the_iterations_of_its_optimizer(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("tfp_bnn.models.step_count.StepCount.save", lambda self, store, optimizer: None)
    trained.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert step(loaded) == 4 / 8


def test_a_training_state_keeps_it_and_an_older_one_has_the_iterations_alone(trained):
    older = training_state(trained)
    del older["steps_before"]
    trained.compile("adam", run_eagerly=True)
    step(trained)
    state = training_state(trained)
    step(trained, 3)
    restore_training_state(trained, state)
    assert step(trained) == 5 / 8
    restore_training_state(trained, older)
    assert step(trained) == 4 / 8


def test_an_update_goes_on_at_the_final_beta(trained):
    step(trained, 5)
    updated = update(trained, X, Y, optimizer="sgd", epochs=1, batch_size=4, verbose=0)
    assert updated.beta == 1
    assert updated.num_steps == 11
    again = informed_prior(trained)
    again.num_steps = 0
    again.compile("sgd", run_eagerly=True)
    again.num_examples = len(X)
    assert step(again) == 0


def test_a_model_without_optimizer_says_so():
    model = tfp_bnn.VariationalSequential([keras.Input((2,)), DenseReparameterization(2)])
    assert not hasattr(model, "optimizer")
    assert model.num_steps == 0

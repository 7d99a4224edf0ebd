"""What is shown while the command line works, and what is not shown of TensorFlow."""

from __future__ import annotations

import os

import zoo
from tfp_bnn.likelihoods import LIKELIHOODS
from zoo.cli.progress import counted, training_progress
from zoo.cli.starting import without_start_up_lines
from zoo.training.planning import divergence, number_of_fits


def test_the_time_left_is_that_of_all_trainings(monkeypatch, capsys):
    """A step takes a second of this clock."""
    steps = 0
    monkeypatch.setattr("zoo.cli.progress.time.monotonic", lambda: steps)
    with training_progress(2) as (bar,):
        bar.set_params({"epochs": 4, "steps": 1})
        for _ in range(3):
            bar.on_train_begin()
            for epoch in range(4):
                bar.on_epoch_begin(epoch)
                steps += 1
                bar.on_train_batch_end(0)
                bar.on_epoch_end(epoch, {"elbo": -1.5})
    lines = capsys.readouterr().err.splitlines()
    assert lines[1] == "training 1/2  epoch 2/4  elbo -1.5  0:06 left in all"
    assert lines[6] == "training 2/2  epoch 3/4  elbo -1.5  0:01 left in all"
    # One more than was announced.
    assert lines[9] == "training 3  epoch 2/4  elbo -1.5  0:02 left in all"


def test_work_that_is_counted_says_how_much_is_left(monkeypatch, capsys):
    done = 0
    monkeypatch.setattr("zoo.cli.progress.time.monotonic", lambda: done)
    with counted("reading 1,000 rows", 1000) as advance:
        for _ in range(20):
            done += 50
            advance(50)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["reading 1,000 rows ...", "100 of 1,000, 15:00 left"]
    assert len(lines) == 10


def test_only_the_start_up_lines_of_tensorflow_are_left_out(capfd):
    with without_start_up_lines():
        os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n")
        os.write(2, b"I0000 00:00:1795964066.744023   28079 port.cc:153] oneDNN custom operations are on.\n")
        os.write(2, b"something else\n")
    assert capfd.readouterr().err == "something else\n"


def test_a_training_that_ends_worse_than_without_inputs_diverged():
    iris, diabetes = zoo.load_dataset("iris"), zoo.load_dataset("diabetes")
    classes, normal = (LIKELIHOODS.get(name) for name in ("categorical", "normal"))
    assert "Lower the learning rate" in divergence(8e7, iris, classes)
    assert divergence(float("nan"), iris, classes) is not None
    assert divergence(1.1, iris, classes) is divergence(6.0, diabetes, normal) is None


def test_the_trainings_of_a_recipe_are_counted():
    recipe = {"name": "mlp_flipout.x", "architecture": "mlp_flipout", "dataset": "iris", "inference": "ensemble"}
    seeds = {"evaluation": {"spread_seeds": [0, 1]}}
    assert number_of_fits(zoo.load_recipe({**recipe, "members": 3, **seeds})) == 6

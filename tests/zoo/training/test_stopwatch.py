"""The stopwatch of a comparison: steps count once, whatever process took them; validation and pauses do not."""

from __future__ import annotations

import json

import pytest

from zoo.training.callback_state import callback_states, restore_callbacks
from zoo.training.stopwatch import Stopwatch


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still; its only entry is the time in seconds. The process works half of it."""
    now = [100.0]
    monkeypatch.setattr("zoo.training.stopwatch.time.perf_counter", lambda: now[0])
    monkeypatch.setattr("zoo.training.stopwatch.time.process_time", lambda: now[0] / 2)
    return now


def of(seconds):
    return {"seconds": seconds, "cpu_seconds": seconds / 2}


def epoch(watch, clock, steps, validation=5.0):
    watch.on_epoch_begin(0)
    for step in range(steps):
        clock[0] += 2.0
        watch.on_train_batch_end(step)
    clock[0] += validation
    watch.on_epoch_end(0)


def test_seconds_of_steps_are_summed_over_trainings_without_validation(clock, tmp_path):
    watch = Stopwatch(tmp_path / "seconds.json")
    for training in (1, 2):
        watch.on_train_begin()
        epoch(watch, clock, 3)
        epoch(watch, clock, 1)
        watch.on_train_end()
        assert json.loads((tmp_path / "seconds.json").read_text()) == of(8.0 * training)


def test_a_resumed_training_counts_the_steps_that_it_kept_and_not_the_pause(clock, tmp_path):
    killed, arrays = Stopwatch(tmp_path / "seconds.json"), {}
    killed.on_train_begin()
    epoch(killed, clock, 3)
    states = json.loads(json.dumps(callback_states([killed], False, arrays)))
    epoch(killed, clock, 2)
    clock[0] += 1000.0
    resumed = Stopwatch(tmp_path / "seconds.json")
    resumed.on_train_begin()
    restore_callbacks([resumed], states, arrays)
    epoch(resumed, clock, 2)
    resumed.on_train_end()
    assert json.loads((tmp_path / "seconds.json").read_text()) == of(10.0)

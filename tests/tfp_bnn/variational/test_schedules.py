"""Schedules of beta."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tensorflow as tf

from tfp_bnn.variational.schedules import SCHEDULES, Constant, LinearWarmup, Schedule


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_has_a_docstring_and_a_config(name, check_spec):
    check_spec(SCHEDULES, name)


def test_there_are_schedules():
    assert {"constant", "linear_warmup"} <= {*SCHEDULES}
    assert all(issubclass(SCHEDULES[name], Schedule) for name in SCHEDULES)
    assert [_snake_case(SCHEDULES[name].__name__) for name in SCHEDULES] == list(SCHEDULES)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_ends_at_the_elbo_by_default(name):
    beta = SCHEDULES.get(name)(tf.constant(10**9, tf.int64))
    assert beta.dtype == tf.float32
    assert beta.shape == ()
    assert beta == 1.0


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Constant(), [1.0, 1.0, 1.0, 1.0, 1.0]),
        (Constant(0.25), [0.25, 0.25, 0.25, 0.25, 0.25]),
        (Constant(0), [0.0, 0.0, 0.0, 0.0, 0.0]),
        (LinearWarmup(steps=4), [0.0, 0.25, 0.75, 1.0, 1.0]),
        (LinearWarmup(steps=1), [0.0, 1.0, 1.0, 1.0, 1.0]),
        (LinearWarmup(steps=4, initial=0.5, final=0.1), [0.5, 0.4, 0.2, 0.1, 0.1]),
        (LinearWarmup(steps=8, initial=1, final=3), [1.0, 1.25, 1.75, 2.0, 3.0]),
    ],
)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_beta_by_iteration(schedule, expected, compiled):
    iterations = [0, 1, 3, 4, 100]
    # The optimizer's iteration is a variable: a schedule must read it at every step, not when it is traced.
    iteration = tf.Variable(0, dtype=tf.int64)
    call = tf.function(lambda: schedule(iteration), autograph=False) if compiled else lambda: schedule(iteration)
    found = []
    for number in iterations:
        iteration.assign(number)
        found.append(call().numpy())
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), True, "1", None])
def test_betas_out_of_range_are_refused(value):
    message = re.escape(f"must be a finite number >= 0, but got {value!r}")
    for make in (Constant, lambda beta: LinearWarmup(initial=beta), lambda beta: LinearWarmup(final=beta)):
        with pytest.raises(ValueError, match=message):
            make(value)


@pytest.mark.parametrize("value", [0, -1, 2.0, float("nan"), True, "100", None])
def test_steps_out_of_range_are_refused(value):
    with pytest.raises(ValueError, match=re.escape(f"must be an integer >= 1, but got {value!r}")):
        LinearWarmup(steps=value)


@pytest.mark.parametrize(
    ("identifier", "message"),
    [
        (
            {"name": "linear_warmup", "step": 10},
            "argument of the schedule 'linear_warmup': 'step'. Did you mean 'steps'?",
        ),
        ("warmup", "Unknown schedule 'warmup'. Did you mean 'linear_warmup'?"),
    ],
)
def test_unknown_names_are_refused(identifier, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        SCHEDULES.get(identifier)


def _snake_case(name):
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()

"""The noise itself: exactly standard normal, and fresh for every weight, step, mode and layer."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats

from tfp_bnn.layers import DenseFlipout, StochasticLayer

from .cases import CASES, FALSE_FAILURE_RATE, for_each_costly_case

STEPS = 3


class Recorder:
    """Noise that keeps what it gave, by kind and name."""

    def __init__(self, noise, log):
        self._noise, self._log = noise, log

    def normal(self, name, shape):
        """Standard normal noise."""
        return self._keep("normal", name, self._noise.normal(name, shape))

    def signs(self, name, shape):
        """Signs."""
        return self._keep("signs", name, self._noise.signs(name, shape))

    def _keep(self, kind, name, value):
        assert (kind, name) not in self._log, f"{name} was asked for twice in one call"
        self._log[kind, name] = value.numpy().ravel()
        return value


@pytest.fixture
def record(monkeypatch):
    """A function that gives the noise of one call of a layer by kind and name."""
    calls = []
    original = StochasticLayer._noise

    def recorded(self, training):
        calls.append({})
        return Recorder(original(self, training), calls[-1])

    monkeypatch.setattr(StochasticLayer, "_noise", recorded)

    def call(layer, inputs, training):
        calls.clear()
        layer(inputs, training=training)
        assert len(calls) == 1
        return calls[0]

    return call


@pytest.mark.statistical
@for_each_costly_case
def test_noise_is_standard_normal_and_fresh_for_every_weight_step_mode_and_layer(case, record):
    """3 steps in both modes of two layers with one seed; false-failure rate 1e-6 over all cases: Kolmogorov-Smirnov."""
    layers = [case.build(seed=7, name=name) for name in ("first", "second")]
    inputs = case.inputs()
    logs = [
        record(layer, inputs, training) for layer, training, _ in itertools.product(layers, (True, False), range(STEPS))
    ]
    normals = [value for log in logs for (kind, _), value in log.items() if kind == "normal"]
    assert bool(normals) == (case.posterior != "delta")
    if normals:
        assert len({float(value[0]) for value in normals}) == len(normals), "a tensor starts like another"
        assert scipy.stats.kstest(np.concatenate(normals), "norm").pvalue > FALSE_FAILURE_RATE / len(CASES)

    signs = [np.concatenate([value for (kind, _), value in log.items() if kind == "signs"] or [[]]) for log in logs]
    with_signs = [value for value in signs if len(value)]
    has_signs = "flipout" in case.estimator and case.posterior != "delta"
    assert len(with_signs) == (2 * STEPS if has_signs else 0)
    np.testing.assert_array_equal(np.abs(np.concatenate(signs)), 1.0)
    # Grouped flipout draws so few signs that two steps can have the same.
    least = 2 if has_signs and case.groups_of_noise else len(with_signs)
    assert len({tuple(value) for value in with_signs}) >= least, "the signs of two steps are equal"


@pytest.mark.statistical
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_the_noise_of_a_layer_is_standard_normal_and_its_signs_are_fair(training):
    """1,000,000 numbers; false-failure rate 1e-6: Kolmogorov-Smirnov, and exact binomial."""
    noise = DenseFlipout(3, seed=7)._noise(training)
    normal = noise.normal("kernel", (1_000_000,)).numpy()
    assert normal.dtype == np.float32
    assert scipy.stats.kstest(normal, "norm").pvalue > FALSE_FAILURE_RATE / 4
    signs = noise.signs("input_signs", (1_000_000,)).numpy()
    np.testing.assert_array_equal(np.abs(signs), 1.0)
    assert scipy.stats.binomtest(int((signs > 0).sum()), signs.size).pvalue > FALSE_FAILURE_RATE / 4

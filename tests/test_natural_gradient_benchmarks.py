"""The benchmarks of the natural gradient: it finds the exact mean-field posterior, and what the table compares."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def linear() -> Iterator[ModuleType]:
    yield from imported("natural_gradient_linear")


@pytest.fixture(scope="module")
def images() -> Iterator[ModuleType]:
    yield from imported("natural_gradient")


def imported(name: str) -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield importlib.import_module(name)
        del sys.modules[name]


def test_the_closed_form_is_the_conjugate_posterior(linear):
    """The means are those of the full posterior, and the scales those of a weight given all others."""
    mean, scale = linear.Goal().exact()
    design = np.column_stack([linear.X, np.ones(50)])
    precision = design.T @ design / 0.25 + np.diag([1 / 0.49] * 3 + [1.0])
    np.testing.assert_allclose(mean, np.linalg.inv(precision) @ design.T @ linear.Y[:, 0] / 0.25, rtol=1e-6)
    np.testing.assert_allclose(scale, 1 / np.sqrt(np.diag(precision)), rtol=1e-6)


@pytest.mark.thorough
@pytest.mark.parametrize("arguments", [{}, {"beta": 0.3}, {"temperature": 0.3}])
def test_the_exact_mean_field_posterior_is_found(linear, arguments):
    """1,500 steps of 128 draws of 50 rows, from seed 0, so nothing is random here."""
    goal = linear.Goal(**arguments)
    mean, scale = linear.errors(goal, linear.annealed(goal))
    assert mean < 0.02
    assert scale < 0.01


@pytest.mark.thorough
def test_adam_finds_the_same_minimizer_at_the_same_beta(linear):
    goal = linear.Goal(beta=0.3)
    (mean, scale), (of_adam, scale_of_adam) = linear.annealed(goal), linear.by_adam(goal)
    assert np.abs((mean - of_adam) / scale).max() < 0.03
    np.testing.assert_allclose(scale_of_adam, scale, rtol=0.02)


@pytest.mark.thorough
def test_a_constant_curvature_rate_makes_the_scales_too_small(linear):
    large, small = linear.bias(0.3), linear.bias(0.03)
    assert large < -0.05
    assert abs(small) < 0.02


def test_the_table_has_means_and_spreads_over_seeds(images):
    name = next(iter(images.METHODS))
    numbers = {number: "0.5" for number in images.NUMBERS}
    rows = [{"method": name, "seed": str(seed), **numbers, "nll": nll} for seed, nll in enumerate(("0.3", "0.4"))]
    _, _, row = images.table(rows).splitlines()
    assert row.startswith(f"| {name} | 2 | 0.5000 ± 0.0000 | 0.3500 ± 0.0707 |")


def test_all_methods_have_the_prior_and_the_start_that_are_stated(images):
    """1 / scale^2 = lambda (h0 + delta), with delta = 0.001, and after the warm-up the rate is lr (h0 + delta)."""
    cold = images.METHODS["natural gradient, temperature 0.2, 30 epochs"]
    assert cold.initial_scale == pytest.approx((5 * 10_000 * 0.101) ** -0.5, rel=1e-3)
    optimizer = cold.optimizer(3000)
    optimizer.iterations.assign(150)
    assert float(optimizer.learning_rate) == pytest.approx(0.2 * 0.101, rel=1e-3)
    assert sum(w.size for w in images.lenet5(cold, 0).network.get_weights()) == 2 * 61_706

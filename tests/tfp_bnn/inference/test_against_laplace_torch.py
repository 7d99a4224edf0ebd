"""Laplace's method gives the numbers of laplace-torch 0.3; `tests/data/laplace_torch/reference.py` made them."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

import tfp_bnn
from tfp_bnn.inference import laplace
from tfp_bnn.inference.point_weights import point_variables

REFERENCE = np.load(Path(__file__).parents[2] / "data" / "laplace_torch" / "reference.npz")
PRECISION = 2.0


@pytest.fixture(scope="module")
def exported():
    """The net of the reference."""
    hidden = keras.layers.Dense(8, activation="tanh", name="hidden")
    outputs = keras.layers.Dense(3, use_bias=False, name="outputs")
    model = tfp_bnn.VariationalSequential([keras.Input((4,)), hidden, outputs], seed=0)
    for name, variable in point_variables(model).items():
        variable.assign(REFERENCE[name])
    return model


@pytest.mark.parametrize(
    ("case", "arguments"),
    [
        ("last_full", {"structure": "full"}),
        ("last_kronecker", {"structure": "kronecker"}),
        ("last_diagonal", {"structure": "diagonal"}),
        pytest.param("all_full", {"layers": "all"}, marks=pytest.mark.slow),
        pytest.param("all_diagonal", {"layers": "all", "structure": "diagonal"}, marks=pytest.mark.slow),
        pytest.param(
            "all_diagonal_fisher",
            {"layers": "all", "structure": "diagonal", "curvature": "empirical_fisher"},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_probabilities_and_marginal_likelihood_are_those_of_laplace_torch(exported, case, arguments):
    posterior = laplace(exported, REFERENCE["x"], REFERENCE["y"], prior_precision=PRECISION, **arguments)
    found = posterior.closed_form_predictive(REFERENCE["x"]).mean()
    expected = REFERENCE[f"{case}/probabilities"]
    assert np.abs(expected - exported.plug_in_predictive(REFERENCE["x"]).mean()).max() > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert posterior.log_marginal_likelihood == pytest.approx(
        float(REFERENCE[f"{case}/log_marginal_likelihood"]), abs=0.01
    )

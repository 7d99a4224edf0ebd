"""One training step compiled by XLA, as Keras does by default where TensorFlow sees a GPU."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import tfp_bnn
from tfp_bnn.layers import DenseReparameterization
from tfp_bnn.priors import PRIORS

from .cases import CASES
from .test_training import assert_a_step_moves_every_parameter

# A compilation takes seconds: one of each room, and all others in `make test-all`.
QUICK = ("DenseFlipout-mean_field_normal",)


@pytest.mark.parametrize(
    "case", [case if str(case) in QUICK else pytest.param(case, marks=pytest.mark.thorough) for case in CASES], ids=str
)
def test_a_step_of_every_layer_with_every_posterior(case):
    assert_a_step_moves_every_parameter(case, jit_compile=True)


def test_no_case_is_forgotten():
    assert len(CASES) == 86
    assert len([name for name in PRIORS if PRIORS.package_of(name) == "tfp_bnn"]) == 9


@pytest.mark.parametrize(
    "prior", [prior if prior == "horseshoe" else pytest.param(prior, marks=pytest.mark.thorough) for prior in PRIORS]
)
@pytest.mark.slow
def test_a_step_of_every_prior(prior):
    improper = PRIORS[prior].improper
    layer = DenseReparameterization(
        3,
        kernel_prior=prior,
        kernel_posterior="delta" if improper else "mean_field_normal",
        bias_posterior="delta" if improper else "mean_field_normal",
    )
    model = tfp_bnn.VariationalSequential([keras.Input((4,)), layer], likelihood="normal", seed=0)
    assert_a_step_of_xla_moves_the_weights(model, np.ones((8, 3), np.float32))


# Those of the other likelihoods are in `tests/tfp_bnn/likelihoods/test_conformance.py`.
@pytest.mark.slow
def test_a_step_of_a_classifier():
    model = tfp_bnn.VariationalSequential([keras.Input((4,)), DenseReparameterization(4)], seed=0)
    assert_a_step_of_xla_moves_the_weights(model, np.arange(8) % 4)


def assert_a_step_of_xla_moves_the_weights(model, y):
    model.compile(keras.optimizers.Adam(0.01), jit_compile=True)
    before = [np.asarray(variable) for variable in model.trainable_variables]
    x = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    history = model.fit(x, y, batch_size=8, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    for variable, old in zip(model.trainable_variables, before, strict=True):
        assert (np.asarray(variable) != old).any(), variable.path
    assert np.isfinite(model.evaluate(x, y, batch_size=8, verbose=0, return_dict=True)["loss"])

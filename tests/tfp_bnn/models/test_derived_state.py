"""What layers derive from their variables is right in every copy of a model, and in functions that were compiled."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import tfp_bnn
from tfp_bnn import inference
from tfp_bnn.compression import prune
from tfp_bnn.layers import DenseFlipout, MCDropout
from tfp_bnn.models import restore_training_state, training_state
from tfp_bnn.transfer import informed_prior

RNG = np.random.default_rng(0)
X = RNG.normal(100.0, 20.0, size=(64, 2)).astype(np.float32)
Y = (X[:, :1] - 100) / 20


def network(adapted=True, dropout=False):
    """A linear function of inputs that an adapted layer standardizes."""
    keras.utils.set_random_seed(0)
    standardize = keras.layers.Normalization()
    if adapted:
        standardize.adapt(X)
    x = keras.Input((2,))
    h = standardize(x)
    h = MCDropout(0.1)(h) if dropout else h
    return tfp_bnn.VariationalModel(x, DenseFlipout(1)(h), likelihood={"name": "normal", "scale": 1.0}, seed=0)


def mean(model):
    return np.asarray(model.plug_in_predictive(X).mean())


COPIES = {
    "map": inference.map_estimate,
    "mc dropout": inference.mc_dropout,
    "informed prior": informed_prior,
    "pruned": lambda model: prune(model, 0.0),
    "fixed": inference.with_fixed_parameters,
}


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_standardizes_as_its_model_does(name):
    model = network(dropout=name == "mc dropout")
    np.testing.assert_allclose(mean(COPIES[name](model)), mean(model), rtol=1e-6)


def test_the_network_of_chains_standardizes():
    chains = inference.hmc(network(), X, Y, num_samples=2, burn_in=1, num_chains=1, verbose=0, plain_prior="normal")
    standardize = next(layer for layer in chains.network.layers if isinstance(layer, keras.layers.Normalization))
    np.testing.assert_allclose(np.asarray(standardize.mean)[0], X.mean(axis=0), rtol=1e-5)


def test_a_restored_model_forgets_what_it_had_compiled():
    model, again = network(), network(adapted=False)
    for each in (model, again):
        each.compile("adam")
        each.num_examples = len(X)
        # From here on, the tensors of the layer are constants of its functions.
        mean(each)
        each.evaluate(X, Y, verbose=0)
    restore_training_state(again, training_state(model))
    np.testing.assert_allclose(mean(again), mean(model), rtol=1e-6)
    losses = [each.evaluate(X, Y, verbose=0, return_dict=True)["nll"] for each in (model, again)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_loaded_weights_are_those_of_compiled_functions(tmp_path):
    model, again = network(), network(adapted=False)
    mean(again)
    model.save_weights(tmp_path / "a.weights.h5")
    again.load_weights(tmp_path / "a.weights.h5")
    np.testing.assert_allclose(mean(again), mean(model), rtol=1e-6)

"""Posteriors beside their networks, of networks with several outputs."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_bnn
from tfp_bnn.inference import Chains, Laplace, SwagIterates, full_rank, laplace, swag
from tfp_bnn.inference.convergence import rhat
from tfp_bnn.inference.weight_posterior import noise_of_draw
from tfp_bnn.layers import DenseFlipout
from tfp_bnn.models.weight_record import trainable_values

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 2)).astype(np.float32)
Y = {"class": np.arange(6) % 3, "value": X[:, 0]}
LIKELIHOOD = {"class": "categorical", "value": {"name": "normal", "scale": 1.0}}


def network(as_list=False):
    x = keras.Input((2,))
    outputs = {
        name: DenseFlipout(units, use_bias=False, kernel_posterior="delta", name=name)(x)
        for name, units in (("class", 3), ("value", 1))
    }
    return tfp_bnn.VariationalModel(x, [*outputs.values()] if as_list else outputs, likelihood=LIKELIHOOD, seed=0)


def of_full_rank(as_list):
    return full_rank(network(as_list), X, Y, num_steps=2, num_draws=2, verbose=0)


def of_swag(as_list):
    model, iterates = network(as_list), SwagIterates(rank=2)
    iterates.set_model(model)
    for _ in range(3):
        for variable in trainable_values(model).values():
            variable.assign_add(RNG.normal(size=variable.shape))
        iterates.collect()
    return swag(model, iterates)


@pytest.mark.parametrize(("make", "as_list"), [(of_full_rank, False), (of_swag, True)])
def test_each_head_is_predicted_from_the_weights_of_the_draw(make, as_list):
    posterior = make(as_list)
    found = posterior.posterior_predictive(X, num_samples=2, seed=3)
    for draw in range(2):
        noise = noise_of_draw(tf.constant([3, 0], tf.int64), tf.constant(draw))
        weights = posterior._network.split(posterior.mean_weights + posterior.perturbation(noise))
        np.testing.assert_allclose(found["value"].samples[draw], X @ weights["value/kernel"], atol=1e-5)
        probabilities = tf.nn.softmax(X @ weights["class/kernel"])
        np.testing.assert_allclose(found["class"].samples[draw], probabilities, atol=1e-5)
    assert np.isfinite(found.nll(Y))


def test_laplace_refuses_several_outputs_before_a_pass_over_the_data():
    for model in (network(), network(as_list=True)):
        with pytest.raises(ValueError, match=r"one output of shape \(batch, outputs\).* has outputs of shape .*`swag`"):
            laplace(model, X, Y)
        with pytest.raises(ValueError, match="one output"):
            Laplace.from_arrays([model], "laplace", {}, {}, "stored")


def test_each_head_has_its_convergence():
    kernels = {"class/kernel": (2, 8, 2, 3), "value/kernel": (2, 8, 2, 1)}
    states = {name: RNG.normal(size=shape).astype(np.float32) for name, shape in kernels.items()}
    states["value/kernel"][1] += 5.0
    chains = Chains(network(), states)
    convergence = chains.convergence(X)
    assert [*convergence.rhat][:2] == ["class/predictions", "value/predictions"]
    values = np.einsum("ni,csio->csno", X, states["value/kernel"])
    np.testing.assert_allclose(convergence.rhat["value/predictions"], rhat(values), rtol=1e-5)
    assert convergence.rhat["class/predictions"].shape == (6, 3)
    assert convergence.worst_rhat() == convergence.worst_rhat("value/predictions") > 1.5
    least = min(array.min() for name, array in convergence.ess.items() if name.endswith("/predictions"))
    assert chains.diagnostics(X)["ess"] == convergence.least_ess() == least

"""Mistakes that other libraries of Bayesian networks make, or once made: one test each, named after the mistake.

The list was gathered by reading the peers' own files and papers. The mistake of parameter counts typed by hand is
tested with the zoo, which states the counts; that of replicas with the same noise with `MirroredStrategy`, in
`models/test_mirrored_strategy.py`; those of predictions, noise and Keras in `test_peer_mistakes_in_models.py`.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

import tfp_bnn
from tfp_bnn.core.noise import noise_scope
from tfp_bnn.layers import (
    Convolution2DFlipout,
    Convolution2DTransposeFlipout,
    DenseFlipout,
    DenseReparameterization,
    DepthwiseConvolution2DFlipout,
)

from .peers import STANDARD, N, closed_form_kl, stack, train


@pytest.fixture(autouse=True)
def _global_seed():
    keras.utils.set_random_seed(0)


@pytest.fixture
def rng():
    return np.random.default_rng(1)


# === Flipout ===


@pytest.mark.parametrize(
    ("cls", "sizes", "shape"),
    [
        (DenseFlipout, (1,), (64, 1)),
        (Convolution2DFlipout, (1, 1), (64, 1, 1, 1)),
        (Convolution2DTransposeFlipout, (1, 1), (64, 1, 1, 1)),
    ],
)
def test_flipout_signs_are_exactly_plus_or_minus_one_not_from_an_interval(cls, sizes, shape):
    # With one weight w ~ N(0, 1), and inputs of 1, the outputs are +w and -w.
    layer = cls(*sizes, **STANDARD)
    outputs = layer(np.ones(shape, np.float32), training=True).numpy()
    assert np.unique(np.abs(outputs)).size == 1
    assert outputs.min() < 0 < outputs.max()


@pytest.mark.parametrize(
    ("cls", "twin_class", "sizes", "shape"),
    [
        (DenseFlipout, keras.layers.Dense, (3,), (5, 4)),
        (Convolution2DFlipout, keras.layers.Conv2D, (3, 2), (2, 4, 4, 2)),
        (Convolution2DTransposeFlipout, keras.layers.Conv2DTranspose, (3, 2), (2, 4, 4, 2)),
        (DepthwiseConvolution2DFlipout, keras.layers.DepthwiseConv2D, (2,), (2, 4, 4, 2)),
    ],
)
def test_flipout_does_not_perturb_the_mean_as_well(cls, twin_class, sizes, shape, injected_noise, rng):
    class WithOutputSigns:
        def __init__(self, sign):
            self.sign = sign
            self.normal = injected_noise.normal

        def signs(self, name, shape):
            return tf.fill(shape, self.sign) if name == "output_signs" else injected_noise.signs(name, shape)

    x = rng.normal(size=shape).astype(np.float32)
    layer, twin = cls(*sizes), twin_class(*sizes)
    layer.build(shape)
    twin.build(shape)
    twin.set_weights([layer.kernel, layer.bias])
    outputs = []
    for sign in (1.0, -1.0):
        with noise_scope({id(layer): WithOutputSigns(sign)}):
            outputs.append(layer(x, training=True).numpy())
    assert np.abs(outputs[0] - outputs[1]).max() > 0.01
    # What does not change its sign with the perturbation is the mean, and nothing else.
    np.testing.assert_allclose(np.mean(outputs, axis=0), twin(x), rtol=1e-5, atol=1e-6)


def test_tiling_one_batch_under_flipout_is_not_taken_for_independent_draws():
    layer = DenseFlipout(1, **STANDARD)
    model = tfp_bnn.VariationalSequential([keras.Input((1,)), layer], likelihood="normal", seed=0)
    samples = model.posterior_predictive(np.array([[1.0], [1.0], [2.0]]), num_samples=200).samples[..., 0]
    # The copies of a batch would share one perturbation, but for its sign.
    assert np.unique(np.abs(samples[:, 0])).size == 200
    # Each is a draw of the weights, used for every x.
    np.testing.assert_array_equal(samples[:, 1], samples[:, 0])
    np.testing.assert_allclose(samples[:, 2], 2 * samples[:, 0], rtol=1e-6)


# === The scale of the KL ===


def test_the_kl_is_summed_over_the_weights_not_averaged(randomize):
    layers = [DenseFlipout(5, bias_posterior="mean_field_normal"), DenseReparameterization(3)]
    model = stack(*layers)
    for seed, layer in enumerate(layers):
        randomize(layer, seed)
        assert float(layer.kl()) == pytest.approx(closed_form_kl(layer), rel=1e-5)
    total = sum(closed_form_kl(layer) for layer in layers)
    assert float(model.kl()) == pytest.approx(total, rel=1e-5)
    assert train(model)["kl"] == pytest.approx(total, rel=1e-5)


def test_an_estimated_kl_is_summed_over_the_weights_not_averaged(randomize, injected_noise):
    layer = DenseReparameterization(5, kernel_prior={"name": "laplace", "scale": 0.7})
    layer.build((None, 4))
    p = randomize(layer)
    with noise_scope({id(layer): injected_noise}):
        kl = float(layer.kl())
    w = p["kernel_loc"] + p["kernel_scale"] * injected_noise.drawn["kernel"]
    log_ratio = scipy.stats.norm.logpdf(w, p["kernel_loc"], p["kernel_scale"]) - scipy.stats.laplace.logpdf(w, 0, 0.7)
    assert kl == pytest.approx(log_ratio.sum(), rel=1e-5)


@pytest.mark.parametrize("batch_size", [2, 8, N])
def test_the_kl_is_not_divided_by_the_batch_size(batch_size):
    layer = DenseFlipout(3)
    logs = train(stack(layer), batch_size)
    assert logs["kl"] == pytest.approx(closed_form_kl(layer), rel=1e-5)
    # It enters the loss, which is per example, divided by N.
    assert logs["loss"] - logs["nll"] == pytest.approx(closed_form_kl(layer) / N, rel=1e-5)
    assert -logs["elbo"] - logs["nll"] == pytest.approx(closed_form_kl(layer) / N, rel=1e-5)


@pytest.mark.parametrize("number", [1, 2, 4])
def test_the_kl_is_not_divided_by_the_number_of_layers(number):
    layers = [DenseFlipout(4) for _ in range(number)]
    model = stack(*layers)
    for layer in layers:
        layer.set_weights(layers[0].get_weights())
    kl = number * closed_form_kl(layers[0])
    assert float(model.kl()) == pytest.approx(kl, rel=1e-5)
    logs = train(model)
    assert logs["kl"] == pytest.approx(kl, rel=1e-5)
    assert logs["loss"] - logs["nll"] == pytest.approx(kl / N, rel=1e-5)


# A mixture of equals is a normal whose KL is estimated.
@pytest.mark.parametrize("prior", ["normal", {"name": "scale_mixture", "scale_1": 1.0, "scale_2": 1.0}])
@pytest.mark.parametrize("units", [3, 500])
def test_no_constant_is_added_to_the_kl_for_each_weight(units, prior):
    layer = DenseReparameterization(units, kernel_prior=prior, **STANDARD)
    model = stack(layer)
    # The posterior is the prior. What is left is rounding.
    rounding = 1e-6 * layer.kernel.shape[0] * units
    assert float(model.kl()) == pytest.approx(0.0, abs=rounding)
    logs = train(model)
    assert logs["kl"] == pytest.approx(0.0, abs=rounding)
    assert logs["loss"] == pytest.approx(logs["nll"], rel=1e-5)


# === Priors that are given ===


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_an_informed_prior_is_not_kept_outside_of_the_saved_state(suffix, tmp_path, rng):
    layer = DenseReparameterization(3, kernel_prior="informed", name="layer")
    model, path = stack(layer), tmp_path / f"model{suffix}"
    prior = {"prior_loc": rng.normal(size=(4, 3)), "prior_scale": rng.uniform(0.1, 2.0, (4, 3))}
    prior = {name: value.astype(np.float32) for name, value in prior.items()}
    weight = layer.variational_weights["kernel"]
    weight.assign_parameters({**weight.parameters(), **prior})
    if suffix == ".keras":
        model.save(path)
        loaded = keras.models.load_model(path)
    else:
        model.save_weights(path)
        loaded = stack(DenseReparameterization(3, kernel_prior="informed", name="layer"))
        assert float(loaded.kl()) != float(model.kl())
        loaded.load_weights(path)
    (found,) = loaded.variational_layers
    np.testing.assert_array_equal(found.kernel_prior.mean(), prior["prior_loc"])
    np.testing.assert_array_equal(found.kernel_prior.stddev(), prior["prior_scale"])
    assert float(loaded.kl()) == float(model.kl())
    assert float(model.kl()) == pytest.approx(closed_form_kl(layer, *prior.values()), rel=1e-5)


def test_a_prior_that_is_promised_to_be_set_is_set(rng):
    layer = DenseReparameterization(3, kernel_prior="informed")
    layer.build((None, 4))
    weight = layer.variational_weights["kernel"]

    @tf.function(autograph=False)
    def kl_and_gradient():
        with tf.GradientTape() as tape:
            kl = layer.kl()
        return kl, tape.gradient(kl, layer.kernel.value)

    # The second time the function that uses it has been compiled.
    for _ in range(2):
        loc, scale = rng.normal(size=(4, 3)).astype(np.float32), rng.uniform(0.1, 2.0, (4, 3)).astype(np.float32)
        weight.assign_parameters({**weight.parameters(), "prior_loc": loc, "prior_scale": scale})
        np.testing.assert_array_equal(layer.kernel_prior.mean(), loc)
        np.testing.assert_array_equal(layer.kernel_prior.stddev(), scale)
        kl, gradient = kl_and_gradient()
        assert float(kl) == pytest.approx(closed_form_kl(layer, loc, scale), rel=1e-5)
        np.testing.assert_allclose(gradient, (weight.parameters()["loc"] - loc) / scale**2, rtol=1e-4, atol=1e-5)

"""The informed prior: a mean and a scale for every weight, that are given and not trained."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
import tensorflow_probability as tfp

import tfp_bnn
from tfp_bnn.layers import DenseReparameterization
from tfp_bnn.priors import Informed

tfd = tfp.distributions

RNG = np.random.default_rng(5)
KNOWN = {
    "prior_loc": RNG.normal(size=(3, 4)).astype(np.float32),
    "prior_scale": RNG.uniform(0.1, 2.0, size=(3, 4)).astype(np.float32),
}


def informed_model():
    layer = DenseReparameterization(4, kernel_prior="informed", name="layer")
    model = tfp_bnn.VariationalSequential([keras.Input((3,)), layer], likelihood="normal", seed=0)
    return model, layer.variational_weights["kernel"]


def test_it_starts_as_a_normal(random_weight):
    weight = random_weight(Informed(0.4))
    w = RNG.normal(size=(3, 4)).astype(np.float32)
    expected = tfd.Independent(tfd.Normal(np.zeros((3, 4), np.float32), 0.4), 2).log_prob(w)
    np.testing.assert_allclose(weight.prior.log_prob(w), expected, rtol=1e-6)
    np.testing.assert_allclose(Informed(0.4).distribution((3, 4), {}).log_prob(w), expected, rtol=1e-6)


def test_the_kl_is_the_closed_form_of_two_normals(random_weight, injected_noise):
    weight = random_weight("informed")
    weight.assign_parameters({**weight.parameters(), **KNOWN})
    parameters = {key: value.astype(np.float64) for key, value in weight.parameters().items()}
    np.testing.assert_array_equal(parameters["prior_loc"], KNOWN["prior_loc"])
    np.testing.assert_array_equal(parameters["prior_scale"], KNOWN["prior_scale"])
    variances = parameters["scale"] ** 2 + (parameters["loc"] - parameters["prior_loc"]) ** 2
    closed_form = np.log(parameters["prior_scale"] / parameters["scale"]) + variances / (
        2 * parameters["prior_scale"] ** 2
    )
    np.testing.assert_allclose(weight.kl(injected_noise), (closed_form - 0.5).sum(), rtol=1e-5)


def test_a_broad_component_makes_a_mixture_for_every_weight(random_weight):
    weight = random_weight(Informed(mix=0.2, broad_scale=3.0))
    weight.assign_parameters({**weight.parameters(), **KNOWN})
    w = RNG.normal(size=(3, 4))
    known = np.exp(-0.5 * ((w - KNOWN["prior_loc"]) / KNOWN["prior_scale"]) ** 2) / KNOWN["prior_scale"]
    broad = np.exp(-0.5 * (w / 3.0) ** 2) / 3.0
    expected = np.log((0.8 * known + 0.2 * broad) / np.sqrt(2 * np.pi)).sum()
    np.testing.assert_allclose(weight.prior.log_prob(w.astype(np.float32)), expected, rtol=1e-5)


def test_the_kl_to_a_mixture_is_that_of_the_draw(random_weight, injected_noise):
    weight = random_weight(Informed(mix=0.2))
    weight.assign_parameters({**weight.parameters(), **KNOWN})
    draw = weight.sample(injected_noise)
    expected = weight.posterior.log_prob(draw) - weight.prior.log_prob(draw)
    np.testing.assert_allclose(weight.kl(injected_noise), expected, rtol=1e-5)


def test_it_is_not_trained():
    model, weight = informed_model()
    weight.assign_parameters({**weight.parameters(), **KNOWN})
    assert [variable.trainable for variable in weight.variables] == [True, True, False, False]
    before = weight.parameters()
    model.compile("sgd", run_eagerly=True)
    model.fit(np.ones((8, 3)), np.ones((8, 4)), verbose=0)
    for name, value in weight.parameters().items():
        assert np.array_equal(value, before[name]) == name.startswith("prior_"), name


@pytest.mark.parametrize("file", ["model.keras", "model.weights.h5"])
def test_it_is_saved_as_weights_and_not_as_config(file, tmp_path):
    model, weight = informed_model()
    weight.assign_parameters({**weight.parameters(), **KNOWN})
    if file.endswith(".keras"):
        model.save(tmp_path / file)
        loaded = keras.models.load_model(tmp_path / file)
    else:
        model.save_weights(tmp_path / file)
        loaded, _ = informed_model()
        loaded.load_weights(tmp_path / file)
    (layer,) = loaded.variational_layers
    expected = {"initial_scale": 1.0, "mix": 0.0, "broad_scale": 1.0}
    assert layer.get_config()["kernel_prior"]["config"] == expected
    for name, value in weight.parameters().items():
        np.testing.assert_array_equal(layer.variational_weights["kernel"].parameters()[name], value)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"prior_loc": np.zeros((4, 3))}, "The informed prior loc must have the shape (3, 4), but got an array of (4"),
        ({"prior_scale": np.float32(1.0)}, "informed prior scale must have the shape (3, 4), but got an array of ()"),
        ({"prior_loc": np.full((3, 4), np.nan)}, "must be finite, but 12 of 12 values are not; the first is nan"),
        ({"prior_scale": np.diag(np.ones(4))[:3]}, "must be finite and at least 1.2e-38, but 9 of 12 values are not"),
        ({"prior_scale": np.full((3, 4), -1.0)}, "the first is -1.0 at index (0, 0)"),
        ({"prior_scale": np.full((3, 4), 1e-60)}, "the first is 0.0 at index (0, 0)"),
        ({"prior_scale": np.full((3, 4), np.inf)}, "the first is inf at index (0, 0)"),
    ],
)
def test_bad_arrays_are_refused_and_change_nothing(bad, message, random_weight):
    weight = random_weight("informed")
    before = weight.parameters()
    prior = {key.removeprefix("prior_"): value for key, value in {**KNOWN, **bad}.items()}
    with pytest.raises(ValueError, match=re.escape(message)):
        weight.prior_spec.assign_parameters(weight._prior_weights, prior)
    for name, value in weight.parameters().items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("value", [1.0, -0.1, float("nan"), True, "0"])
def test_shares_of_the_broad_component_out_of_range_are_refused(value):
    with pytest.raises(ValueError, match=re.escape(f"must be at least 0 and below 1, but got {value!r}")):
        Informed(mix=value)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), True, "1"])
def test_initial_scales_out_of_range_are_refused(value):
    with pytest.raises(
        ValueError,
        match=re.escape(
            f"`initial_scale` of the prior 'informed' must be a finite number larger than 0, but got {value!r}."
        ),
    ):
        Informed(value)

"""Posteriors against TFP and NumPy."""

from __future__ import annotations

import re

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tfp_bnn.layers import DenseReparameterization
from tfp_bnn.posteriors import POSTERIORS, MeanFieldNormal, Posterior

EPS = float(np.finfo(np.float32).eps)


@pytest.fixture
def weight():
    """A Bayesian weight of shape (3, 4)."""
    layer = DenseReparameterization(4)
    layer.build((None, 3))
    return layer.variational_weights["kernel"]


@pytest.mark.parametrize("name", POSTERIORS)
def test_every_posterior_has_a_docstring_and_a_config(name, check_spec):
    check_spec(POSTERIORS, name)


def test_there_are_posteriors():
    assert list(POSTERIORS) == ["mean_field_normal"]
    assert all(issubclass(POSTERIORS[name], Posterior) for name in POSTERIORS)
    assert [_snake_case(POSTERIORS[name].__name__) for name in POSTERIORS] == list(POSTERIORS)


def test_flipout_applies_only_where_a_family_says_so():
    assert MeanFieldNormal.symmetric_and_independent
    assert not Posterior.symmetric_and_independent


def test_the_distribution_is_a_normal_of_the_whole_weight(weight):
    rng = np.random.default_rng(0)
    loc, scale = rng.normal(size=(3, 4)), rng.uniform(0.1, 2.0, size=(3, 4))
    weight.assign_natural({"loc": loc, "scale": scale})
    posterior = weight.posterior
    assert posterior.event_shape == (3, 4)
    assert posterior.dtype == tf.float32
    w = rng.normal(size=(3, 4))
    expected = scipy.stats.norm.logpdf(w, loc, scale).sum()
    np.testing.assert_allclose(posterior.log_prob(w.astype(np.float32)), expected, rtol=1e-5)


def test_a_perturbation_is_the_noise_times_the_scale(weight, injected_noise):
    rng = np.random.default_rng(0)
    weight.assign_natural({"loc": rng.normal(size=(3, 4)), "scale": rng.uniform(0.1, 2.0, size=(3, 4))})
    perturbation = weight.perturbation(injected_noise)
    natural = weight.natural()
    np.testing.assert_allclose(perturbation, natural["scale"] * injected_noise.drawn["kernel"], rtol=1e-6)
    np.testing.assert_allclose(weight.sample(injected_noise), natural["loc"] + perturbation, rtol=1e-6)
    np.testing.assert_array_equal(weight.mean, natural["loc"])


# === Natural parameters ===


@pytest.mark.parametrize("initial_scale", [2e-7, 1e-3, 0.05, 1, 20.0, 1e5])
def test_the_initial_scale_is_in_the_units_of_the_weight(initial_scale, add_weight):
    posterior = MeanFieldNormal(initial_scale)
    weights = posterior.add_weights(add_weight, "kernel", tf.zeros((2, 3)))
    np.testing.assert_allclose(posterior.natural(weights)["scale"], initial_scale, rtol=1e-5)


def test_natural_round_trip(weight):
    rng = np.random.default_rng(0)
    values = {
        "loc": rng.normal(size=(3, 4)).astype(np.float32),
        "scale": np.geomspace(2e-7, 1e4, 12, dtype=np.float32).reshape(3, 4),
    }
    weight.assign_natural(values)
    natural = weight.natural()
    assert set(natural) == set(values)
    np.testing.assert_array_equal(natural["loc"], values["loc"])
    # The untransformed scale, as a float32, is -15 near the floor: 1e-6 of that is its relative error.
    np.testing.assert_allclose(natural["scale"], values["scale"], rtol=2e-5)
    for value in natural.values():
        assert value.dtype == np.float32
    weight.assign_natural(natural)
    np.testing.assert_allclose(weight.natural()["scale"], natural["scale"], rtol=2e-5)


@pytest.mark.parametrize("untransformed_scale", [-1000.0, -100.0, -33.0, -16.0, 0.0, 88.0, 1000.0])
def test_natural_values_of_any_posterior_can_be_assigned(weight, untransformed_scale):
    # Far below 0 the softplus underflows, and the scale is eps itself.
    weight.variables[1].assign(np.full((3, 4), untransformed_scale))
    natural = weight.natural()
    assert (natural["scale"] >= np.float32(EPS)).all()
    weight.assign_natural(natural)
    assert np.isfinite(weight.variables[1]).all()
    np.testing.assert_allclose(weight.natural()["scale"], natural["scale"], rtol=1e-5)


@pytest.mark.parametrize("bad", [0.0, -0.1, 1e-8, float("nan"), float("inf"), -float("inf")])
def test_scales_that_are_no_scales_are_refused(weight, bad):
    before = weight.natural()
    scale = np.full((3, 4), 0.1, np.float32)
    scale[1, 2] = scale[2, 0] = bad
    with pytest.raises(ValueError, match=r"2 of 12 values are not; the first is .* at index \(1, 2\)") as refusal:
        weight.assign_natural({"loc": np.ones((3, 4)), "scale": scale})
    assert f"the first is {np.float32(bad)}" in str(refusal.value)
    for name, value in weight.natural().items():
        np.testing.assert_array_equal(value, before[name])


def test_another_shape_is_refused(weight):
    with pytest.raises(ValueError, match="shape"):
        weight.assign_natural({"loc": np.zeros((4, 3)), "scale": np.ones((4, 3))})


@pytest.mark.parametrize("value", [0.0, -0.1, EPS, 1e6, float("nan"), float("inf"), True, "0.1", None])
def test_initial_scales_out_of_range_are_refused(value):
    with pytest.raises(ValueError, match=re.escape(f"but got {value!r}. Usual values are 0.001 to 0.1.")):
        MeanFieldNormal(initial_scale=value)


def _snake_case(name):
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()

"""What all posteriors have in common: parameters, what is trained, and their divergence from every prior."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

import tfp_bnn
from tfp_bnn.core.noise import NoNoise
from tfp_bnn.layers import DenseReparameterization
from tfp_bnn.posteriors import POSTERIORS, MeanFieldNormal, Posterior, ScaledPosterior
from tfp_bnn.priors import PRIORS

EPS = float(np.finfo(np.float32).eps)
SCALED = [name for name in POSTERIORS if issubclass(POSTERIORS[name], ScaledPosterior)]
CLOSED_FORM = ("normal", "informed")


@pytest.mark.parametrize("name", POSTERIORS)
def test_every_posterior_has_a_docstring_and_a_config(name, check_spec):
    check_spec(POSTERIORS, name)


def test_there_are_posteriors():
    assert {"delta", "low_rank_normal", "mean_field_normal", "radial"} <= {*POSTERIORS}
    assert all(issubclass(POSTERIORS[name], Posterior) for name in POSTERIORS)
    assert [_snake_case(POSTERIORS[name].__name__) for name in POSTERIORS] == list(POSTERIORS)
    assert {"low_rank_normal", "mean_field_normal", "radial"} <= {*SCALED}


def test_estimators_apply_only_where_a_family_says_so():
    assert [name for name in POSTERIORS if POSTERIORS[name].symmetric_and_independent] == ["mean_field_normal"]
    assert [name for name in POSTERIORS if POSTERIORS[name].independent_normal] == ["mean_field_normal"]
    assert [name for name in POSTERIORS if not POSTERIORS[name].has_spread] == ["delta"]
    assert not Posterior.symmetric_and_independent
    assert not Posterior.independent_normal


# === Distributions and draws ===


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("shape", [(3, 4), (1, 1), (1, 6)])
def test_the_log_density_is_that_of_the_formula(name, shape, random_weight, log_posterior):
    weight = random_weight(posterior=name, shape=shape)
    posterior = weight.posterior
    assert posterior.event_shape == shape
    assert posterior.batch_shape == ()
    assert posterior.dtype == tf.float32
    np.testing.assert_array_equal(posterior.mean(), weight.parameters()["loc"])
    np.testing.assert_array_equal(weight.mean, weight.parameters()["loc"])
    draws = weight.parameters()["loc"] + np.random.default_rng(1).normal(size=(2, 3, *shape)).astype(np.float32)
    log_prob = posterior.log_prob(draws).numpy()
    assert log_prob.shape == (2, 3)
    expected = [[log_posterior(name, w, weight.parameters()) for w in row] for row in draws]
    np.testing.assert_allclose(log_prob, expected, rtol=2e-5, atol=2e-5)
    assert posterior.sample(5, seed=(1, 2)).shape == (5, *shape)
    assert posterior.sample(seed=3).dtype == tf.float32


@pytest.mark.parametrize("name", POSTERIORS)
def test_without_noise_a_draw_is_the_mean(name, random_weight):
    weight = random_weight(posterior=name)
    np.testing.assert_array_equal(weight.sample(NoNoise()), weight.parameters()["loc"])
    with tf.GradientTape() as tape:
        perturbation = weight.perturbation(NoNoise())
    np.testing.assert_array_equal(perturbation, np.zeros((3, 4)))
    for gradient in tape.gradient(perturbation, [v.value for v in weight.variables]):
        assert gradient is None or np.isfinite(gradient).all()


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("untransformed_scale", [-1000.0, -10.0, 30.0])
def test_draws_and_kl_are_finite_at_extreme_scales(name, untransformed_scale, random_weight, injected_noise):
    for prior in ("normal", "horseshoe"):
        weight = random_weight(prior, name)
        weight.variables[1].assign(np.full((3, 4), untransformed_scale))
        variables = [v.value for v in weight.variables]
        with tf.GradientTape() as tape:
            terms = [tf.reduce_sum(weight.sample(injected_noise)), weight.kl(injected_noise)]
            total = tf.add_n(terms)
        assert np.isfinite(terms).all()
        for gradient in tape.gradient(total, variables):
            assert np.isfinite(gradient).all()


# === The KL ===


def entropy(posterior, p):
    """In nats, by NumPy: of a dense covariance, or of a direction and a distance."""
    scale = p["scale"].astype(np.float64).ravel()
    size = scale.size
    if posterior == "low_rank_normal":
        factor = p["factor"].astype(np.float64).reshape(size, -1)
        _, log_determinant = np.linalg.slogdet(np.diag(scale**2) + factor @ factor.T)
        return 0.5 * (size * np.log(2 * np.pi * np.e) + log_determinant)
    log_area = np.log(2) + size / 2 * np.log(np.pi) - scipy.special.gammaln(size / 2)
    # E[log |r|] of a standard normal r is (digamma(1 / 2) + log 2) / 2.
    mean_log_distance = 0.5 * (scipy.special.digamma(0.5) + np.log(2))
    return scipy.stats.halfnorm.entropy() + (size - 1) * mean_log_distance + log_area + np.log(scale).sum()


def test_the_kl_estimate_of_many_weights_keeps_its_digits(random_weight):
    # Without its factor, the low-rank normal is 10,000 independent ones.
    independent = 1e4 * scipy.stats.norm(scale=1e-5).entropy()
    for name in ("radial", "low_rank_normal"):
        weight = random_weight("laplace", name, shape=(100, 100))
        values = {**weight.parameters(), "loc": np.ones((100, 100)), "scale": np.full((100, 100), 1e-5)}
        if "factor" in values:
            values["factor"] = np.zeros_like(values["factor"])
        weight.assign_parameters(values)
        known = independent if "factor" in values else entropy(name, weight.parameters())
        expected = -known + 1e4 * (np.log(2) + 1)
        np.testing.assert_allclose(weight.kl(NoNoise()), expected, rtol=1e-6)


@pytest.mark.parametrize("posterior", SCALED)
@pytest.mark.parametrize("prior", [name for name in PRIORS if not PRIORS[name].improper and name not in CLOSED_FORM])
def test_the_kl_is_estimated_at_the_draw(posterior, prior, random_weight, injected_noise, log_prior, log_posterior):
    weight = random_weight(prior, posterior)
    estimate = weight.kl(injected_noise)
    w = weight.sample(injected_noise).numpy()
    of_posterior = log_posterior(posterior, w, weight.parameters())
    if posterior != "mean_field_normal":
        of_posterior = -entropy(posterior, weight.parameters())
    expected = of_posterior - log_prior(prior, w).sum()
    # The horseshoe is an approximation.
    np.testing.assert_allclose(estimate, expected, rtol=2e-5, atol=6.4e-4 * 12 if prior == "horseshoe" else 1e-4)


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("prior", CLOSED_FORM)
def test_the_kl_to_a_normal_needs_no_noise(posterior, prior, random_weight, injected_noise):
    weight = random_weight(prior, posterior)
    assert np.isfinite(tf.function(weight.kl, autograph=False)(injected_noise))
    assert not injected_noise.drawn


# === What is trained ===


def network(name, trainable):
    posterior = {"name": name, "initial_scale": 0.3, "trainable": trainable}
    layer = DenseReparameterization(2, kernel_posterior=posterior, use_bias=False, name="layer")
    model = tfp_bnn.VariationalSequential(
        [keras.Input((3,)), layer], likelihood={"name": "normal", "scale": 0.5}, num_examples=8, seed=0
    )
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    return model


def changed_by_a_step(model):
    """The names of the parameters that a training step changes."""
    weight = model.variational_layers[0].variational_weights["kernel"]
    before = weight.parameters()
    model.train_on_batch(np.random.default_rng(0).normal(size=(8, 3)), np.ones((8, 2)))
    return {name for name, value in weight.parameters().items() if not np.array_equal(value, before[name])}


@pytest.mark.parametrize("name", SCALED)
def test_exactly_what_is_named_is_trained_also_after_saving(name, tmp_path):
    of_spread = {"scale", "factor"} if name == "low_rank_normal" else {"scale"}
    for trainable, expected in (("both", {"loc"} | of_spread), ("loc", {"loc"}), ("scale", of_spread)):
        model = network(name, trainable)
        assert len(model.trainable_variables) == len(expected)
        assert changed_by_a_step(model) == expected
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert [v.trainable for v in loaded.variables] == [v.trainable for v in model.variables]
        before, after = (m.variational_layers[0].variational_weights["kernel"].parameters() for m in (model, loaded))
        for value, same in zip(before.values(), after.values(), strict=True):
            np.testing.assert_array_equal(value, same)
        loaded.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
        assert changed_by_a_step(loaded) == expected


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("value", ["mean", "", None, True, ["loc"]])
def test_another_value_of_trainable_is_refused(name, value):
    message = f"`trainable` of the posterior {name!r} must be one of 'both', 'loc', 'scale', but got {value!r}."
    with pytest.raises(ValueError, match=re.escape(message)):
        POSTERIORS.get({"name": name, "trainable": value})


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("value", [0.0, -0.1, EPS, 1e6, float("nan"), float("inf"), True, "0.1", None])
def test_initial_scales_out_of_range_are_refused(name, value):
    message = f"`initial_scale` of the posterior {name!r} must be a number between 1.2e-07 and 1e6, but got {value!r}."
    with pytest.raises(ValueError, match=re.escape(message)):
        POSTERIORS.get({"name": name, "initial_scale": value})


# === Parameters ===


@pytest.mark.parametrize("initial_scale", [2e-7, 1e-3, 0.05, 1, 20.0, 1e5])
def test_the_initial_scale_is_in_the_units_of_the_weight(initial_scale, add_weight):
    posterior = MeanFieldNormal(initial_scale)
    weights = posterior.add_weights(add_weight, "kernel", tf.zeros((2, 3)))
    np.testing.assert_allclose(posterior.parameters(weights)["scale"], initial_scale, rtol=1e-5)


@pytest.mark.parametrize("name", SCALED)
def test_natural_values_round_trip(name, random_weight):
    weight = random_weight(posterior=name)
    values = {
        **weight.parameters(),
        "loc": np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32),
        "scale": np.geomspace(2e-7, 1e4, 12, dtype=np.float32).reshape(3, 4),
    }
    weight.assign_parameters(values)
    parameters = weight.parameters()
    assert set(parameters) == {"loc", "scale", "factor"} if name == "low_rank_normal" else {"loc", "scale"}
    # The untransformed scale, as a float32, is -15 near the floor: 1e-6 of that is its relative error.
    np.testing.assert_allclose(parameters["scale"], values["scale"], rtol=2e-5)
    for key, value in parameters.items():
        assert value.dtype == np.float32
        if key != "scale":
            np.testing.assert_array_equal(value, values[key])
    weight.assign_parameters(parameters)
    np.testing.assert_allclose(weight.parameters()["scale"], parameters["scale"], rtol=2e-5)


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("untransformed_scale", [-1000.0, -100.0, -33.0, -16.0, 0.0, 88.0, 1000.0])
def test_natural_values_of_any_posterior_can_be_assigned(name, untransformed_scale, random_weight):
    weight = random_weight(posterior=name)
    # Far below 0 the softplus underflows, and the scale is eps itself.
    weight.variables[1].assign(np.full((3, 4), untransformed_scale))
    parameters = weight.parameters()
    assert (parameters["scale"] >= np.float32(EPS)).all()
    weight.assign_parameters(parameters)
    assert np.isfinite(weight.variables[1]).all()
    np.testing.assert_allclose(weight.parameters()["scale"], parameters["scale"], rtol=1e-5)


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("bad", [0.0, -0.1, 1e-8, float("nan"), float("inf"), -float("inf")])
def test_scales_that_are_no_scales_are_refused(name, bad, random_weight):
    weight = random_weight(posterior=name)
    before = weight.parameters()
    scale = np.full((3, 4), 0.1, np.float32)
    scale[1, 2] = scale[2, 0] = bad
    with pytest.raises(ValueError, match=r"2 of 12 values are not; the first is .* at index \(1, 2\)") as refusal:
        weight.assign_parameters({**before, "loc": np.ones((3, 4)), "scale": scale})
    assert f"the first is {np.float32(bad)}" in str(refusal.value)
    for key, value in weight.parameters().items():
        np.testing.assert_array_equal(value, before[key])


@pytest.mark.parametrize("name", POSTERIORS)
def test_values_that_do_not_fit_are_refused_and_change_nothing(name, random_weight):
    weight = random_weight(posterior=name)
    before = weight.parameters()
    good = {key: value * np.float32(0.5) for key, value in before.items()}
    for key, value in before.items():
        nan = np.where(np.arange(value.size) == 5, np.nan, value.ravel()).reshape(value.shape)
        for bad, message in (
            (value.T, f"The posterior {key} must have the shape {value.shape}, but got an array of {value.T.shape}."),
            (nan, "but 1 of "),
        ):
            with pytest.raises(ValueError, match=re.escape(message)):
                weight.assign_parameters({**good, key: bad})
        missing = {other: array for other, array in good.items() if other != key}
        with pytest.raises(ValueError, match=f"The posterior needs the value {key!r}, but got only"):
            weight.assign_parameters(missing)
    for key, value in weight.parameters().items():
        np.testing.assert_array_equal(value, before[key])


def _snake_case(name):
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def test_a_refused_prior_leaves_the_posterior_as_it_was(random_weight):
    weight = random_weight({"name": "normal", "empirical_bayes": True})
    before = weight.parameters()
    with pytest.raises(ValueError, match="learned prior scale must be finite"):
        weight.assign_parameters({**before, "loc": before["loc"] + 1, "prior_scale": -1.0})
    for name, value in before.items():
        np.testing.assert_array_equal(weight.parameters()[name], value)

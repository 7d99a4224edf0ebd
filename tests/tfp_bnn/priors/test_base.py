"""What all priors have in common, and the scale of those that have one: fixed, learned or inferred."""

from __future__ import annotations

import json
import re

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_bnn
from tfp_bnn.layers import DenseFlipout, DenseReparameterization
from tfp_bnn.posteriors import POSTERIORS
from tfp_bnn.priors import PRIORS, Normal, Prior, ScaledPrior
from tfp_bnn.priors.hyperpriors import HYPERPRIORS, HalfCauchy, InverseGamma

tfd = tfp.distributions

SCALED = [name for name in PRIORS if issubclass(PRIORS[name], ScaledPrior)]
HYPERPRIOR = {"name": "inverse_gamma", "concentration": 2.0, "scale": 0.5}
LEARNED = [{"empirical_bayes": True}, {"hyperprior": HYPERPRIOR}]


def scaled(name, **arguments):
    return PRIORS.get({"name": name, **arguments})


def one_variable(weight, role):
    (variable,) = [v for v in weight.variables if v.name == f"kernel_prior_{role}"]
    return variable


# === All priors ===


@pytest.mark.parametrize("name", PRIORS)
def test_every_prior_has_a_docstring_and_a_config(name, check_spec):
    check_spec(PRIORS, name)


def test_there_are_priors():
    assert {"cauchy", "flat", "horseshoe", "informed", "laplace", "normal", "student_t"} <= {*PRIORS}
    assert all(issubclass(PRIORS[name], Prior) for name in PRIORS)
    assert [_snake_case(PRIORS[name].__name__) for name in PRIORS] == list(PRIORS)
    assert {"flat", "informed"}.isdisjoint(SCALED)
    assert "flat" in {name for name in PRIORS if PRIORS[name].improper}


@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 3, 4, 5)])
def test_the_event_is_the_whole_weight(name, shape):
    prior = PRIORS.get(name).distribution(shape, {})
    assert prior.event_shape == shape
    assert prior.batch_shape == ()
    assert prior.dtype == tf.float32
    log_prob = prior.log_prob(tf.zeros(shape))
    assert log_prob.shape == ()
    assert log_prob.dtype == tf.float32
    assert np.isfinite(log_prob)


@pytest.mark.parametrize("name", PRIORS)
def test_the_density_is_the_product_over_the_weights(name, log_prior):
    w = np.random.default_rng(0).standard_t(2, size=(4, 5)).astype(np.float32)
    expected = log_prior(name, w)
    ours = PRIORS.get(name).distribution((4, 5), {}).log_prob(w)
    # The horseshoe is an approximation.
    tolerance = 6.4e-4 * w.size if name == "horseshoe" else 1e-5 * np.abs(expected).sum()
    np.testing.assert_allclose(ours, expected.sum(), rtol=0, atol=tolerance)


def test_a_prior_of_another_shape_is_refused_at_build():
    class OfThree(Prior):
        def distribution(self, shape, weights, noise=0.0):
            return tfd.Independent(tfd.Normal(tf.zeros(3), 1.0), 1)

    PRIORS.register("of_three")(OfThree)
    try:
        layer = DenseFlipout(5, kernel_prior="of_three")
        message = "The prior OfThree() of 'kernel' is over tensors of shape (3,), but the weight has shape (4, 5)."
        with pytest.raises(ValueError, match=re.escape(message)):
            layer.build((None, 4))
    finally:
        PRIORS.unregister("of_three")


@pytest.mark.parametrize("posterior", [name for name in POSTERIORS if name != "delta"])
def test_a_flat_prior_is_refused_for_all_posteriors_but_delta(posterior):
    with pytest.raises(TypeError, match=r"kernel_prior=Flat.* is improper .* the posterior 'delta'") as refusal:
        DenseReparameterization(2, kernel_prior="flat", kernel_posterior=posterior)
    assert "Combinations that exist:\n" in str(refusal.value)
    assert "The improper prior `flat` can only be used with the posterior `delta`." in str(refusal.value)
    DenseReparameterization(2, kernel_prior="flat", kernel_posterior="delta")


# === Configurations ===


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("arguments", [{}, {"scale": 0.3}, *LEARNED, {**LEARNED[1], "shared": "all"}])
def test_a_config_goes_through_json(name, arguments):
    prior = scaled(name, **arguments)
    assert prior.get_config()["hyperprior"] == arguments.get("hyperprior")
    text = json.dumps(keras.saving.serialize_keras_object(prior))
    assert keras.saving.deserialize_keras_object(json.loads(text)) == prior
    assert PRIORS.get(json.loads(text)) == prior
    assert type(prior).from_config(json.loads(json.dumps(prior.get_config()))) == prior


def test_a_hyperprior_comes_in_every_form():
    expected = Normal(hyperprior=HYPERPRIOR)
    assert expected.hyperprior == InverseGamma(2.0, 0.5)
    serialized = keras.saving.serialize_keras_object(InverseGamma(2.0, 0.5))
    for form in (InverseGamma(2.0, 0.5), serialized, dict(HYPERPRIOR)):
        assert Normal(hyperprior=form) == expected
        assert hash(Normal(hyperprior=form)) == hash(expected)
    assert Normal(hyperprior="half_cauchy").hyperprior == HalfCauchy()
    assert Normal(hyperprior="half_cauchy") != Normal(hyperprior={"name": "half_cauchy", "scale": 2.0})


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("value", [-1.0, 0, 0.0, float("nan"), float("inf"), True, "1", None])
def test_scales_out_of_range_are_refused(name, value):
    message = f"`scale` of the prior {name!r} must be a finite number larger than 0, but got {value!r}"
    with pytest.raises(ValueError, match=re.escape(message)):
        scaled(name, scale=value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"empirical_bayes": 1}, "`empirical_bayes` of the prior 'laplace' must be True or False, but got 1."),
        (
            {"empirical_bayes": True, "hyperprior": "half_normal"},
            "Got empirical_bayes=True and hyperprior='half_normal' for the prior 'laplace'.",
        ),
        ({"hyperprior": "half_norml"}, "Unknown hyperprior 'half_norml'. Did you mean 'half_normal'?"),
        ({"hyperprior": {"name": "half_normal", "scale": 0.0}}, "`scale` of the hyperprior 'half_normal' must be"),
        ({"hyperprior": {"name": "half_normal", "loc": 0.0}}, "argument of the hyperprior 'half_normal': 'loc'"),
        ({"shared": "all"}, "Got shared='all' for the prior 'laplace', whose scale is fixed"),
        ({"empirical_bayes": True, "shared": ""}, "must be a name of letters, digits and '_.-', or None, but got ''."),
        ({"empirical_bayes": True, "shared": "a/b"}, "or None, but got 'a/b'."),
        ({"empirical_bayes": True, "shared": "a" * 101}, "or None, but got 'aaa"),
        ({"empirical_bayes": True, "shared": 1}, "or None, but got 1."),
        ({"empirical_bayes": True, "scale": 1e-3}, "A learned `scale` must start above 0.001, but got 0.001."),
        ({"hyperprior": "half_normal", "scale": 1e-4}, "A learned `scale` must start above 0.001, but got 0.0001."),
    ],
)
def test_arguments_that_are_wrong_or_contradict_one_another_are_refused(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        scaled("laplace", **arguments)
    assert scaled("laplace", scale=1e-4).scale == 1e-4


@pytest.mark.parametrize("hyperprior", [3, None, Normal(), "normal"])
def test_what_is_no_hyperprior_is_refused(hyperprior):
    with pytest.raises((TypeError, ValueError), match="hyperprior"):
        HYPERPRIORS.get(hyperprior)


# === The scale ===


@pytest.mark.parametrize("name", SCALED)
def test_the_scale_is_a_unit_of_the_weight(name):
    w = np.random.default_rng(1).standard_t(2, size=(4, 5))
    for scale in (0.02, 5.0):
        ours = scaled(name, scale=scale).distribution((4, 5), {}).log_prob((scale * w).astype(np.float32))
        unit = scaled(name).distribution((4, 5), {}).log_prob(w.astype(np.float32))
        np.testing.assert_allclose(ours, unit - w.size * np.log(scale), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("name", SCALED)
def test_the_gradient_of_the_scale_and_of_the_weights(name, log_prior):
    w, scale, step = np.array([-2.0, -0.3, 0.1, 0.7, 5.0]), 0.8, 1e-4
    tensors = [tf.constant(w, tf.float32), tf.constant(scale)]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        log_prob = scaled(name).with_scale((5,), tensors[1]).log_prob(tensors[0])
    of_weights, of_scale = tape.gradient(log_prob, tensors)
    by_weights = (log_prior(name, w + step, scale) - log_prior(name, w - step, scale)) / (2 * step)
    by_scale = (log_prior(name, w, scale + step) - log_prior(name, w, scale - step)).sum() / (2 * step)
    # That of the horseshoe is the gradient of an approximation.
    tolerance = 0.01 if name == "horseshoe" else 1e-4
    np.testing.assert_allclose(of_weights, by_weights, rtol=tolerance)
    np.testing.assert_allclose(of_scale, by_scale, rtol=tolerance)


@pytest.mark.parametrize("name", SCALED)
def test_gradients_are_finite_at_extreme_scales_and_weights(name):
    for scale in (1e-3, 1.0, 1e4):
        w = tf.constant([0.0, 1e-30, -1e-12, 1e-9, 1e-3, -1.0, 1e4])
        factor = tf.constant(scale)
        with tf.GradientTape() as tape:
            tape.watch([w, factor])
            log_prob = scaled(name).with_scale((7,), factor).log_prob(w)
        assert np.isfinite(log_prob)
        for gradient in tape.gradient(log_prob, [w, factor]):
            assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", SCALED)
def test_a_scale_is_fixed_learned_or_inferred(name, random_weight):
    fixed, learned, inferred = (random_weight(scaled(name, scale=0.7, **kind)) for kind in ({}, *LEARNED))
    assert [len(weight.variables) for weight in (fixed, learned, inferred)] == [2, 3, 4]
    assert "prior_scale" not in fixed.parameters()
    w = np.random.default_rng(2).normal(size=(3, 4)).astype(np.float32)
    for weight in (learned, inferred):
        assert all(variable.trainable and variable.dtype == "float32" for variable in weight.variables)
        # Where told at first, and afterwards at the current value.
        for scale in (0.7, 0.2):
            np.testing.assert_allclose(weight.parameters()["prior_scale"], scale, rtol=1e-5)
            expected = scaled(name, scale=scale).distribution((3, 4), {}).log_prob(w)
            np.testing.assert_allclose(weight.prior.log_prob(w), expected, rtol=1e-5)
            weight.assign_parameters({**weight.parameters(), "prior_scale": 0.2})


@pytest.mark.parametrize("name", SCALED)
def test_an_inferred_scale_is_drawn(name, random_weight, injected_noise, log_prior, log_posterior):
    weight = random_weight(scaled(name, scale=0.7, **LEARNED[1]))
    weight.assign_parameters({**weight.parameters(), "prior_scale_spread": 0.4})
    kl = weight.kl(injected_noise)
    # One normal scalar draws the scale: around its median, 0.7, above its floor.
    scale = 0.001 + 0.699 * np.exp(0.4 * injected_noise.drawn["kernel_prior_scale"])
    parameters = weight.parameters()
    if name == "normal":
        closed_form = tfd.kl_divergence(
            tfd.MultivariateNormalDiag(parameters["loc"].ravel(), parameters["scale"].ravel()),
            tfd.MultivariateNormalDiag(np.zeros(12, np.float32), np.full(12, scale)),
        )
        np.testing.assert_allclose(kl, closed_form, rtol=1e-5)
    else:
        w = parameters["loc"] + parameters["scale"] * injected_noise.drawn["kernel"]
        expected = log_posterior("mean_field_normal", w, parameters) - log_prior(name, w, scale).sum()
        np.testing.assert_allclose(kl, expected, rtol=1e-5, atol=6.4e-4 * 12 if name == "horseshoe" else 1e-4)
    # The divergence of the scale itself is at the same draw.
    hyper_kl = weight.hyper_kl(injected_noise)
    entropy = scipy.stats.norm.entropy(scale=0.4) + np.log(0.699)
    log_hyperprior = scipy.stats.invgamma.logpdf(scale**2, 2.0, scale=0.5) + np.log(2 * scale)
    np.testing.assert_allclose(hyper_kl, -entropy - log_hyperprior, rtol=1e-5)


def test_a_fixed_or_learned_scale_has_no_divergence_of_its_own(random_weight, injected_noise):
    assert random_weight(Normal(0.7)).hyper_kl(injected_noise) is None
    assert random_weight(Normal(0.7, empirical_bayes=True)).hyper_kl(injected_noise) is None
    assert Normal(0.7).hyper_kl({}, tf.constant(1.0)) == 0.0


def test_the_current_scale_is_used_by_a_compiled_function(random_weight, injected_noise):
    weight = random_weight(Normal(0.7, hyperprior="half_normal"))

    @tf.function(autograph=False)
    def deviation(noise):
        return weight.prior_spec.distribution((3, 4), weight._prior_weights, noise).stddev()

    for scale in (0.7, 0.3):
        weight.assign_parameters({**weight.parameters(), "prior_scale": scale})
        np.testing.assert_allclose(deviation(tf.constant(0.0)), np.full((3, 4), scale), rtol=1e-5)


@pytest.mark.parametrize("kind", LEARNED)
def test_the_learned_scale_has_a_floor(kind, random_weight, injected_noise):
    weight = random_weight(Normal(0.7, **kind))
    variable = one_variable(weight, "untransformed_scale")
    variable.assign(-100.0)
    np.testing.assert_allclose(weight.prior.stddev(), np.full((3, 4), 1e-3), rtol=1e-5)
    with tf.GradientTape() as tape:
        kl = weight.kl(injected_noise) + (weight.hyper_kl(injected_noise) or 0.0)
    assert np.isfinite(kl)
    gradient = tape.gradient(kl, variable.value)
    assert np.isfinite(gradient)
    # What lies below the floor can be read and put back.
    weight.assign_parameters(weight.parameters())
    np.testing.assert_allclose(weight.parameters()["prior_scale"], 1e-3, rtol=1e-5)


# === Parameters ===


@pytest.mark.parametrize("scale", [0.00101, 0.3, 1e5])
@pytest.mark.parametrize("spread", [2.4e-7, 1e-3, 0.1, 2.0, 1e3])
def test_natural_values_of_an_inferred_scale_round_trip(scale, spread, random_weight):
    weight = random_weight(Normal(0.7, hyperprior="half_normal"))
    assert weight.parameters()["prior_scale_spread"] == pytest.approx(0.1, rel=1e-5)
    weight.assign_parameters({**weight.parameters(), "prior_scale": scale, "prior_scale_spread": spread})
    parameters = weight.parameters()
    np.testing.assert_allclose(parameters["prior_scale"], scale, rtol=1e-5)
    np.testing.assert_allclose(parameters["prior_scale_spread"], spread, rtol=1e-4)
    assert parameters["prior_scale"].dtype == parameters["prior_scale_spread"].dtype == np.float32
    one_variable(weight, "untransformed_spread").assign(-1000.0)
    weight.assign_parameters(weight.parameters())
    assert np.isfinite([variable.numpy() for variable in weight.variables[2:]]).all()
    assert weight.parameters()["prior_scale_spread"] < 3e-7


@pytest.mark.parametrize("value", [0.0, 1e-3, -1.0, float("nan"), float("inf"), 1e39])
def test_a_learned_scale_out_of_range_is_refused(value, random_weight):
    weight = random_weight(Normal(0.7, empirical_bayes=True))
    with pytest.raises(ValueError, match=r"A learned prior scale must be finite and above 0\.001, but got"):
        weight.assign_parameters({**weight.parameters(), "prior_scale": value})
    np.testing.assert_allclose(weight.parameters()["prior_scale"], 0.7, rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, 1e-8, -1.0, float("nan"), float("inf")])
def test_a_spread_out_of_range_is_refused(value, random_weight):
    weight = random_weight(Normal(0.7, hyperprior="half_normal"))
    before = weight.parameters()
    with pytest.raises(ValueError, match=r"spread of an inferred prior scale must be finite and at least 1\.2e-07"):
        weight.assign_parameters({**before, "prior_scale": 0.5, "prior_scale_spread": value})
    assert weight.parameters()["prior_scale"] == before["prior_scale"]


def test_missing_values_are_named(random_weight):
    weight = random_weight(Normal(0.7, hyperprior="half_normal"))
    values = weight.parameters()
    del values["prior_scale_spread"]
    with pytest.raises(ValueError, match=r"needs the value 'scale_spread', but got only \['scale'\]"):
        weight.assign_parameters(values)


@pytest.mark.parametrize("kind", LEARNED)
def test_a_learned_scale_is_saved(kind, tmp_path):
    layer = DenseReparameterization(2, kernel_prior={"name": "laplace", "scale": 0.7, **kind})
    model = tfp_bnn.VariationalSequential([keras.Input((3,)), layer])
    values = {**layer.variational_weights["kernel"].parameters(), "prior_scale": 0.2}
    if "hyperprior" in kind:
        values["prior_scale_spread"] = 0.3
    layer.variational_weights["kernel"].assign_parameters(values)
    model.save(tmp_path / "model.keras")
    (loaded,) = keras.models.load_model(tmp_path / "model.keras").variational_layers
    assert loaded.get_config()["kernel_prior"] == layer.get_config()["kernel_prior"]
    for name, value in layer.variational_weights["kernel"].parameters().items():
        np.testing.assert_array_equal(loaded.variational_weights["kernel"].parameters()[name], value)


def _snake_case(name):
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()

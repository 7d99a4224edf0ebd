"""Priors against TFP and NumPy, and the registry that all specs share."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_bnn.layers import DenseReparameterization
from tfp_bnn.posteriors import MeanFieldNormal
from tfp_bnn.priors import PRIORS, Normal, Prior, ScaleMixture
from tfp_bnn.registry import Registry, SpecRegistry

tfd = tfp.distributions


def built_layer(prior, shape=(4, 5)):
    layer = DenseReparameterization(shape[1], kernel_prior=prior, use_bias=False, seed=0)
    layer.build((None, shape[0]))
    return layer


def log_mixture(w, probability, scale_1, scale_2):
    """Blundell et al. 2015, equation 7, per weight: the log of a sum of two normal densities."""
    log_densities = [
        np.log(share) - np.log(scale) - 0.5 * np.log(2 * np.pi) - w**2 / (2 * scale**2)
        for share, scale in ((probability, scale_1), (1 - probability, scale_2))
    ]
    return scipy.special.logsumexp(log_densities, axis=0)


# === All priors ===


@pytest.mark.parametrize("name", PRIORS)
def test_every_prior_has_a_docstring_and_a_config(name, check_spec):
    check_spec(PRIORS, name)


def test_there_are_priors():
    assert list(PRIORS) == ["normal", "scale_mixture"]
    assert all(issubclass(PRIORS[name], Prior) for name in PRIORS)
    assert [_snake_case(PRIORS[name].__name__) for name in PRIORS] == list(PRIORS)


@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 3, 4, 5)])
def test_the_event_is_the_whole_weight(name, shape):
    prior = PRIORS.get(name).distribution(shape, {})
    assert prior.event_shape == shape
    assert prior.batch_shape == ()
    assert prior.dtype == tf.float32
    assert prior.log_prob(tf.zeros(shape)).shape == ()


# === Normal ===


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_the_kl_of_the_normal_equals_tfp_and_the_closed_form(scale, randomize):
    layer = built_layer(Normal(scale))
    p = randomize(layer)
    loc, sigma = p["kernel_loc"], p["kernel_scale"]
    expected = tfd.kl_divergence(
        tfd.MultivariateNormalDiag(loc.ravel(), sigma.ravel()),
        tfd.MultivariateNormalDiag(np.zeros(loc.size), np.full(loc.size, scale)),
    )
    np.testing.assert_allclose(layer.kl(), expected, rtol=1e-5)
    closed_form = (np.log(scale / sigma) + (sigma**2 + loc**2) / (2 * scale**2) - 0.5).sum()
    np.testing.assert_allclose(layer.kl(), closed_form, rtol=1e-5)


def test_the_kl_between_equals_is_zero():
    layer = built_layer(Normal(0.3))
    layer.variational_weights["kernel"].assign_natural({"loc": np.zeros((4, 5)), "scale": np.full((4, 5), 0.3)})
    np.testing.assert_allclose(layer.kl(), 0.0, atol=1e-5)


@pytest.mark.parametrize("value", [-1.0, 0, 0.0, float("nan"), float("inf"), True, "1", None])
def test_scales_out_of_range_are_refused(value):
    for make in (lambda: Normal(scale=value), lambda: ScaleMixture(scale_1=value), lambda: ScaleMixture(scale_2=value)):
        with pytest.raises(ValueError, match=re.escape(f"must be a finite number larger than 0, but got {value!r}")):
            make()


# === Empirical Bayes ===


def empirical_bayes_layer(randomize):
    layer = built_layer(Normal(0.7, empirical_bayes=True))
    p = randomize(layer)
    return layer, np.sqrt(np.mean(p["kernel_loc"] ** 2 + p["kernel_scale"] ** 2))


def test_the_learned_scale_starts_where_told():
    layer = built_layer(Normal(0.7, empirical_bayes=True))
    np.testing.assert_allclose(layer.kernel_prior.stddev(), 0.7, rtol=1e-5)
    np.testing.assert_allclose(layer.variational_weights["kernel"].natural()["prior_scale"], 0.7, rtol=1e-5)
    assert len(layer.trainable_variables) == 3
    assert len(built_layer(Normal(0.7)).trainable_variables) == 2


def test_the_kl_is_stationary_at_the_optimal_prior_scale(randomize):
    layer, optimum = empirical_bayes_layer(randomize)
    weight = layer.variational_weights["kernel"]
    (variable,) = [v for v in layer.trainable_variables if v.name == "kernel_prior_untransformed_scale"]

    def kl_and_gradient(prior_scale):
        weight.assign_natural({**weight.natural(), "prior_scale": prior_scale})
        with tf.GradientTape() as tape:
            kl = layer.kl()
        return float(kl), float(tape.gradient(kl, variable.value))

    least, gradient = kl_and_gradient(optimum)
    # The gradient is a difference of two sums of about the number of weights.
    assert abs(gradient) < 1e-4 * weight.shape[0] * weight.shape[1]
    for factor, sign in ((0.8, -1), (1.25, 1)):
        kl, gradient = kl_and_gradient(factor * optimum)
        assert kl > least
        assert sign * gradient > 1.0


def test_training_finds_the_optimal_prior_scale(randomize):
    layer, optimum = empirical_bayes_layer(randomize)
    (variable,) = [v for v in layer.trainable_variables if v.name == "kernel_prior_untransformed_scale"]

    @tf.function
    def kl_gradient():
        with tf.GradientTape() as tape:
            kl = layer.kl()
        return tape.gradient(kl, variable.value)

    for _ in range(100):
        variable.assign_sub(0.02 * kl_gradient())
    np.testing.assert_allclose(layer.kernel_prior.stddev(), optimum, rtol=1e-3)


def test_the_learned_scale_has_a_floor():
    layer = built_layer(Normal(0.7, empirical_bayes=True))
    for variable in layer.trainable_variables:
        if variable.name == "kernel_prior_untransformed_scale":
            variable.assign(-100.0)
    np.testing.assert_allclose(layer.kernel_prior.stddev(), 1e-3, rtol=1e-5)
    assert np.isfinite(layer.kl())


@pytest.mark.parametrize("value", [0.0, 1e-3, -1.0, float("nan"), float("inf")])
def test_a_learned_scale_out_of_range_is_refused(value):
    weight = built_layer(Normal(0.7, empirical_bayes=True)).variational_weights["kernel"]
    with pytest.raises(ValueError, match=r"A learned prior scale must be finite and above 0\.001, but got"):
        weight.assign_natural({**weight.natural(), "prior_scale": value})


def test_a_learned_scale_must_start_above_the_floor():
    with pytest.raises(ValueError, match=re.escape("A learned `scale` must start above 0.001, but got 0.001")):
        Normal(1e-3, empirical_bayes=True)
    with pytest.raises(ValueError, match="`empirical_bayes` of the prior 'normal' must be True or False, but got 1"):
        Normal(empirical_bayes=1)
    assert Normal(1e-3).scale == 1e-3


# === Scale mixture ===


@pytest.mark.parametrize("arguments", [(0.5, 1.0, np.exp(-6.0)), (0.25, 2.0, 0.1), (0.9, 0.5, 0.5)])
def test_the_log_density_of_the_scale_mixture(arguments):
    rng = np.random.default_rng(0)
    w = np.concatenate([rng.normal(size=50), 0.01 * rng.normal(size=50), [0.0, 30.0, -30.0]]).astype(np.float32)
    arguments = tuple(float(value) for value in arguments)
    prior = ScaleMixture(*arguments)
    each = prior.distribution((1,), {}).log_prob(w[:, None])
    np.testing.assert_allclose(each, log_mixture(w.astype(np.float64), *arguments), rtol=1e-5, atol=1e-5)
    whole = prior.distribution((103,), {}).log_prob(w)
    np.testing.assert_allclose(whole, log_mixture(w.astype(np.float64), *arguments).sum(), rtol=1e-5)


def test_the_defaults_of_the_scale_mixture():
    assert ScaleMixture().get_config() == {"mixture_probability": 0.5, "scale_1": 1.0, "scale_2": np.exp(-6.0)}


@pytest.mark.parametrize("value", [0.0, 1.0, -0.5, 1.5, float("nan"), True, "half"])
def test_probabilities_out_of_range_are_refused(value):
    with pytest.raises(ValueError, match=re.escape(f"must lie between 0 and 1, but got {value!r}")):
        ScaleMixture(mixture_probability=value)


@pytest.mark.statistical
def test_the_kl_estimate_of_the_scale_mixture_agrees_with_numpy(randomize):
    """2,000 estimates of 20 weights against 200,000 NumPy draws of each.

    False-failure rate 1e-6, two-sided, by the central limit theorem: the sums have 40,000 terms and more.
    """
    arguments = (0.3, 1.5, 0.1)
    layer = built_layer(ScaleMixture(*arguments))
    p = randomize(layer)
    rng = np.random.default_rng(3)
    sums = np.zeros(200_000)
    for loc, scale in zip(p["kernel_loc"].ravel(), p["kernel_scale"].ravel(), strict=True):
        w = rng.normal(loc, scale, size=sums.size)
        sums += scipy.stats.norm.logpdf(w, loc, scale) - log_mixture(w, *arguments)

    @tf.function
    def estimates():
        return tf.map_fn(lambda _: layer.kl(), tf.range(2000), fn_output_signature=tf.float32)

    ours = estimates().numpy()
    assert len(np.unique(ours)) > 1900
    error = np.sqrt(ours.var() / ours.size + sums.var() / sums.size)
    assert abs(ours.mean() - sums.mean()) < scipy.stats.norm.isf(1e-6 / 2) * error


def test_the_kl_estimate_is_the_log_ratio_at_the_draw(randomize, injected_noise):
    arguments = (0.3, 1.5, 0.1)
    layer = built_layer(ScaleMixture(*arguments))
    p = randomize(layer)
    estimate = layer.variational_weights["kernel"].kl(injected_noise)
    w = p["kernel_loc"] + p["kernel_scale"] * injected_noise.drawn["kernel"]
    expected = scipy.stats.norm.logpdf(w, p["kernel_loc"], p["kernel_scale"]) - log_mixture(w, *arguments)
    np.testing.assert_allclose(estimate, expected.sum(), rtol=1e-4)


# === The registry of specs ===


def test_a_spec_comes_from_a_name_a_mapping_a_config_or_an_object():
    expected = Normal(0.3)
    for form in ({"name": "normal", "scale": 0.3}, keras.saving.serialize_keras_object(expected), Normal(0.3)):
        assert PRIORS.get(form) == expected
    assert PRIORS.get("normal") == Normal() != expected
    assert Normal() != ScaleMixture()
    assert len({Normal(0.3), Normal(0.3), Normal(0.4), ScaleMixture()}) == 3
    assert repr(expected) == "Normal(scale=0.3, empirical_bayes=False)"


def test_a_mapping_is_left_as_it_is():
    mapping = {"name": "normal", "scale": 0.3}
    PRIORS.get(mapping)
    assert mapping == {"name": "normal", "scale": 0.3}


@pytest.mark.parametrize(
    ("identifier", "error", "message"),
    [
        (
            "nomral",
            ValueError,
            "Unknown prior 'nomral'. Did you mean 'normal'? Expected one of: normal, scale_mixture.",
        ),
        ("", ValueError, "Unknown prior ''. Expected one of"),
        ({"name": "horseshoe"}, ValueError, "Unknown prior 'horseshoe'."),
        ({"name": None}, ValueError, "Unknown prior None."),
        ({"name": ["normal"]}, ValueError, "Unknown prior ['normal']."),
        ({"name": "normal", "scael": 1.0}, ValueError, "prior 'normal': 'scael'. Did you mean 'scale'?"),
        ({"name": "normal", "scale": "big"}, ValueError, "`scale` of the prior 'normal' must be a finite number"),
        ({"scale": 1.0}, TypeError, "Cannot make a prior from {'scale': 1.0}."),
        (None, TypeError, "Cannot make a prior from None."),
        (Normal, TypeError, "Cannot make a prior from <class"),
        (MeanFieldNormal(), TypeError, "Cannot make a prior from MeanFieldNormal("),
        (
            keras.saving.serialize_keras_object(MeanFieldNormal()),
            TypeError,
            "Cannot make a prior from MeanFieldNormal(",
        ),
    ],
)
def test_what_makes_no_prior_is_refused(identifier, error, message):
    with pytest.raises(error, match=re.escape(message)):
        PRIORS.get(identifier)


def test_a_name_is_registered_once():
    registry = Registry("thing")
    assert registry.register("one")("first") == "first"
    with pytest.raises(ValueError, match=r"The thing 'one' is already registered as 'first'\. Choose another name\."):
        registry.register("one")("second")
    registry.register("two")("second")
    assert list(registry) == ["one", "two"]
    assert len(registry) == 2
    assert "one" in registry
    assert "three" not in registry
    assert registry["two"] == "second"


def test_an_unregistered_subclass_is_refused():
    class Mine(Normal):
        pass

    with pytest.raises(TypeError, match="registered prior object"):
        PRIORS.get(Mine())
    assert isinstance(PRIORS, SpecRegistry)


def _snake_case(name):
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()

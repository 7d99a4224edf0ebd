"""Which weights are pruned, and what is left of the model."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import tensorflow as tf

import tfp_bnn
from tfp_bnn.compression import importance, prune, sparsity
from tfp_bnn.core.noise import Noise, NoNoise
from tfp_bnn.layers import DenseFlipout, DenseLocalReparameterization, DenseReparameterization

X = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
Y = np.arange(12) % 3


def make_model(layer=DenseFlipout, last=None, **arguments):
    """A network of 4 x 5 + 5 x 3 weights, and 3 of a Bayesian bias, with random parameters."""
    keras.utils.set_random_seed(1)
    layers = [layer(5, activation="tanh", name="a", **arguments)]
    layers += [layer(3, name="b", **{"bias_posterior": "mean_field_normal", **arguments, **(last or {})})]
    model = tfp_bnn.VariationalSequential([keras.Input((4,)), *layers], seed=0)
    rng = np.random.default_rng(2)
    for weight in weights_of(model).values():
        values = weight.parameters()
        spread = {"scale": rng.uniform(0.1, 1.0, weight.shape)} if "scale" in values else {}
        weight.assign_parameters({**values, "loc": rng.normal(size=weight.shape), **spread})
    return model


def points():
    posterior = {"kernel_posterior": "delta", "bias_posterior": "delta"}
    return make_model(DenseReparameterization, **posterior)


def weights_of(model):
    return {
        (layer.name, name): weight
        for layer in model.variational_layers
        for name, weight in layer.variational_weights.items()
    }


def kept_of(model):
    return np.concatenate([weight.kept.ravel() for weight in weights_of(model).values()])


def flat(model, name):
    return np.concatenate([w.posterior_parameters()[name].ravel() for w in weights_of(model).values()])


# === Which weights ===


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.9])
def test_those_of_the_lowest_signal_to_noise_ratio_are_pruned(fraction):
    model = make_model()
    ratio = np.abs(flat(model, "loc")) / flat(model, "scale")
    number = round(fraction * 38)
    pruned = prune(model, fraction)
    assert set(np.flatnonzero(~kept_of(pruned))) == set(np.argsort(ratio)[:number])


def test_those_of_the_lowest_kl_are_pruned():
    model = make_model(kernel_prior={"name": "normal", "scale": 0.5})
    loc, scale = (flat(model, name).astype(np.float64) for name in ("loc", "scale"))
    prior = np.where(np.arange(38) < 35, 0.5, 1.0)  # the bias has another one
    kl = np.log(prior / scale) + (scale**2 + loc**2) / (2 * prior**2) - 0.5
    pruned = prune(model, 0.5, by="kl")
    assert set(np.flatnonzero(~kept_of(pruned))) == set(np.argsort(kl)[:19])
    # Which would count when units are pruned next.
    for layer in pruned.variational_layers:
        for weight in layer.variational_weights.values():
            assert not importance.kl(weight)[~weight.kept].any()


@pytest.mark.parametrize(("prior", "reference"), [("laplace", scipy.stats.laplace), ("student_t", scipy.stats.t(3))])
def test_a_kl_without_a_closed_form_is_an_integral(prior, reference, random_weight):
    weight = random_weight(prior)
    found = importance.kl(weight)
    for index in np.ndindex(weight.shape):
        q = scipy.stats.norm(*(weight.parameters()[name][index] for name in ("loc", "scale")))

        def density(w, q=q):
            return q.pdf(w) * (q.logpdf(w) - reference.logpdf(w))

        expected, _ = scipy.integrate.quad(density, *q.interval(1 - 1e-15), points=[0])
        assert found[index] == pytest.approx(expected, abs=0.02)


def test_points_are_pruned_by_their_magnitude():
    model = points()
    pruned = prune(model, 0.4, by="magnitude")
    assert kept_of(pruned).size == 43
    assert set(np.flatnonzero(~kept_of(pruned))) == set(np.argsort(np.abs(flat(model, "loc")))[:17])
    for by in ("signal_to_noise", "kl"):
        with pytest.raises(ValueError, match="a/kernel is a point, without a spread"):
            prune(model, 0.5, by)


def test_each_layer_can_lose_the_same_share():
    found = sparsity(prune(make_model(), 0.5, scope="layer"))
    assert found == {"a": 0.5, "b": 0.5}
    everywhere = sparsity(prune(make_model(), 0.5))
    assert 20 * everywhere["a"] + 18 * everywhere["b"] == pytest.approx(19)
    assert everywhere != found


def test_pruned_weights_stay_pruned_and_count():
    first = prune(make_model(), 0.3, by="magnitude")
    for fraction, number in ((0.5, 19), (0.1, 11)):
        again = prune(first, fraction)
        assert not (kept_of(again) & ~kept_of(first)).any()
        assert np.count_nonzero(~kept_of(again)) == number


# === What is left ===


@pytest.mark.parametrize("layer", [DenseFlipout, DenseReparameterization, DenseLocalReparameterization])
def test_draws_are_those_of_the_model_with_zeros(layer):
    model = make_model(layer)
    before = [value.copy() for value in model.get_weights()]
    pruned, noise = prune(model, 0.6), Noise(tf.constant([0, 1], tf.int64))
    for place, weight in weights_of(pruned).items():
        known = weights_of(model)[place]
        np.testing.assert_array_equal(weight.sample(noise), np.where(weight.kept, known.sample(noise), 0))
        draws, spread = weight.posterior.sample(4, seed=(1, 2)).numpy(), weight.posterior.stddev().numpy()
        assert not draws[:, ~weight.kept].any()
        np.testing.assert_array_equal(spread > 0, weight.kept)
    for value, known in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, known)


@pytest.mark.parametrize("layer", [DenseFlipout, DenseLocalReparameterization])
def test_training_outputs_see_no_pruned_weight(layer):
    """Two models that differ in pruned weights alone, in whatever way, have the same outputs and the same KL."""
    pruned = prune(make_model(layer), 0.6)
    other = prune(make_model(layer), 0.6)
    for weight in weights_of(other).values():
        for role, number in (("loc", 7.0), ("untransformed_scale", 3.0)):
            variable = weight.posterior_variables[role]
            variable.assign(np.where(weight.kept, variable, number))
    for training in (True, False):
        np.testing.assert_array_equal(*(model(X, training=training) for model in (pruned, other)))
    assert float(pruned.kl()) == float(other.kl())


def test_nothing_pruned_is_the_same_model_bit_for_bit():
    model = make_model(kernel_prior={"name": "normal", "empirical_bayes": True, "shared": "all"})
    copies = prune(model, 0.0), prune(make_model(kernel_prior="laplace"), 0.0)
    for original, copy in zip((model, make_model(kernel_prior="laplace")), copies, strict=True):
        np.testing.assert_array_equal(
            *(m.posterior_predictive(X, num_samples=3, seed=0).samples for m in (original, copy))
        )
    assert float(copies[0].kl()) == pytest.approx(float(model.kl()), rel=1e-6)


def test_the_kl_is_that_of_the_weights_that_are_kept():
    pruned = prune(make_model(), 0.6)
    for weight in weights_of(pruned).values():
        values = {name: value[weight.kept].astype(np.float64) for name, value in weight.parameters().items()}
        expected = (-np.log(values["scale"]) + (values["scale"] ** 2 + values["loc"] ** 2) / 2 - 0.5).sum()
        assert float(weight.kl(NoNoise())) == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("prior", ["laplace", "horseshoe", "tfp_distribution", "scale_mixture"])
def test_an_estimated_kl_and_its_gradient_leave_pruned_weights_out(prior, injected_noise, log_prior):
    model = make_model(kernel_prior=prior, last={"bias_prior": prior})
    weight = weights_of(prune(model, 0.6))["a", "kernel"]
    draw = weight.sample(injected_noise).numpy()[weight.kept].astype(np.float64)
    loc, scale = (weight.parameters()[name][weight.kept] for name in ("loc", "scale"))
    arguments = {"scale_2": np.exp(-6.0)} if prior == "scale_mixture" else {}
    expected = (scipy.stats.norm.logpdf(draw, loc, scale) - log_prior(prior, draw, **arguments)).sum()
    with tf.GradientTape() as tape:
        kl = weight.kl(injected_noise)
    assert float(kl) == pytest.approx(expected, rel=1e-3)
    variables = [weight.posterior_variables[role].value for role in ("loc", "untransformed_scale")]
    for gradient in tape.gradient(kl, variables):
        assert np.isfinite(gradient).all()
        assert not np.any(gradient.numpy()[~weight.kept])


def test_the_log_density_is_that_of_the_kept_weights_and_none_where_a_pruned_one_is_not_0():
    weight = weights_of(prune(make_model(), 0.6))["a", "kernel"]
    draw = weight.posterior.sample(seed=(0, 1)).numpy()
    loc, scale = (weight.parameters()[name] for name in ("loc", "scale"))
    expected = scipy.stats.norm.logpdf(draw, loc, scale)[weight.kept].sum()
    assert float(weight.posterior.log_prob(draw)) == pytest.approx(expected, rel=1e-4)
    assert float(weight.posterior.entropy()) == pytest.approx(
        scipy.stats.norm.entropy(loc, scale)[weight.kept].sum(), rel=1e-4
    )
    draw[tuple(np.argwhere(~weight.kept)[0])] = 0.1
    assert float(weight.posterior.log_prob(draw)) == -np.inf


def test_points_have_the_prior_density_of_those_that_are_kept():
    weight = weights_of(prune(points(), 0.5, by="magnitude"))["a", "kernel"]
    expected = -scipy.stats.norm.logpdf(weight.mean.numpy()[weight.kept]).sum()
    assert float(weight.kl(NoNoise())) == pytest.approx(expected, rel=1e-5)


# === Refusals ===


@pytest.mark.parametrize("fraction", [1, 1.5, -0.1, float("nan"), "half"])
def test_a_fraction_outside_of_0_to_1_is_refused(fraction):
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        prune(make_model(), fraction)


def test_unknown_ways_are_refused():
    with pytest.raises(ValueError, match="Did you mean 'magnitude'"):
        prune(make_model(), 0.5, by="magnitud")
    with pytest.raises(ValueError, match="`scope` must be"):
        prune(make_model(), 0.5, scope="model")


def test_models_without_weights_to_prune_are_refused():
    with pytest.raises(TypeError, match="VariationalModel"):
        prune(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]), 0.5)
    with pytest.raises(ValueError, match="not built"):
        prune(tfp_bnn.VariationalSequential([DenseFlipout(1)]), 0.5)
    with pytest.raises(ValueError, match=r"no Bayesian layer.*to_bayesian"):
        prune(tfp_bnn.VariationalSequential([keras.Input((2,)), keras.layers.Dense(2)]), 0.5)
    with pytest.raises(TypeError, match=r"a/kernel is LowRankNormal.*depend on each other"):
        prune(make_model(DenseReparameterization, kernel_posterior="low_rank_normal"), 0.5)


def test_a_model_that_creates_its_layers_itself_is_refused():
    @keras.saving.register_keras_serializable(package="test_pruning")
    class Own(tfp_bnn.VariationalMixin, keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = DenseFlipout(3)

        def call(self, x, training=None):
            return self.dense(x, training=training)

    model = Own(seed=0)
    model(X)
    with pytest.raises(ValueError, match=r"creates layers itself.*'pruned': True"):
        prune(model, 0.5)

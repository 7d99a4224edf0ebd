"""The KL between independent normals has the value and the gradients of TensorFlow Probability, for every prior."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.core.noise import Noise, noise_scope
from tfp_bnn.layers import DenseFlipout
from tfp_bnn.posteriors.kl_of_normals import kl_of_normals
from tfp_bnn.priors import Normal

SHAPE = (5, 3)


PRIORS = {
    "fixed": Normal(scale=0.7),
    "around a centre": Normal(scale=0.7, loc=-0.4),
    "learned centre": Normal(loc=0.3, learn_loc=True),
    "empirical bayes": Normal(scale=0.4, empirical_bayes=True),
    "hyperprior": Normal(scale=0.4, hyperprior="half_cauchy", learn_loc=True),
    "informed": {"name": "informed", "initial_scale": 0.6},
}


def layer_of(prior):
    layer = DenseFlipout(SHAPE[1], kernel_prior=prior, kernel_posterior={"name": "mean_field_normal"}, seed=0)
    layer.build((None, SHAPE[0]))
    generator = np.random.default_rng(0)
    for variable in layer.variables:
        values = np.asarray(variable) + generator.normal(scale=0.3, size=variable.shape)
        variable.assign(np.abs(values) if variable.path.endswith("prior_scale") else values)
    return layer


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("prior", PRIORS)
def test_value_and_gradients_are_those_of_tfp_in_float64(prior, compiled):
    layer = layer_of(PRIORS[prior])
    weight = layer.variational_weights["kernel"]
    variables = [variable.value for variable in layer.trainable_variables]
    noise = Noise(tf.constant([1, 2]))

    def kl_in_float64():
        q, p = weight.posterior.distribution, weight._prior(noise.normal("kernel_prior_scale", ())).distribution
        double = [
            tfd.Normal(*(tf.cast(parameter, tf.float64) for parameter in (normal.loc, normal.scale)))
            for normal in (q, p)
        ]
        return tf.cast(tf.reduce_sum(tfd.kl_divergence(*double)), tf.float32)

    def with_gradients(kl):
        with tf.GradientTape() as tape:
            value = 1.7 * kl()
        # The bias is deterministic, and has none.
        return value, *tape.gradient(value, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    ours = tf.function(with_gradients, autograph=False) if compiled else with_gradients
    for found, expected in zip(ours(lambda: weight.kl(noise)), with_gradients(kl_in_float64), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_the_kl_to_itself_is_exactly_0_for_a_million_weights():
    normal = tfd.Independent(tfd.Normal(tf.fill((1000, 1000), 0.3), tf.fill((1000, 1000), 0.05)), 2)
    assert kl_of_normals(normal, normal).numpy() == 0


def test_parameters_of_the_prior_may_have_the_shape_of_a_part_of_the_weights():
    loc, scale = tf.random.stateless_normal(SHAPE, (0, 0)), tf.random.stateless_uniform(SHAPE, (0, 1), 0.1, 0.9)
    parameters = loc, scale, tf.constant([[0.2], [0.1], [0.0], [-1.0], [3.0]]), tf.constant([0.5, 1.0, 2.0])

    def gradients(kl):
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            q, p = (tfd.Independent(tfd.Normal(*two), 2) for two in (parameters[:2], parameters[2:]))
            value = kl(q, p)
        return value, *tape.gradient(value, parameters)

    for ours, theirs in zip(gradients(kl_of_normals), gradients(tfd.kl_divergence), strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize("family", [tfd.Laplace, tfd.LogNormal, tfd.Cauchy])
def test_other_families_are_left_to_tfp(family):
    other = tfd.Independent(family(tf.zeros(SHAPE), 1.0), 2)
    normal = tfd.Independent(tfd.Normal(tf.zeros(SHAPE), 1.0), 2)
    assert kl_of_normals(normal, other) is None
    assert kl_of_normals(other, normal) is None


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_scales_are_computed_once_in_a_forward_pass_and_again_in_the_next(compiled):
    layer = layer_of(PRIORS["fixed"])
    weight = layer.variational_weights["kernel"]
    noise = Noise(tf.constant([1, 2]))

    def forward():
        with noise_scope({id(layer): noise}):
            layer(tf.ones((2, SHAPE[0])), training=True)
            before = weight.posterior.distribution.scale
            in_loop = tf.map_fn(lambda _: weight.posterior.distribution.scale, tf.zeros(2))
            assert weight.posterior.distribution.scale is before
        return before, in_loop[1], layer.kl()

    run = tf.function(forward, autograph=False) if compiled else forward
    first = [np.asarray(value) for value in run()]
    weight.assign_parameters({"loc": np.zeros(SHAPE), "scale": np.full(SHAPE, 0.4)})
    second = [np.asarray(value) for value in run()]
    for values in (first, second):
        np.testing.assert_array_equal(values[0], values[1])
    np.testing.assert_allclose(second[0], 0.4, rtol=1e-6)
    assert first[2] != second[2]

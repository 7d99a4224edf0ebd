"""The layers against `tfp.layers`, their Keras 2 ancestors, with the same posterior."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_bnn

# What Keras 2 says of itself when TFP makes its layers.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`layer.add_variable` is deprecated:UserWarning"),
    pytest.mark.filterwarnings("ignore:The initializer RandomNormal is unseeded:UserWarning"),
]

NUM_DRAWS = 2000
FALSE_FAILURE_RATE = 1e-6
# Positional arguments, and the shape of the inputs.
DENSE = ((4,), (3, 4))
CONVOLUTIONS = {1: ((3, 2), (2, 5, 2)), 2: ((3, (3, 2)), (2, 5, 4, 2)), 3: ((2, 2), (2, 3, 2, 3, 2))}
# The name of the layer, here and there, with what both are made with.
PAIRS = {
    "DenseFlipout": (*DENSE, {}),
    "DenseReparameterization": (*DENSE, {}),
    "DenseLocalReparameterization": (*DENSE, {}),
    "Convolution1DFlipout": (*CONVOLUTIONS[1], {}),
    "Convolution1DReparameterization": (*CONVOLUTIONS[1], {}),
    "Convolution2DFlipout": (*CONVOLUTIONS[2], {}),
    "Convolution2DFlipout-same-strides": (*CONVOLUTIONS[2], {"padding": "same", "strides": (2, 1)}),
    "Convolution2DReparameterization": (*CONVOLUTIONS[2], {}),
    "Convolution3DFlipout": (*CONVOLUTIONS[3], {}),
    "Convolution3DReparameterization": (*CONVOLUTIONS[3], {}),
}


@pytest.fixture(params=PAIRS)
def pair(request):
    """Our layer and theirs, both with the same random posterior of the kernel and the same bias; and some inputs."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    arguments, shape, options = PAIRS[request.param]
    name = request.param.split("-")[0]
    ours, theirs = (getattr(layers, name)(*arguments, **options) for layers in (tfp_bnn.layers, tfp.layers))
    inputs = rng.normal(size=shape).astype(np.float32)
    ours.build(shape)
    theirs.build(shape)
    values = {
        "kernel_loc": rng.normal(size=ours.kernel.shape),
        # From a scale of 0.002 to one of 3.
        "kernel_untransformed_scale": rng.uniform(-6.0, 3.0, size=ours.kernel.shape),
        "bias": rng.normal(size=ours.bias.shape),
    }
    # Also the names of the parameters are TFP's, up to the word "posterior".
    our_variables = {variable.name: variable for variable in ours.trainable_variables}
    their_variables = {
        variable.name.split("/")[-1].removesuffix(":0").replace("_posterior", ""): variable
        for variable in theirs.trainable_variables
    }
    their_variables["bias"] = their_variables.pop("bias_loc")
    assert set(our_variables) == set(their_variables) == set(values)
    for name, value in values.items():
        our_variables[name].assign(value)
        their_variables[name].assign(value)
    return ours, theirs, inputs


def test_posterior_and_prior_are_equal(pair):
    ours, theirs, _ = pair
    for our_distribution, their_distribution in (
        (ours.kernel_posterior, theirs.kernel_posterior),
        (ours.kernel_prior, theirs.kernel_prior),
    ):
        assert our_distribution.event_shape == their_distribution.event_shape
        np.testing.assert_allclose(our_distribution.mean(), their_distribution.mean(), rtol=1e-6)
        np.testing.assert_allclose(our_distribution.stddev(), their_distribution.stddev(), rtol=1e-6)


def test_kl_is_equal(pair):
    ours, theirs, inputs = pair
    theirs(inputs)
    assert len(theirs.losses) == 1
    np.testing.assert_allclose(ours.kl(), theirs.losses[0], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.statistical
def test_moments_of_the_outputs_are_equal(pair, draw_outputs):
    """2,000 draws each; false-failure rate 1e-6 over all elements and both moments: normal and F quantiles.

    Each element is normal, so the difference of the means is normal with the posterior's own variance, and the ratio of
    the sample variances has an F distribution.
    """
    ours, theirs, inputs = pair
    our_draws = draw_outputs(ours, inputs, NUM_DRAWS, training=True)

    @tf.function(autograph=False)
    def draw_theirs(x):
        return tf.map_fn(lambda _: theirs(x), tf.range(NUM_DRAWS), fn_output_signature=tf.float32)

    tf.random.set_seed(0)
    their_draws = draw_theirs(inputs).numpy()
    assert our_draws.shape == their_draws.shape

    scale = np.asarray(ours.kernel_posterior.stddev())
    variance = np.asarray(ours.operation(tf.constant(inputs**2), tf.constant(scale**2)))
    tail = FALSE_FAILURE_RATE / (4 * variance.size)
    difference = our_draws.mean(axis=0, dtype=np.float64) - their_draws.mean(axis=0, dtype=np.float64)
    error = np.abs(difference) / np.sqrt(2 * variance / NUM_DRAWS)
    np.testing.assert_array_less(error, scipy.stats.norm.isf(tail))
    ratio = our_draws.var(axis=0, dtype=np.float64) / their_draws.var(axis=0, dtype=np.float64)
    bound = scipy.stats.f.isf(tail, NUM_DRAWS - 1, NUM_DRAWS - 1)
    np.testing.assert_array_less(ratio, bound)
    np.testing.assert_array_less(1 / bound, ratio)


def test_kl_with_a_bayesian_bias_is_equal():
    default = tfp.layers.default_mean_field_normal_fn
    theirs = tfp.layers.DenseFlipout(
        4, bias_posterior_fn=default(), bias_prior_fn=tfp.layers.default_multivariate_normal_fn
    )
    ours = tfp_bnn.layers.DenseFlipout(4, bias_posterior="mean_field_normal")
    inputs = np.ones((2, 3), np.float32)
    theirs(inputs)
    ours.build(inputs.shape)
    for variable, value in zip(ours.trainable_variables, theirs.trainable_variables, strict=True):
        assert variable.name == value.name.split("/")[-1].removesuffix(":0").replace("_posterior", "")
        variable.assign(value.numpy())
    np.testing.assert_allclose(ours.kl(), sum(theirs.losses), rtol=1e-5)

"""Models of TensorFlow Probability, and what they compute."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras

from tfp_bnn.core.noise import NoNoise

tfd, tfpl, old = tfp.distributions, tfp.layers, tf_keras.layers


def randomize(model, seed=0):
    """Gives all variables values that differ; scales from 0.002 to 1.3."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        low, high = (-6.0, 1.0) if "untransformed_scale" in variable.name else (-1.0, 1.0)
        # Variances are positive.
        low = 0.1 if "variance" in variable.name else low
        variable.assign(tf.cast(rng.uniform(low, high, variable.shape), variable.dtype))
    return model


def of_one(layer, shape=(3,)):
    return randomize(tf_keras.Sequential([old.Input(shape), layer]))


def bayesian(model):
    """The layers of TFP in a `tf_keras` model, by name, each once."""
    layers = [layer for layer in model._flatten_layers() if hasattr(layer, "kernel_posterior")]
    return {layer.name: layer for layer in layers}


def outputs_at_the_mean(model, *inputs):
    """The outputs of a `tf_keras` model once all its posteriors are as narrow as they can be; it is spoilt by that."""
    for variable in model.variables:
        if "untransformed_scale" in variable.name:
            variable.assign(tf.fill(variable.shape, -100.0))
    return model(*inputs).numpy()


def assert_same(theirs, ours, inputs):
    """Compares means, standard deviations, priors, KL, and the outputs at the mean; spoils `theirs`."""
    twins = {layer.name: layer for layer in ours.variational_layers}
    assert twins.keys() == bayesian(theirs).keys()
    kl = 0.0
    for name, layer in bayesian(theirs).items():
        twin = twins[name]
        assert type(twin).__name__.replace("Convolution", "Conv") == type(layer).__name__
        for weight in ("kernel", "bias"):
            posterior, prior = (getattr(layer, f"{weight}_{role}") for role in ("posterior", "prior"))
            if posterior is None:
                assert twin.bias is None
            elif prior is None:
                np.testing.assert_array_equal(getattr(twin, weight), posterior.mean())
            else:
                for role, distribution in {"posterior": posterior, "prior": prior}.items():
                    own = getattr(twin, f"{weight}_{role}")
                    assert own.event_shape == distribution.event_shape
                    np.testing.assert_array_equal(own.mean(), distribution.mean())
                    np.testing.assert_allclose(own.stddev(), distribution.stddev(), rtol=2e-6)
                kl += tfd.kl_divergence(posterior, prior)
    np.testing.assert_allclose(ours.kl(), kl, rtol=1e-5)
    own = ours.call_with_noise(inputs, NoNoise())
    np.testing.assert_allclose(own, outputs_at_the_mean(theirs, inputs), rtol=1e-5, atol=1e-5)


def normal(loc, scale):
    """A function that makes a normal prior, as TFP asks for it."""

    def make(dtype, shape, name, trainable, add_variable):
        return tfd.Independent(tfd.Normal(loc * tf.ones(shape), scale), len(shape))

    return make


def with_one_scale(kind, **arguments):
    """A function that makes a prior of another kind, centred and with the scale 0.5."""

    def make(dtype, shape, name, trainable, add_variable):
        return tfd.Independent(kind(**arguments, loc=tf.zeros(shape), scale=0.5), len(shape))

    return make


# TFP has the KL of few pairs in closed form.
SAMPLED = {"kernel_divergence_fn": lambda q, p, draw: q.log_prob(draw) - p.log_prob(draw)}


def of_dense(layer=tfpl.DenseFlipout, **kwargs):
    return of_one(layer(4, name="it", **kwargs))


def called_with(training):
    inputs = old.Input((3,))
    return tf_keras.Model(inputs, old.BatchNormalization(name="it")(inputs, training=training))

"""Priors, points and scales of KL of TensorFlow Probability, and what `from_tfp` makes of them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras

import tfp_bnn
from tfp_bnn.transfer.from_tfp import from_tfp

from .tfp_models import SAMPLED, assert_same, called_with, normal, of_dense, of_one, old, tfd, tfpl, with_one_scale

# What Keras 2 says of itself when TFP makes its layers.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`layer.add_variable` is deprecated:UserWarning"),
    pytest.mark.filterwarnings("ignore:The initializer RandomNormal is unseeded:UserWarning"),
]


def learned_scale(dtype, shape, name, trainable, add_variable):
    u = add_variable(
        name=f"{name}_untransformed_scale",
        shape=[],
        initializer=tf_keras.initializers.Constant(0.3),
        trainable=trainable,
    )
    return tfd.Independent(tfd.Normal(tf.zeros(shape), tfp.util.DeferredTensor(u, tf.exp)), len(shape))


PRIORS = {
    "normal": (normal(0.0, 0.25), {"name": "normal", "scale": 0.25}),
    "shifted": (normal(0.5, 0.25), {"name": "informed"}),
    "many scales": (normal(0.0, [0.5, 1.0, 2.0, 0.25]), {"name": "informed"}),
    "learned": (learned_scale, {"name": "normal", "scale": float(np.exp(np.float32(0.3))), "empirical_bayes": True}),
}


@pytest.mark.parametrize("name", PRIORS)
def test_normal_priors_keep_their_kl(name):
    make, expected = PRIORS[name]
    layer = tfpl.DenseFlipout(4, kernel_prior_fn=make, bias_posterior_fn=tfpl.default_mean_field_normal_fn(),
                              bias_prior_fn=make)  # fmt: skip
    theirs = tf_keras.Sequential([old.Input((3,)), layer])
    ours = from_tfp(theirs, likelihood="normal")
    for prefix in ("kernel", "bias"):
        config = keras.saving.deserialize_keras_object(ours.layers[-1].get_config()[f"{prefix}_prior"]).get_config()
        assert {key: config[key] for key in expected if key != "name"} == pytest.approx(
            {key: value for key, value in expected.items() if key != "name"}
        )
    assert_same(theirs, ours, np.ones((2, 3), np.float32))


@pytest.mark.parametrize(
    ("name", "kind", "arguments"),
    [("laplace", tfd.Laplace, {}), ("cauchy", tfd.Cauchy, {}), ("student_t", tfd.StudentT, {"df": 4.0})],
)
def test_other_priors_of_one_scale_are_kept(name, kind, arguments):
    layer = tfpl.DenseReparameterization(
        4,
        kernel_prior_fn=with_one_scale(kind, **arguments),
        **SAMPLED,
    )
    ours = from_tfp(of_one(layer), likelihood="normal").layers[-1]
    assert ours.variational_weights["kernel"].prior_spec == tfp_bnn.priors.PRIORS.get(
        {"name": name, "scale": 0.5, **arguments}
    )
    w = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    np.testing.assert_allclose(ours.kernel_prior.log_prob(w), layer.kernel_prior.log_prob(w), rtol=1e-6)


def point(dtype, shape, name, trainable, add_variable):
    return tfpl.default_mean_field_normal_fn(is_singular=True)(dtype, shape, name, trainable, add_variable)


def test_points_with_a_prior_become_delta_and_without_one_maximum_likelihood():
    layer = tfpl.DenseReparameterization(4, kernel_posterior_fn=point, bias_prior_fn=normal(0.0, 0.5))
    theirs = of_one(layer)
    ours = from_tfp(theirs, likelihood="normal")
    posterior = ours.layers[-1].variational_weights["bias"].posterior_spec
    assert posterior == tfp_bnn.posteriors.POSTERIORS.get("delta")
    assert_same(theirs, ours, np.ones((2, 3), np.float32))
    layer.kernel_prior = layer.bias_prior = None
    ours = from_tfp(theirs, likelihood="normal")
    assert float(ours.kl()) == 0
    np.testing.assert_array_equal(ours.layers[-1].kernel_posterior.mean(), layer.kernel_posterior.mean())


def test_a_layer_without_bias_has_none():
    theirs = of_one(tfpl.DenseFlipout(4, bias_posterior_fn=None))
    assert_same(theirs, from_tfp(theirs, likelihood="normal"), np.ones((2, 3), np.float32))


def test_what_is_not_trained_of_a_posterior_stays_so():
    def means_only(dtype, shape, name, trainable, add_variable):
        loc = add_variable(name=f"{name}_loc", shape=shape, initializer="zeros", trainable=trainable)
        return tfd.Independent(tfd.Normal(loc, 0.1 * tf.ones(shape)), len(shape))

    theirs = of_one(tfpl.DenseFlipout(4, kernel_posterior_fn=means_only, bias_posterior_fn=None))
    ours = from_tfp(theirs, likelihood="normal")
    assert [variable.name for variable in ours.network.trainable_variables] == ["kernel_loc"]
    np.testing.assert_allclose(ours.layers[-1].kernel_posterior.stddev(), np.full((3, 4), 0.1), rtol=1e-6)


def test_a_frozen_layer_stays_frozen():
    ours = from_tfp(of_one(tfpl.DenseFlipout(4, trainable=False)), likelihood="normal")
    assert not ours.network.trainable_variables
    assert ours.layers[-1].variational_weights["kernel"].posterior_spec.trainable == "both"


def test_the_scaling_of_the_kl_is_left_to_the_model():
    layer = tfpl.DenseFlipout(4, kernel_divergence_fn=lambda q, p, _: tfd.kl_divergence(q, p) / 60000)
    theirs = of_one(layer)
    theirs(np.ones((2, 3), np.float32))
    ours = from_tfp(theirs, likelihood="normal")
    np.testing.assert_allclose(ours.kl() / 60000, sum(theirs.losses), rtol=1e-5)
    np.testing.assert_allclose(ours.kl(), tfd.kl_divergence(layer.kernel_posterior, layer.kernel_prior), rtol=1e-5)


DIFFERENCES = {
    "it: the prior of the kernel, which was trained, is fixed": lambda: of_dense(
        kernel_prior_fn=tfpl.default_mean_field_normal_fn()
    ),
    "it: the regularizers of its posteriors are left out": lambda: of_dense(
        kernel_posterior_fn=tfpl.default_mean_field_normal_fn(loc_regularizer=tf_keras.regularizers.L2(0.1))
    ),
    "it: the constraints of its posteriors are left out": lambda: of_dense(
        kernel_posterior_fn=tfpl.default_mean_field_normal_fn(loc_constraint=tf_keras.constraints.NonNeg())
    ),
    "it: the kernel gets a mean and a scale for every weight": lambda: of_dense(kernel_posterior_fn=learned_scale),
    "it: its call with training=False counts in prediction only": lambda: called_with(training=False),
}


@pytest.mark.parametrize("difference", DIFFERENCES)
def test_what_will_be_trained_in_another_way_is_told(difference):
    theirs = DIFFERENCES[difference]()
    with pytest.warns(UserWarning, match=difference):
        ours = from_tfp(theirs, likelihood="normal")
    assert_same(theirs, ours, np.ones((2, 3), np.float32))

"""Models of TensorFlow Probability that cannot be taken over are refused, with the reason."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from tfp_bnn.transfer.from_tfp import from_tfp

from .tfp_models import (
    SAMPLED,
    called_with,
    of_dense,
    of_one,
    old,
    outputs_at_the_mean,
    randomize,
    tfd,
    tfpl,
    with_one_scale,
)

# What Keras 2 says of itself when TFP makes its layers.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`layer.add_variable` is deprecated:UserWarning"),
    pytest.mark.filterwarnings("ignore:The initializer RandomNormal is unseeded:UserWarning"),
]


@pytest.mark.parametrize(
    ("make", "likelihood", "message"),
    [
        (lambda: of_dense(), None, "ends with 'it', not in softmax or sigmoid.*'normal' for regression"),
        (lambda: of_dense(activation="sigmoid"), "categorical", "the sigmoid of 'it'.*likelihood='bernoulli'"),
        (lambda: of_dense(activation="softmax"), "bernoulli", "the softmax of 'it'.*likelihood='categorical'"),
        (lambda: of_one(old.Softmax(2, name="it"), (3, 4, 5)), "bernoulli", "the softmax of 'it'"),
        (lambda: of_one(old.Softmax(2, name="it"), (3, 4, 5)), None, "softmax of 'it' cannot be removed.*axis is 2"),
        (lambda: shared_head(), None, "softmax of 'it' cannot be removed.*called 2 times"),
    ],
)
def test_a_likelihood_that_does_not_fit_the_outputs_is_refused(make, likelihood, message):
    theirs = make()
    with pytest.raises(ValueError, match=f"(?s){message}"):
        from_tfp(theirs, likelihood=likelihood)


def mixture(dtype, shape, name, trainable, add_variable):
    parts = tfd.Normal(tf.zeros([*shape, 2]), [1.0, 0.1])
    return tfd.Independent(tfd.MixtureSameFamily(tfd.Categorical(probs=[0.5, 0.5]), parts), len(shape))


def shifted_laplace(dtype, shape, name, trainable, add_variable):
    return tfd.Independent(tfd.Laplace(tf.ones(shape), 1.0), len(shape))


def two_outputs():
    inputs = old.Input((3,))
    return tf_keras.Model(inputs, [old.Dense(2)(inputs), old.Dense(2)(inputs)], name="it")


def shared_head():
    inputs = old.Input((3,))
    head = old.Dense(3, "softmax", name="it")
    return tf_keras.Model(inputs, head(head(inputs)))


class OwnDense(old.Dense):
    """A layer that only its user knows."""


class OwnModel(tf_keras.Model):
    """A subclass with a `call`."""

    def call(self, inputs):
        return inputs


# The message, and what is refused.
REFUSED = {
    "mixture": (
        r"'it' .*`kernel_prior` is .*MixtureSameFamily",
        lambda: of_dense(tfpl.DenseReparameterization, kernel_prior_fn=mixture, **SAMPLED),
    ),
    "many Laplace scales": (
        r"`kernel_prior` is .*several scales",
        lambda: of_dense(tfpl.DenseReparameterization, kernel_prior_fn=shifted_laplace, **SAMPLED),
    ),
    "posterior": (
        r"`kernel_posterior` is .*Laplace.*Expected a Normal or a Deterministic",
        lambda: of_one(
            tfpl.DenseReparameterization(
                4,
                kernel_posterior_fn=with_one_scale(tfd.Laplace),
                **SAMPLED,
            )
        ),
    ),
    "bias without prior": (
        r"`bias_prior` is None.*tf.zeros\(\[4\]\), 1.0\), 1\)",
        lambda: of_dense(bias_posterior_fn=tfpl.default_mean_field_normal_fn()),
    ),
    "not drawn": (
        r"`kernel_posterior_tensor_fn` is not `lambda d: d.sample\(\)`",
        lambda: of_dense(kernel_posterior_tensor_fn=lambda d: d.mean()),
    ),
    "activation of a user": (r"activation '<lambda>' is none of Keras 3", lambda: of_dense(activation=lambda x: 2 * x)),
    "activation that changed": (
        r"activation 'hard_sigmoid' is none of Keras 3",
        lambda: of_one(old.Dense(3, "hard_sigmoid")),
    ),
    "head of a distribution": (
        r"'it' \(OneHotCategorical\).*likelihood.*model.layers\[-2\].output",
        lambda: of_one(tfpl.OneHotCategorical(3, name="it")),
    ),
    "lambda": (
        r"'it' \(Lambda\).*tf_keras.* has no counterpart.*DenseFlipout.*ZeroPadding3D",
        lambda: of_one(old.Lambda(lambda x: x, name="it")),
    ),
    "other layer of TFP": (
        r"\(DenseVariational\) .*has no counterpart",
        lambda: of_one(tfpl.DenseVariational(2, normal_of_all, normal_of_all)),
    ),
    "own layer": (r"OwnDense has no counterpart", lambda: of_one(OwnDense(3))),
    "argument": (
        r"LSTM of Keras 3 does not take time_major=True",
        lambda: of_one(old.LSTM(3, time_major=True), (4, 3)),
    ),
    "training": (r"'it' \(BatchNormalization\).*training=True", lambda: called_with(training=True)),
    "two outputs": (r"'it' has 2 outputs.*model.outputs\[0\]", two_outputs),
    "not built": (
        r"'it' is not built.*model.build\(input_shape\)",
        lambda: tf_keras.Sequential([tfpl.DenseFlipout(2)], name="it"),
    ),
}


def normal_of_all(kernel_size, bias_size, dtype):
    """A layer that gives a distribution, as `tfp.layers.DenseVariational` asks for it."""
    zeros = tf.zeros(kernel_size + bias_size, dtype)
    return tfpl.DistributionLambda(lambda _: tfd.Independent(tfd.Normal(zeros, 1.0), 1))


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_counterpart_is_refused_with_what_to_do(name):
    message, make = REFUSED[name]
    theirs = make()
    with pytest.raises(ValueError, match=f"(?s){message}"):
        from_tfp(theirs, likelihood="normal")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]),
            "'Sequential', which is of Keras 3.*to_ba",
        ),
        (OwnModel, "a subclass of `tf_keras.Model` with a `call` of its own.*tf_keras.Model\\(inputs, model.call"),
        (lambda: tfpl.DenseFlipout(2), "of type '.*DenseFlipout'. Expected a built `tf_keras.Sequential`"),
        (lambda: "model.h5", "Got 'model.h5' of type 'str'. Expected a built"),
    ],
)
def test_other_objects_are_refused(make, message):
    given = make()
    with pytest.raises(TypeError, match=f"(?s){message}"):
        from_tfp(given)


def test_advice_for_the_head_of_a_distribution_works():
    theirs = randomize(
        tf_keras.Sequential([old.Input((3,)), tfpl.DenseFlipout(2), tfpl.IndependentNormal(1, name="head")])
    )
    with pytest.raises(ValueError, match=r"'head'.*Pass the model up to the layer before it"):
        from_tfp(theirs, likelihood="normal")
    upto = tf_keras.Model(theirs.inputs, theirs.layers[-2].output)
    ours = from_tfp(upto, likelihood={"name": "normal", "scale": "per_example"})
    x = np.ones((2, 3), np.float32)
    predictive = ours.plug_in_predictive(x)
    outputs_at_the_mean(upto, x)
    head = theirs(x)
    np.testing.assert_allclose(predictive.mean(), head.mean(), atol=1e-5)
    np.testing.assert_allclose(np.sqrt(predictive.aleatoric()), head.stddev(), rtol=1e-4)

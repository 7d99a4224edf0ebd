"""The log posterior that chains sample, against SciPy in float64."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_bnn
from tfp_bnn.core.batches import dense
from tfp_bnn.inference.function_of_weights import FunctionOfWeights
from tfp_bnn.inference.log_posterior import LogPosterior, initial_vectors
from tfp_bnn.layers import DenseFlipout

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 2)).astype(np.float32)
Y = RNG.normal(size=(12, 1)).astype(np.float32)


def network(likelihood=None, **arguments):
    hidden = DenseFlipout(3, activation="tanh", kernel_prior={"name": "laplace", "scale": 0.8}, name="hidden")
    outputs = DenseFlipout(1, name="outputs", bias_posterior="mean_field_normal", **arguments)
    likelihood = likelihood or {"name": "normal", "initial_scale": 0.5}
    return tfp_bnn.VariationalSequential([keras.Input((2,)), hidden, outputs], likelihood=likelihood, seed=0)


def made(model=None, plain_prior=None, likelihood_spread=0.7, x=X, y=Y):
    prior = {"name": "normal", "scale": 2.0} if plain_prior is None else plain_prior
    return LogPosterior(model or network(), x, y, prior, likelihood_spread, "hmc")


def by_scipy(vector, posterior):
    """Log posterior of one vector, in float64 and by SciPy alone."""
    sizes = [int(np.prod(variable.shape)) for variable in posterior.variables.values()]
    parts = np.split(np.asarray(vector, np.float64), np.cumsum(sizes)[:-1])
    w = {
        name: part.reshape(variable.shape)
        for (name, variable), part in zip(posterior.variables.items(), parts, strict=True)
    }
    hidden = np.tanh(X.astype(np.float64) @ w["hidden/kernel"] + w["hidden/bias"])
    outputs = hidden @ w["outputs/kernel"] + w["outputs/bias"]
    noise = w["likelihood/log_scale"]
    return (
        scipy.stats.norm.logpdf(Y, outputs, np.exp(noise)).sum()
        + scipy.stats.laplace.logpdf(w["hidden/kernel"], scale=0.8).sum()
        + scipy.stats.norm.logpdf(w["hidden/bias"], scale=2.0).sum()
        + scipy.stats.norm.logpdf(w["outputs/kernel"]).sum()
        + scipy.stats.norm.logpdf(w["outputs/bias"]).sum()
        + scipy.stats.norm.logpdf(noise, np.log(0.5), 0.7)
    )


def test_the_log_posterior_and_its_gradient_are_those_of_scipy():
    """Priors of the layers, of a bias without a distribution, and of learned noise, which is log-normal."""
    posterior = made()
    assert posterior.num_weights == 6 + 3 + 3 + 1 + 1
    vectors = RNG.normal(size=(3, posterior.num_weights)).astype(np.float32)
    values, gradients = tfp.math.value_and_gradient(posterior, tf.constant(vectors))
    np.testing.assert_allclose(values, [by_scipy(vector, posterior) for vector in vectors], rtol=1e-5)
    for vector, gradient in zip(vectors, gradients.numpy(), strict=True):
        expected = scipy.optimize.approx_fprime(vector.astype(np.float64), by_scipy, 1e-7, posterior)
        np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-3)


def test_the_prior_of_a_learned_covariance_is_around_its_start():
    """Its initializers are an object and a name."""
    joint = {"name": "multivariate_normal", "scale_tril": "learned", "num_targets": 2}
    outputs = DenseFlipout(2, bias_posterior="mean_field_normal")
    model = tfp_bnn.VariationalSequential([keras.Input((2,)), outputs], likelihood=joint)
    posterior = LogPosterior(model, X, np.repeat(Y, 2, axis=1), None, 0.7, "hmc")
    start = np.zeros((1, 4 + 2 + 2 + 1), np.float32)
    assert float(posterior.log_prior(start)[0]) == pytest.approx(
        6 * scipy.stats.norm.logpdf(0) + 3 * scipy.stats.norm.logpdf(0, scale=0.7), rel=1e-5
    )


def test_a_row_of_weight_w_counts_as_w_rows():
    weights = np.arange(12) % 3
    weighted, repeated = (
        made(x=iter([(X, Y, weights)]), y=None),
        made(x=np.repeat(X, weights, 0), y=np.repeat(Y, weights, 0)),
    )
    vectors = tf.constant(RNG.normal(size=(2, 14)).astype(np.float32))
    np.testing.assert_allclose(weighted(vectors), repeated(vectors), rtol=1e-5)


def test_vectors_are_joined_as_they_were_split():
    posterior = made()
    vectors = RNG.normal(size=(2, posterior.num_weights)).astype(np.float32)
    np.testing.assert_array_equal(posterior.join(posterior.split(tf.constant(vectors))), vectors)


def test_a_frozen_layer_keeps_its_weights():
    model = network()
    model.layers[0].trainable = False
    posterior = made(model)
    assert set(posterior.variables) == {"outputs/kernel", "outputs/bias", "likelihood/log_scale"}


def test_chains_start_at_draws_of_the_prior_or_of_the_model():
    """Of 60 draws, whose standard deviation has a relative error of 9 %.

    The spread of each weight of the model is 1e-3, that of its prior 1.
    """
    model = network(kernel_posterior={"name": "mean_field_normal", "initial_scale": 1e-3})
    posterior = made(model)
    spread = {start: initial_vectors(posterior, start, 60, seed=1).numpy().std(axis=0) for start in ("prior", "model")}
    found = posterior.split(tf.constant(spread["prior"][None]))
    np.testing.assert_allclose(found["outputs/kernel"], 1.0, rtol=0.5)
    np.testing.assert_allclose(found["hidden/bias"], 2.0, rtol=0.5)
    np.testing.assert_allclose(found["likelihood/log_scale"], 0.7, rtol=0.5)
    found = posterior.split(tf.constant(spread["model"][None]))
    np.testing.assert_allclose(found["outputs/kernel"], 1e-3, rtol=0.5)
    np.testing.assert_allclose(found["hidden/bias"], 0.0, atol=1e-7)
    with pytest.raises(ValueError, match="`start` must be 'prior'"):
        initial_vectors(posterior, "zero", 4, seed=1)


def test_weights_of_a_float64_layer_are_read_as_float32():
    layer = DenseFlipout(1, dtype="float64", bias_initializer="ones", name="outputs")
    posterior = made(layered(layer, seed=0))
    assert posterior.variables["outputs/bias"].dtype == "float64"
    start = initial_vectors(posterior, "model", 2, seed=1)
    weights = FunctionOfWeights(posterior.network, posterior.variables).values()
    assert (start.dtype, weights.dtype) == (tf.float32, np.float32)
    for vector in (start[0], weights):
        np.testing.assert_array_equal(posterior.split(tf.constant(vector))["outputs/bias"], [1.0])


def layered(*layers, **arguments):
    return tfp_bnn.VariationalSequential([keras.Input((2,)), *layers], likelihood="normal", **arguments)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([DenseFlipout(1)], "1 weights have no prior, so they have no posterior: dense_.*/bias"),
        ([tfp_bnn.layers.MCDropout(0.5), DenseFlipout(1, use_bias=False)], "stay random in prediction"),
        ([keras.layers.BatchNormalization(name="bn"), DenseFlipout(1)], "The layers bn normalize by the statistics"),
        ([DenseFlipout(1, dtype="mixed_bfloat16")], "compute in half precision"),
        ([keras.layers.Dense(1, kernel_regularizer="l2")], "adds 1 losses of its own"),
        (
            [keras.layers.Dense(1, kernel_constraint="non_neg", name="last")],
            "last/kernel have constraints",
        ),
        ([keras.layers.Dense(1, activity_regularizer="l2", name="last")], "layers last have activity regularizers"),
        ([DenseFlipout(1, kernel_prior={"name": "normal", "empirical_bayes": True})], "is learned. `hmc` samples"),
        ([DenseFlipout(1, kernel_prior={"name": "normal", "learn_loc": True})], "is learned. `hmc` samples"),
        ([DenseFlipout(1, kernel_prior="flat", kernel_posterior="delta", use_bias=False)], "/kernel are improper"),
    ],
)
def test_what_has_no_posterior_to_sample_is_refused(layers, message):
    with pytest.raises(ValueError, match=message):
        LogPosterior(layered(*layers), X, Y, None, 1.0, "hmc")


def test_arguments_and_data_that_do_not_fit_are_refused():
    with pytest.raises(TypeError, match="`hmc` takes a VariationalModel"):
        made(keras.Sequential())
    with pytest.raises(ValueError, match="The priors of hidden/bias are improper"):
        made(plain_prior="flat")
    with pytest.raises(ValueError, match="`likelihood_spread` of `hmc` must be a finite number larger than 0"):
        made(likelihood_spread=0.0)
    with pytest.raises(ValueError, match="NaN"):
        made(x=np.full_like(X, np.nan))


def test_sparse_inputs_are_those_of_dense_ones():
    inputs = X, scipy.sparse.csr_matrix(X)
    found = [LogPosterior(layered(DenseFlipout(1)), x, Y, "normal", 1.0, "hmc") for x in inputs]
    vectors = np.ones((2, found[0].num_weights), np.float32)
    np.testing.assert_array_equal(*(np.asarray(posterior(vectors)) for posterior in found))
    with pytest.raises(ValueError, match=r"shape \(40000, 20000\) takes 3.0 GiB once it is dense"):
        dense(scipy.sparse.csr_matrix((40_000, 20_000), dtype=np.float32), 2**30)

"""Stochastic gradient Hamiltonian Monte Carlo as an optimizer."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfp_bnn.inference import SGHMC


def steps(optimizer, gradient, variables, number):
    @tf.function(autograph=False)
    def step():
        optimizer.apply([gradient(variable.value) for variable in variables], variables)

    optimizer.build(variables)
    for _ in range(number):
        step()
    return [variable.numpy() for variable in variables]


def test_states_have_the_covariance_of_the_recursion():
    """Of two variables of 20,000 entries, the variance after 12 steps from 0 is exact for a linear gradient.

    The variance of 20,000 normal numbers has a relative standard error of 1 %; 5.5 of them fail below once in 1e7.
    """
    rate, number, friction, temperature = 0.2, 10, 0.3, 0.5
    optimizer = SGHMC(rate, number, friction, temperature, seed=1)
    # -log p(w) = 10 w^2 / 2, over N.
    found = steps(optimizer, lambda w: w, [keras.Variable(tf.zeros(20_000)) for _ in range(2)], 12)
    move = np.array([[1 - rate, 1 - friction], [-rate, 1 - friction]])
    covariance = np.zeros((2, 2))
    for _ in range(12):
        covariance = move @ covariance @ move.T + 2 * friction * temperature * rate / number
    for w in found:
        assert abs(w.var() / covariance[0, 0] - 1) < 0.055
        assert abs(w.mean()) < 5.5 * np.sqrt(covariance[0, 0] / 20_000)
    assert abs(np.corrcoef(found)[0, 1]) < 5.5 / np.sqrt(20_000)


def test_scales_are_those_of_the_first_gradients():
    """At temperature 0, a first step is the learning rate times the gradient over its root mean square."""
    optimizer = SGHMC(0.1, friction=1.0, temperature=0.0, adaptation_steps=2)
    first, last = np.array([3.0, -4.0], np.float32), np.array([30.0, 40.0], np.float32)
    (w,) = variables = [keras.Variable(tf.zeros(2))]
    root = np.sqrt((first**2).mean())
    steps(optimizer, lambda _: tf.constant(first), variables, 2)
    np.testing.assert_allclose(w, -0.2 * first / root, 1e-5)
    steps(optimizer, lambda _: tf.constant(last), variables, 1)
    np.testing.assert_allclose(w, -0.2 * first / root - 0.1 * last / root, 1e-5)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_variables_may_have_any_float_type(dtype):
    (w,) = variables = [keras.Variable(tf.zeros(2, dtype), dtype=dtype)]
    gradient = tf.constant([1.0, -2.0], dtype)
    SGHMC(0.5, friction=1.0, temperature=0.0).apply([gradient], variables)
    assert w.dtype == dtype
    np.testing.assert_array_equal(w, [-0.5, 1.0])


def test_a_sparse_gradient_counts_as_the_dense_one():
    """An embedding has one; here of row 1, twice."""
    dense, sparse = (keras.Variable(tf.zeros((3, 2))) for _ in range(2))
    rows = tf.IndexedSlices(tf.ones((2, 2)), tf.constant([1, 1]), tf.constant([3, 2]))
    for w, gradient in ((dense, tf.constant([[0.0, 0.0], [2.0, 2.0], [0.0, 0.0]])), (sparse, rows)):
        SGHMC(0.1, adaptation_steps=2).apply([gradient], [w])
    np.testing.assert_array_equal(dense, sparse)


def test_a_variable_without_a_gradient_keeps_the_scale_of_one():
    (w,) = variables = [keras.Variable(tf.zeros(100))]
    SGHMC(0.1, adaptation_steps=2).apply([tf.zeros(100)], variables)
    assert np.abs(w.numpy()).max() < 6 * np.sqrt(2 * 0.1 * 0.1)


def test_its_config_makes_it_again():
    optimizer = SGHMC(np.float32(0.1), 7, 0.2, 0.5, 3, seed=4, name="sampler")
    config = keras.saving.serialize_keras_object(optimizer)
    assert keras.saving.deserialize_keras_object(config).get_config() == optimizer.get_config()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"num_examples": 0}, "num_examples"),
        ({"friction": 0.0}, "`friction` must be a number above 0 and at most 1, but got 0"),
        ({"temperature": -1.0}, "`temperature` must be a finite number of at least 0, but got -1"),
        ({"adaptation_steps": -1}, "adaptation_steps"),
        ({"seed": 2**63}, "`seed` must be an integer of at most 64 bits"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SGHMC(**arguments)

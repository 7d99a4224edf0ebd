"""The delta posterior: maximum a posteriori, and maximum likelihood."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import sklearn.linear_model
import tensorflow as tf

import tfp_bnn
from tfp_bnn.layers import DenseReparameterization
from tfp_bnn.priors import PRIORS

NOISE_SCALE = 0.5
RNG = np.random.default_rng(0)
# The last two weights are of no use.
X = RNG.normal(size=(30, 6)).astype(np.float32)
Y = (X @ np.array([2.0, -1.0, 0.7, 0.2, 0.0, 0.0]) + NOISE_SCALE * RNG.normal(size=30)).astype(np.float32)


# === Its draws and its KL ===


def test_a_draw_is_the_value(random_weight, injected_noise):
    weight = random_weight(posterior="delta")
    assert len(weight.variables) == 1
    assert list(weight.parameters()) == ["loc"]
    np.testing.assert_array_equal(weight.sample(injected_noise), weight.parameters()["loc"])
    np.testing.assert_array_equal(weight.variance, np.zeros((3, 4)))
    assert not injected_noise.drawn


@pytest.mark.parametrize("name", PRIORS)
def test_the_kl_is_minus_the_log_of_the_prior(name, random_weight, injected_noise, log_prior):
    weight = random_weight(name, "delta")
    loc = weight.parameters()["loc"]
    kl = weight.kl(injected_noise)
    assert kl.shape == ()
    assert kl.dtype == tf.float32
    np.testing.assert_array_equal(kl, -weight.prior.log_prob(loc))
    tolerance = 6.4e-4 * loc.size if name == "horseshoe" else 1e-4
    np.testing.assert_allclose(kl, -log_prior(name, loc).sum(), rtol=1e-5, atol=tolerance)
    if name == "flat":
        assert kl == 0.0


# === Linear regression ===


def fitted(prior, optimizer, steps):
    """The weights after a number of full-batch training steps, in one compiled loop."""
    layer = DenseReparameterization(
        1, kernel_prior=prior, kernel_posterior="delta", kernel_initializer="zeros", use_bias=False
    )
    model = tfp_bnn.VariationalSequential(
        [keras.Input((6,)), layer], likelihood={"name": "normal", "scale": NOISE_SCALE}, num_examples=len(X), seed=0
    )
    model.compile(optimizer)
    optimizer.build(model.trainable_variables)

    # Only the loop needs AutoGraph. To convert the step takes longer than all steps.
    step = tf.autograph.experimental.do_not_convert(model.train_step)

    @tf.function
    def train():
        for _ in tf.range(steps):
            step((tf.constant(X), tf.constant(Y)))

    train()
    return layer.variational_weights["kernel"].parameters()["loc"][:, 0].astype(np.float64)


def test_with_a_normal_prior_it_is_ridge_regression():
    w = fitted({"name": "normal", "scale": 0.4}, keras.optimizers.SGD(0.05, momentum=0.9), 300)
    ridge = sklearn.linear_model.Ridge(alpha=(NOISE_SCALE / 0.4) ** 2, fit_intercept=False).fit(X, Y)
    np.testing.assert_allclose(w, ridge.coef_, rtol=1e-4, atol=1e-5)


def test_with_a_flat_prior_it_is_least_squares():
    w = fitted("flat", keras.optimizers.SGD(0.05, momentum=0.9), 300)
    least_squares, *_ = np.linalg.lstsq(X, Y, rcond=None)
    np.testing.assert_allclose(w, least_squares, rtol=1e-4, atol=1e-5)


def test_with_a_laplace_prior_it_is_the_lasso():
    scale = 0.05
    # A fixed rate would leave the zeros oscillating.
    rate = keras.optimizers.schedules.ExponentialDecay(0.05, 1000, 0.1)
    w = fitted({"name": "laplace", "scale": scale}, keras.optimizers.SGD(rate), 5000)
    lasso = sklearn.linear_model.Lasso(alpha=NOISE_SCALE**2 / (scale * len(X)), fit_intercept=False, tol=1e-8)
    np.testing.assert_allclose(w, lasso.fit(X.astype(np.float64), Y).coef_, atol=1e-4)
    # Its optimality: the gradient of the log-likelihood is a subgradient of |w| / scale.
    gradient = X.T.astype(np.float64) @ (Y - X @ w) / NOISE_SCALE**2
    zero = np.abs(w) < 1e-4
    assert 1 <= zero.sum() < 6
    np.testing.assert_allclose(gradient[~zero], np.sign(w[~zero]) / scale, rtol=1e-3)
    np.testing.assert_array_less(np.abs(gradient[zero]), 1 / scale)

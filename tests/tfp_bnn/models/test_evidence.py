"""Learned and inferred prior scales on a linear-Gaussian model, whose evidence is known.

y = X w + noise,  w ~ N(0, s^2) per weight, with X^T X = I and noise of a known scale. Then the evidence p(y | s) has a
closed form, and given s the posterior of the weights is independent normal: the mean-field posterior is exact.

The expectation of the ELBO over the weight draws needs no sampling: the log-likelihood is a polynomial of degree 2 in
the noise, without products of two weights, so the average over noise of all 1 and all -1 is exact. That over the
draw of an inferred scale is a Gauss-Hermite quadrature. What is maximized is therefore deterministic.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
import tensorflow as tf

import tfp_bnn
from tfp_bnn.core.noise import noise_scope
from tfp_bnn.layers import DenseReparameterization

N, NUM_WEIGHTS, NOISE_SCALE = 120, 100, 0.1
_RNG = np.random.default_rng(0)
X = np.linalg.qr(_RNG.normal(size=(N, NUM_WEIGHTS)))[0].astype(np.float32)
Y = (X @ (0.5 * _RNG.normal(size=NUM_WEIGHTS)) + NOISE_SCALE * _RNG.normal(size=N)).astype(np.float32)
LEAST_SQUARES = X.T.astype(np.float64) @ Y
# Where the derivative of the evidence is zero: E[LEAST_SQUARES^2] = s^2 + NOISE_SCALE^2.
BEST_SCALE = np.sqrt(np.mean(LEAST_SQUARES**2) - NOISE_SCALE**2)

HYPERPRIORS = [
    {"name": "half_normal", "scale": 1.0},
    {"name": "half_cauchy", "scale": 1.0},
    {"name": "inverse_gamma", "concentration": 1.0, "scale": 0.2},
    {"name": "log_normal", "loc": -0.5, "scale": 0.5},
]


def log_evidence(scale):
    """log p(y | s) in nats: that of the least-squares weights, and that of what no weights explain."""
    scale = np.asarray(scale, np.float64)[..., None]
    residual = Y - X @ LEAST_SQUARES
    of_weights = scipy.stats.norm.logpdf(LEAST_SQUARES, scale=np.sqrt(scale**2 + NOISE_SCALE**2)).sum(axis=-1)
    unexplained = (residual**2).sum() / NOISE_SCALE**2 + (N - NUM_WEIGHTS) * np.log(2 * np.pi * NOISE_SCALE**2)
    return of_weights - 0.5 * unexplained


def exact_posterior_of_log_scale(hyperprior):
    """Mean and standard deviation of log(s) given y, and log p(y), by integration over the scale."""
    log_s = np.linspace(np.log(BEST_SCALE) - 1.5, np.log(BEST_SCALE) + 1.5, 4001)
    s = np.exp(log_s)
    log_joint = log_evidence(s) + hyperprior.distribution().log_prob(s.astype(np.float32)).numpy() + log_s
    log_total = scipy.special.logsumexp(log_joint)
    mass = np.exp(log_joint - log_total)
    mean = mass @ log_s
    return mean, np.sqrt(mass @ (log_s - mean) ** 2), log_total + np.log(log_s[1] - log_s[0])


class Cubature:
    """One point of the quadrature: one sign for the noise of all weights, one value for that of the scale."""

    def __init__(self, point):
        self.sign, self.node = tf.unstack(point)

    def normal(self, name, shape):
        return self.node if name == "kernel_prior_scale" else tf.fill(shape, self.sign)

    def signs(self, name, shape):
        raise AssertionError("flipout is not used here")


class Regression:
    """A Bayesian linear regression whose ELBO is a deterministic function of its parameters."""

    def __init__(self, **scale_of_prior):
        self.layer = DenseReparameterization(
            1,
            use_bias=False,
            kernel_initializer="zeros",
            kernel_prior={"name": "normal", "scale": 1.5, **scale_of_prior},
        )
        self.model = tfp_bnn.VariationalSequential(
            [keras.Input((NUM_WEIGHTS,)), self.layer],
            likelihood={"name": "normal", "scale": NOISE_SCALE},
            num_examples=N,
            seed=0,
        )
        self.model.compile("sgd")
        self._variables = self.model.trainable_variables
        inferred = "hyperprior" in scale_of_prior
        self._elbo_and_gradient = tf.function(lambda: self._compute(16 if inferred else 1), autograph=False)

    @property
    def parameters(self):
        return self.layer.variational_weights["kernel"].parameters()

    def elbo(self):
        """The ELBO in nats, summed over the examples."""
        return float(self._elbo_and_gradient()[0])

    def elbo_at(self, flat):
        """The ELBO and its gradient at parameters that are given as one vector."""
        for variable, values in zip(self._variables, self._split(flat), strict=True):
            variable.assign(values)
        elbo, gradient = self._elbo_and_gradient()
        return float(elbo), gradient.numpy().astype(np.float64)

    def maximize(self):
        """Finds the greatest ELBO; returns it and all that were met on the way, with the prior scale there."""
        path = []

        def objective(flat):
            elbo, gradient = self.elbo_at(flat)
            path.append((elbo, float(self.parameters["prior_scale"])))
            return -elbo, -gradient

        start = np.concatenate([variable.numpy().ravel() for variable in self._variables])
        options = {"maxiter": 500, "maxcor": 30, "ftol": 1e-12, "gtol": 1e-3}
        found = scipy.optimize.minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
        return self.elbo_at(found.x)[0], path

    def _compute(self, num_nodes):
        nodes, masses = np.polynomial.hermite_e.hermegauss(num_nodes)
        points = tf.constant([(sign, node) for sign in (1, -1) for node in nodes], tf.float32)
        masses = tf.constant(np.tile(masses / masses.sum() / 2, 2), tf.float32)
        values = [variable.value for variable in self._variables]
        with tf.GradientTape() as tape:
            elbos = tf.map_fn(self._elbo_of_a_draw, points)
            elbo = tf.tensordot(elbos, masses, 1)
        return elbo, tf.concat([tf.reshape(g, [-1]) for g in tape.gradient(elbo, values)], axis=0)

    def _elbo_of_a_draw(self, point):
        with noise_scope({id(self.layer): Cubature(point)}):
            outputs = self.model(tf.constant(X), training=True)
            return -N * self.model.compute_loss(X, Y, outputs, training=False)

    def _split(self, flat):
        sizes = [int(np.prod(variable.shape)) for variable in self._variables]
        parts = np.split(flat, np.cumsum(sizes)[:-1])
        return [part.reshape(variable.shape) for part, variable in zip(parts, self._variables, strict=True)]


def exact_weights(mean_of_inverse_square):
    """Mean and standard deviation of the weights given E[1 / s^2]."""
    variance = 1 / (1 / NOISE_SCALE**2 + mean_of_inverse_square)
    return variance * LEAST_SQUARES / NOISE_SCALE**2, np.sqrt(variance)


# === Empirical Bayes ===


def test_the_reference_is_the_evidence_of_the_dense_normal():
    design = X.astype(np.float64)
    for scale in (0.1, BEST_SCALE, 2.0):
        covariance = scale**2 * design @ design.T + NOISE_SCALE**2 * np.eye(N)
        expected = scipy.stats.multivariate_normal(np.zeros(N), covariance).logpdf(Y.astype(np.float64))
        assert log_evidence(scale) == pytest.approx(expected, abs=1e-3)
    around = log_evidence(BEST_SCALE * np.array([0.99, 1.0, 1.01]))
    assert around.argmax() == 1


@pytest.mark.slow
def test_empirical_bayes_finds_the_maximum_of_the_evidence():
    regression = Regression(empirical_bayes=True)
    elbo, path = regression.maximize()
    parameters = regression.parameters
    assert parameters["prior_scale"] == pytest.approx(BEST_SCALE, rel=1e-4)
    mean, scale = exact_weights(1 / BEST_SCALE**2)
    np.testing.assert_allclose(parameters["loc"][:, 0], mean, atol=1e-4)
    np.testing.assert_allclose(parameters["scale"][:, 0], scale, rtol=1e-3)
    # The bound is tight, because the mean-field posterior is exact here, and nowhere is it passed.
    assert elbo == pytest.approx(log_evidence(BEST_SCALE), abs=1e-3)
    assert len(path) > 5
    for met, scale in path:
        assert met < log_evidence(scale) + 1e-3


@pytest.mark.slow
def test_the_elbo_with_a_fixed_scale_is_the_evidence_at_the_exact_posterior():
    for scale in (0.1, BEST_SCALE, 2.0):
        regression = Regression(empirical_bayes=True)
        mean, spread = exact_weights(1 / scale**2)
        regression.layer.variational_weights["kernel"].assign_parameters(
            {"loc": mean[:, None], "scale": np.full((NUM_WEIGHTS, 1), spread), "prior_scale": scale}
        )
        assert regression.elbo() == pytest.approx(log_evidence(scale), abs=1e-3)


# === Hyperpriors ===


@pytest.fixture(
    scope="module",
    params=[HYPERPRIORS[0], *(pytest.param(hyperprior, marks=pytest.mark.slow) for hyperprior in HYPERPRIORS[1:])],
    ids=[hyperprior["name"] for hyperprior in HYPERPRIORS],
)
def inferred(request):
    regression = Regression(hyperprior=request.param)
    elbo, path = regression.maximize()
    return regression, elbo, path


def test_the_inferred_scale_agrees_with_the_evidence(inferred):
    regression, elbo, path = inferred
    parameters = regression.parameters
    log_median, spread = np.log(parameters["prior_scale"]), parameters["prior_scale_spread"]
    # Its uncertainty is the standard deviation of log(s), here 7 %; these hyperpriors move it by less than that.
    assert abs(log_median - np.log(BEST_SCALE)) < 0.5 * spread
    hyperprior = regression.layer.variational_weights["kernel"].prior_spec.hyperprior
    mean, deviation, log_total = exact_posterior_of_log_scale(hyperprior)
    assert abs(log_median - mean) < 0.02 * deviation
    # q(s) is independent of the weights, and so somewhat narrower than the posterior of s.
    assert 0.9 * deviation < spread < deviation
    # A bound on p(y) this time, almost tight, and nowhere passed.
    assert log_total - 0.1 < elbo < log_total
    for met, _ in path:
        assert met < log_total


def test_the_posterior_of_the_weights_is_optimal_for_that_of_the_scale(inferred):
    regression, _, _ = inferred
    parameters = {key: value.astype(np.float64) for key, value in regression.parameters.items()}
    nodes, masses = np.polynomial.hermite_e.hermegauss(16)
    draws = 1e-3 + (parameters["prior_scale"] - 1e-3) * np.exp(parameters["prior_scale_spread"] * nodes)
    mean, scale = exact_weights(draws**-2 @ masses / masses.sum())
    np.testing.assert_allclose(parameters["loc"][:, 0], mean, atol=1e-4)
    np.testing.assert_allclose(parameters["scale"][:, 0], scale, rtol=1e-3)


# === Stochastic training ===


@pytest.mark.slow
@pytest.mark.parametrize("scale_of_prior", [{"empirical_bayes": True}, {"hyperprior": "half_normal"}])
def test_training_with_one_draw_a_step_finds_the_same_scale(scale_of_prior):
    regression = Regression(**scale_of_prior)
    steps = 3000
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.03, steps))
    regression.model.compile(optimizer)
    optimizer.build(regression.model.trainable_variables)

    step = tf.autograph.experimental.do_not_convert(regression.model.train_step)

    @tf.function
    def train():
        for _ in tf.range(steps):
            step((tf.constant(X), tf.constant(Y)))

    train()
    parameters = regression.parameters
    # The fixed seed fixes the result; a tenth of the scale's posterior standard deviation is 0.7 %.
    assert abs(np.log(parameters["prior_scale"] / BEST_SCALE)) < 0.02
    if "hyperprior" in scale_of_prior:
        assert parameters["prior_scale_spread"] == pytest.approx(0.071, rel=0.1)
    _, scale = exact_weights(1 / BEST_SCALE**2)
    assert parameters["scale"].mean() == pytest.approx(scale, rel=0.02)

"""Laplace's method: exact where the model is linear and normal, and the curvature that it says elsewhere."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
import scipy.special
import scipy.stats
import tensorflow as tf

import tfp_bnn
from tfp_bnn.inference import laplace
from tfp_bnn.inference.point_weights import point_variables
from tfp_bnn.layers import DenseFlipout

RNG = np.random.default_rng(0)
ROWS = 30
X = RNG.normal(size=(ROWS, 3)).astype(np.float32)
NUMBERS = X @ RNG.normal(size=(3, 2)) + 0.3 * RNG.normal(size=(ROWS, 2))
LABELS = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)
NOISE, PRIOR_SCALE = 0.3, 0.5
STRUCTURES = ("full", "kronecker", "diagonal")


def network(units=3, hidden=0, likelihood="categorical", bias=True, seed=0, prior=PRIOR_SCALE, **arguments):
    keras.utils.set_random_seed(seed)
    prior = {"kernel_prior": {"name": "normal", "scale": prior}, "kernel_posterior": "delta"}
    layers = [DenseFlipout(hidden, activation="tanh", name="hidden", **prior)] if hidden else []
    layers.append(DenseFlipout(units, name="outputs", use_bias=bias, **prior, **arguments))
    model = tfp_bnn.VariationalSequential([keras.Input((3,)), *layers], likelihood=likelihood, seed=seed, name="net")
    rng = np.random.default_rng(seed)
    for variable in point_variables(model).values():
        variable.assign(rng.normal(size=variable.shape))
    return model


def linear():
    """A linear model with normal noise at its MAP estimate, and the exact posterior covariance of one output."""
    model = network(2, likelihood={"name": "normal", "scale": NOISE}, bias=False)
    x = X.astype(np.float64)
    precision = x.T @ x / NOISE**2 + np.eye(3) / PRIOR_SCALE**2
    model.variational_layers[0].variational_weights["kernel"].posterior_variables["loc"].assign(
        np.linalg.solve(precision, x.T @ NUMBERS / NOISE**2)
    )
    return model, np.linalg.inv(precision)


def jacobian(model, x):
    """The Jacobian of the raw outputs in all weights, `(n, outputs, d)`, by central differences in float64."""
    variables = point_variables(model).values()
    flat = np.concatenate([np.asarray(v, np.float64).reshape(-1) for v in variables])
    kernels = [v.shape for v in variables]

    def outputs(weights):
        h, start = x.astype(np.float64), 0
        parts = []
        for shape in kernels:
            parts.append(weights[start : start + np.prod(shape)].reshape(shape))
            start += int(np.prod(shape))
        for kernel, bias in zip(parts[::2], parts[1::2], strict=True):
            h = h @ kernel + bias
            h = np.tanh(h) if kernel is not parts[-2] else h
        return h

    steps = 1e-6 * np.eye(flat.size)
    return np.stack([(outputs(flat + s) - outputs(flat - s)) / 2e-6 for s in steps], axis=-1), outputs(flat)


def softmax_hessian(logits):
    p = scipy.special.softmax(logits, axis=-1)
    return p[:, :, None] * np.eye(p.shape[-1]) - p[:, :, None] * p[:, None, :]


# === Exact where it is ===


@pytest.mark.parametrize("structure", ["full", "kronecker"])
def test_a_linear_model_with_normal_noise_has_its_exact_posterior_and_evidence(structure):
    model, covariance = linear()
    posterior = laplace(model, X, NUMBERS, structure=structure)
    np.testing.assert_allclose(posterior.covariance(), np.kron(covariance, np.eye(2)), rtol=1e-5, atol=1e-8)
    x = X.astype(np.float64)
    marginal = scipy.stats.multivariate_normal(np.zeros(ROWS), PRIOR_SCALE**2 * x @ x.T + NOISE**2 * np.eye(ROWS))
    assert posterior.log_marginal_likelihood == pytest.approx(marginal.logpdf(NUMBERS.T).sum(), rel=1e-5)
    predictive = posterior.closed_form_predictive(X)
    variance = NOISE**2 + np.einsum("ni,ij,nj->n", x, covariance, x)
    mean = x @ covariance @ x.T @ NUMBERS / NOISE**2
    expected = scipy.stats.norm.logpdf(NUMBERS, mean, np.sqrt(variance)[:, np.newaxis]).sum(axis=1)
    np.testing.assert_allclose(predictive.log_prob(NUMBERS), expected, atol=1e-4)


@pytest.mark.slow
def test_draws_have_the_covariance(injected_noise):
    model, _ = linear()
    for structure in STRUCTURES:
        posterior = laplace(model, X, NUMBERS, structure=structure)
        # The columns of this matrix are the changes for unit noise.
        columns = [posterior.perturbation(UnitNoise(unit)).numpy() for unit in np.eye(6, dtype=np.float32)]
        np.testing.assert_allclose(np.transpose(columns) @ columns, posterior.covariance(), rtol=1e-4, atol=1e-7)


class UnitNoise:
    def __init__(self, unit):
        self.unit = unit

    def normal(self, name, shape):
        return self.unit


@pytest.mark.slow
@pytest.mark.parametrize(
    ("curvature", "structure"), [("ggn", "full"), ("ggn", "diagonal"), ("empirical_fisher", "full")]
)
def test_the_curvature_of_all_weights_is_that_of_its_definition(curvature, structure):
    model = network(hidden=2)
    posterior = laplace(
        model, X, LABELS, layers="all", structure=structure, curvature=curvature, prior_precision=2.0, batch_size=7
    )
    jacobians, logits = jacobian(model, X)
    middle = softmax_hessian(logits)
    if curvature == "empirical_fisher":
        gradient = np.eye(3)[LABELS] - scipy.special.softmax(logits, axis=1)
        middle = gradient[:, :, None] * gradient[:, None, :]
    matrix = np.einsum("nai,nab,nbj->ij", jacobians, middle, jacobians)
    matrix = np.diag(np.diag(matrix)) if structure == "diagonal" else matrix
    precision = matrix + 2.0 * np.eye(len(matrix))
    np.testing.assert_allclose(posterior.covariance(), np.linalg.inv(precision), rtol=1e-3, atol=1e-5)
    weights = posterior.mean_weights.astype(np.float64)
    log_joint = scipy.stats.norm.logpdf(weights, 0, 2**-0.5).sum()
    log_joint += scipy.special.log_softmax(logits, axis=1)[np.arange(ROWS), LABELS].sum()
    evidence = log_joint + len(weights) / 2 * np.log(2 * np.pi) - np.linalg.slogdet(precision)[1] / 2
    assert posterior.log_marginal_likelihood == pytest.approx(evidence, rel=1e-4)

    variance = np.einsum("nai,ij,naj->na", jacobians, np.linalg.inv(precision), jacobians)
    expected = scipy.special.softmax(logits / np.sqrt(1 + np.pi / 8 * variance), axis=1)
    np.testing.assert_allclose(posterior.closed_form_predictive(X, batch_size=11).mean(), expected, atol=2e-4)


@pytest.mark.parametrize(("structure", "curvature"), [("full", "empirical_fisher"), ("kronecker", "ggn")])
def test_a_row_of_weight_w_counts_as_w_rows(structure, curvature):
    model, weights = network(), np.arange(ROWS) % 4
    stream = [(X, LABELS, weights)]
    repeated = (np.repeat(X, weights, axis=0), np.repeat(LABELS, weights))
    found, expected = (
        laplace(model, *data, structure=structure, curvature=curvature, prior_precision=2.0)
        for data in ((iter(stream),), repeated)
    )
    np.testing.assert_allclose(found.covariance(), expected.covariance(), rtol=1e-4, atol=1e-6)
    assert found.log_marginal_likelihood == pytest.approx(expected.log_marginal_likelihood, rel=1e-5)


def test_rows_without_a_target_are_none_of_the_rows_of_a_kronecker_product():
    model, observed = network(2, likelihood={"name": "normal", "scale": NOISE, "missing": "nan"}), np.arange(ROWS) < 9
    y = np.where(observed[:, np.newaxis], NUMBERS, np.nan)
    found, expected = (
        laplace(model, *data, structure="kronecker", prior_precision=2.0) for data in ((X, y), (X[:9], NUMBERS[:9]))
    )
    np.testing.assert_allclose(found.covariance(), expected.covariance(), rtol=1e-4, atol=1e-6)


def test_a_kronecker_product_is_of_the_mean_over_inputs_and_the_sum_over_outputs():
    model = network(hidden=4)
    posterior = laplace(model, X, LABELS, structure="kronecker", prior_precision=3.0, batch_size=8)
    values = [np.asarray(v, np.float64) for v in point_variables(model).values()]
    inputs = np.column_stack([np.tanh(X @ values[0] + values[1]), np.ones(ROWS)])
    logits = inputs @ np.vstack(values[2:])
    matrix = np.kron(inputs.T @ inputs / ROWS, softmax_hessian(logits).sum(axis=0))
    np.testing.assert_allclose(np.linalg.inv(posterior.covariance()), matrix + 3.0 * np.eye(15), rtol=1e-4, atol=1e-4)
    assert posterior.weight_names == ("outputs/kernel", "outputs/bias")


def test_the_posterior_and_evidence_of_a_pruned_model_are_those_of_the_weights_that_are_kept():
    layer = DenseFlipout(
        1,
        use_bias=False,
        kernel_prior={"name": "normal", "scale": PRIOR_SCALE, "loc": 1.0},
        kernel_posterior={"name": "delta", "pruned": True},
    )
    likelihood = {"name": "normal", "scale": NOISE}
    model = tfp_bnn.VariationalSequential([keras.Input((3,)), layer], likelihood=likelihood, seed=0)
    kept, x, y = [0, 2], X[:, [0, 2]].astype(np.float64), NUMBERS[:, 0]
    precision = x.T @ x / NOISE**2 + np.eye(2) / PRIOR_SCALE**2
    loc = np.zeros((3, 1))
    loc[kept, 0] = np.linalg.solve(precision, x.T @ y / NOISE**2 + 1.0 / PRIOR_SCALE**2)
    layer.variational_weights["kernel"].assign_parameters({"loc": loc, "mask": np.array([[1], [0], [1]])})
    expected = np.zeros((3, 3))
    expected[np.ix_(kept, kept)] = np.linalg.inv(precision)
    marginal = scipy.stats.multivariate_normal(x.sum(axis=1), PRIOR_SCALE**2 * x @ x.T + NOISE**2 * np.eye(ROWS))
    posterior = laplace(model, X, y)
    np.testing.assert_allclose(posterior.covariance(), expected, rtol=1e-5, atol=1e-8)
    assert posterior.log_marginal_likelihood == pytest.approx(marginal.logpdf(y), rel=1e-5)
    assert (posterior.posterior_predictive(np.eye(3)[1:2], num_samples=5).samples == 0).all()
    with pytest.raises(ValueError, match=r"1 of the weights .*/kernel are pruned, .* no Kronecker product"):
        laplace(model, X, y, structure="kronecker", prior_precision=1.0)


# === The prior ===


@pytest.mark.slow
def test_the_priors_of_the_layers_are_those_of_their_own_weights():
    prior = {"bias_posterior": "delta", "bias_prior": {"name": "normal", "scale": 2.0, "loc": 1.0}}
    posterior = laplace(network(**prior), X, LABELS, layers="outputs")
    inputs = np.column_stack([X, np.ones(ROWS)]).astype(np.float64)
    weights = posterior.mean_weights.astype(np.float64)
    middle = softmax_hessian(inputs @ weights.reshape(4, 3))
    matrix = np.einsum("ni,nj,nab->iajb", inputs, inputs, middle).reshape(12, 12)
    scales, centers = np.repeat([PRIOR_SCALE, 2.0], [9, 3]), np.repeat([0.0, 1.0], [9, 3])
    np.testing.assert_allclose(
        np.linalg.inv(posterior.covariance()), matrix + np.diag(scales**-2), rtol=1e-4, atol=1e-4
    )
    shrinking = np.linalg.slogdet(np.eye(12) + scales[:, np.newaxis] * matrix * scales)[1]
    expected = posterior.log_likelihood - 0.5 * (shrinking + (((weights - centers) / scales) ** 2).sum())
    assert posterior.log_marginal_likelihood == pytest.approx(expected, rel=1e-5)
    # Weights without a distribution have no prior, and stay points.
    assert laplace(network(), X, LABELS).weight_names == ("outputs/kernel",)
    assert laplace(network(), X, LABELS, prior_precision=1.0).weight_names == ("outputs/kernel", "outputs/bias")


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_prior_precision_maximizes_the_marginal_likelihood(structure):
    posterior = laplace(network(hidden=2), X, LABELS, structure=structure, prior_precision="marginal_likelihood")
    best, found = posterior.prior_precision, posterior.log_marginal_likelihood

    def minus_evidence(log_precision):
        posterior.prior_precision = float(np.exp(log_precision))
        return -posterior.log_marginal_likelihood

    optimum = scipy.optimize.minimize_scalar(minus_evidence, bounds=(-8, 8), method="bounded", options={"xatol": 1e-8})
    assert np.log(best) == pytest.approx(optimum.x, abs=1e-4)
    assert found == pytest.approx(-optimum.fun, abs=1e-6)


@pytest.mark.slow
def test_a_prior_precision_that_is_set_changes_the_draws():
    posterior = laplace(network(), X, LABELS, prior_precision=1e-2)
    wide = posterior.posterior_predictive(X, num_samples=20).epistemic()
    posterior.prior_precision = 1e6
    assert posterior.posterior_predictive(X, num_samples=20).epistemic().max() < 1e-3 * wide.max()
    with pytest.raises(ValueError, match="`prior_precision` must be a finite number > 0, but got 0"):
        posterior.prior_precision = 0


# === The predictive ===


def test_draws_of_the_linearized_network_are_linear_in_the_weights(injected_noise):
    model = network(hidden=2)
    posterior = laplace(model, X, LABELS, layers="all", structure="diagonal", prior_precision=1.0)
    jacobians, logits = jacobian(model, X)
    change = posterior.perturbation(injected_noise).numpy()
    found = posterior._outputs_of(X, posterior.mean_weights, change)
    compiled_before = posterior._compiled
    np.testing.assert_allclose(found, logits + jacobians @ change, rtol=1e-3, atol=1e-3)
    posterior.linearized = False
    other = posterior._outputs_of(X, posterior.mean_weights, change)
    np.testing.assert_allclose(other, posterior._network(X, posterior.mean_weights + change), atol=1e-6)
    assert np.abs(other - found).max() > 0.01
    # It is traced with what it was then.
    assert posterior._compiled is not compiled_before


def test_one_label_is_predicted_by_the_probit_approximation():
    model = network(1, likelihood="bernoulli")
    labels = (LABELS > 1).astype(int)
    posterior = laplace(model, X, labels, prior_precision=0.1)
    x = np.column_stack([X, np.ones(ROWS)]).astype(np.float64)
    mean, variance = x @ posterior.mean_weights, np.einsum("ni,ij,nj->n", x, posterior.covariance(), x)
    nodes, node_weights = np.polynomial.hermite_e.hermegauss(64)
    logits = mean[:, np.newaxis] + np.sqrt(variance)[:, np.newaxis] * nodes
    exact = scipy.special.expit(logits) @ node_weights / node_weights.sum()
    found = posterior.closed_form_predictive(X).mean()[:, 0]
    np.testing.assert_allclose(found, scipy.special.expit(mean / np.sqrt(1 + np.pi * variance / 8)), atol=1e-5)
    np.testing.assert_allclose(found, exact, atol=0.02)


# === Refusals ===


def test_what_laplace_cannot_do_is_refused():
    model = network(hidden=2)
    wrong = {
        "structure": ("block", "`structure` must be one of full, kronecker, diagonal, but got 'block'"),
        "curvature": ("hessian", "`curvature` must be one of ggn, empirical_fisher"),
        "prior_precision": (-1.0, r"`prior_precision` must be None, 'marginal_likelihood' or a finite number > 0"),
        "layers": ("first", "names of layers with trainable weights, hidden, outputs, but got 'first'"),
        "batch_size": (0, "`batch_size` must be an integer >= 1"),
        "linearized": (1, "`linearized` must be True or False"),
    }
    for argument, (value, message) in wrong.items():
        with pytest.raises(ValueError, match=message):
            laplace(model, X, LABELS, **{argument: value})
    with pytest.raises(ValueError, match="needs targets"):
        laplace(model, X)
    with pytest.raises(ValueError, match="are random"):
        laplace(tfp_bnn.VariationalSequential([keras.Input((3,)), DenseFlipout(3)]), X, LABELS)
    with pytest.raises(ValueError, match=r"one dense layer, .* but the weights are hidden/kernel, outputs/kernel"):
        laplace(model, X, LABELS, layers="all", structure="kronecker")
    penalized = network(kernel_regularizer="l2", bias_regularizer="l2")
    with pytest.raises(ValueError, match="The weights outputs/kernel have regularizers"):
        laplace(penalized, X, LABELS)
    assert laplace(penalized, X, LABELS, prior_precision=1.0).num_weights == 12
    images = keras.Input((4, 4, 1))
    positions = tfp_bnn.layers.Conv2DFlipout(2, 3, kernel_posterior="delta")(images)
    with pytest.raises(ValueError, match=r"has outputs of shape \(None, 2, 2, 2\)"):
        laplace(tfp_bnn.VariationalModel(images, positions), np.zeros((1, 4, 4, 1)), np.zeros((1, 2, 2)))


def test_too_many_weights_for_a_full_covariance_are_refused_with_their_number():
    with pytest.raises(ValueError, match=r"A full covariance of 4,500 weights would have 20,250,000 entries; at most"):
        laplace(network(units=1500), X, LABELS)


@pytest.mark.slow
def test_priors_and_likelihoods_without_a_precision_are_refused():
    plain = tfp_bnn.VariationalSequential([keras.Input((3,)), keras.layers.Dense(3, name="dense")], seed=0)
    with pytest.raises(ValueError, match="The weights dense/kernel, dense/bias have no prior"):
        laplace(plain, X, LABELS)
    assert laplace(plain, X, LABELS, prior_precision=1.0).num_weights == 12
    heavy = DenseFlipout(3, kernel_posterior="delta", kernel_prior="cauchy", name="dense")
    with pytest.raises(ValueError, match=r"The prior of dense/kernel, .* is not normal"):
        laplace(tfp_bnn.VariationalSequential([keras.Input((3,)), heavy]), X, LABELS)
    two = network(bias_posterior="delta", bias_prior={"name": "normal", "scale": 2.0})
    with pytest.raises(ValueError, match="needs one prior scale"):
        laplace(two, X, LABELS, structure="kronecker")
    heavy_noise = network(2, likelihood={"name": "student_t", "df": 3.0, "scale": 0.01})
    with pytest.raises(ValueError, match="is not convex in the outputs: its Hessian has the eigenvalue -"):
        laplace(heavy_noise, X, NUMBERS)
    posterior = laplace(heavy_noise, X, NUMBERS, curvature="empirical_fisher")
    with pytest.raises(ValueError, match="has no closed form for normal outputs"):
        posterior.closed_form_predictive(X)
    zero = network(1, likelihood={"name": "normal", "scale": 1.0}, bias=False)
    zero.variational_layers[0].variational_weights["kernel"].posterior_variables["loc"].assign(np.zeros((3, 1)))
    with pytest.raises(ValueError, match="the weights are at the prior mean"):
        laplace(zero, X, NUMBERS[:, 0], prior_precision="marginal_likelihood")


@pytest.mark.parametrize("structure", STRUCTURES)
def test_data_without_rows_are_refused(structure):
    """The prior would be returned as the posterior."""
    read = iter([])
    for data in ((X[:0], LABELS[:0]), (read,)):
        with pytest.raises(ValueError, match=r"got data without rows.*A generator that was read before has none left"):
            laplace(network(), *data, structure=structure)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_sparse_inputs_have_the_curvature_of_dense_ones(structure):
    found = [laplace(network(), x, LABELS, structure=structure) for x in (X, scipy.sparse.csr_matrix(X))]
    np.testing.assert_allclose(*(posterior.covariance() for posterior in found), rtol=1e-5)
    sparse = scipy.sparse.csr_matrix(X[:5])
    predictives = [found[0].closed_form_predictive(x) for x in (X[:5], sparse, tf.sparse.from_dense(X[:5]))]
    for predictive in predictives[1:]:
        np.testing.assert_allclose(predictive.mean(), predictives[0].mean(), rtol=1e-5)


def test_a_kronecker_product_needs_a_kernel():
    model = network()
    model.layers[0].variational_weights["kernel"].posterior_variables["loc"].trainable = False
    with pytest.raises(ValueError, match=r"over the kernel of one dense layer.*but the weights are outputs/bias"):
        laplace(model, X, LABELS, structure="kronecker", prior_precision=1.0)

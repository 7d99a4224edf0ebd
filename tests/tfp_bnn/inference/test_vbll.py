"""The variational Bayesian last layer: a bound without samples, exact for normal noise."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats

import tfp_bnn
from tfp_bnn.inference import LastLayerModel, vbll, way_of
from tfp_bnn.layers import DenseFlipout, MCDropout
from tfp_bnn.models.weight_record import weight_distributions

RNG = np.random.default_rng(0)
ROWS = 20
X = RNG.normal(size=(ROWS, 3)).astype(np.float32)
NUMBERS = (X @ RNG.normal(size=(3, 2)) + 0.3 * RNG.normal(size=(ROWS, 2))).astype(np.float32)
LABELS = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)
NOISE, PRIOR_SCALE = 0.5, 0.7
NORMAL = {"name": "normal", "scale": NOISE}


def network(units=2, likelihood=NORMAL, hidden=(), seed=0, **arguments):
    keras.utils.set_random_seed(seed)
    prior = {"name": "normal", "scale": PRIOR_SCALE}
    last = DenseFlipout(units, name="last", kernel_prior=prior, **{"use_bias": False, **arguments})
    layers = [keras.Input((3,)), *hidden, last]
    model = tfp_bnn.VariationalSequential(layers, likelihood=likelihood, seed=seed, name="net")
    weight = last.variational_weights["kernel"]
    rng = np.random.default_rng(seed)
    values = {"loc": rng.normal(size=weight.shape), "scale": rng.uniform(0.2, 0.8, weight.shape)}
    weight.assign_parameters({**weight.parameters(), **values})
    return model


def step(model, y, run_eagerly=True):
    """The terms of one training step on all rows, which changes nothing."""
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=run_eagerly)
    model.num_examples = ROWS
    return model.train_on_batch(X, y, return_dict=True)


def moments(model):
    """Means and variances of the outputs of a linear model, in float64."""
    found = weight_distributions(model)
    x = X.astype(np.float64)
    return x @ found["last/kernel/loc"], x**2 @ found["last/kernel/scale"].astype(np.float64) ** 2


def test_the_bound_of_a_linear_model_with_normal_noise_is_exact():
    """ELBO = log evidence - KL(q || posterior), both in closed form; and no noise in it."""
    model = vbll(network())
    terms = step(model, NUMBERS)
    found = weight_distributions(model)
    x = X.astype(np.float64)
    covariance = np.linalg.inv(x.T @ x / NOISE**2 + np.eye(3) / PRIOR_SCALE**2)
    marginal = scipy.stats.multivariate_normal(np.zeros(ROWS), PRIOR_SCALE**2 * x @ x.T + NOISE**2 * np.eye(ROWS))
    bound = 0.0
    for target in range(2):
        mean = covariance @ x.T @ NUMBERS[:, target] / NOISE**2
        loc, variance = found["last/kernel/loc"][:, target], found["last/kernel/scale"][:, target] ** 2.0
        difference, precision = mean - loc, np.linalg.inv(covariance)
        kl = 0.5 * (
            (np.diag(precision) * variance).sum()
            + difference @ precision @ difference
            - 3
            + np.linalg.slogdet(covariance)[1]
            - np.log(variance).sum()
        )
        bound += marginal.logpdf(NUMBERS[:, target]) - kl
    assert terms["elbo"] * ROWS == pytest.approx(bound, rel=1e-5)
    assert step(model, NUMBERS) == terms


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "tolerance"), [("float32", 1e-5), ("mixed_bfloat16", 1e-2)])
def test_a_compiled_step_has_the_same_bound(policy, tolerance):
    keras.config.set_dtype_policy(policy)
    try:
        model = vbll(network())
    finally:
        keras.config.set_dtype_policy("float32")
    assert step(model, NUMBERS, run_eagerly=False) == pytest.approx(step(vbll(network()), NUMBERS), rel=tolerance)


def test_the_bound_of_classes_and_of_labels_is_that_of_jensen():
    model = vbll(network(3, "categorical"))
    mean, variance = moments(model)
    expected = mean[np.arange(ROWS), LABELS] - scipy.special.logsumexp(mean + variance / 2, axis=1)
    assert step(model, LABELS)["nll"] == pytest.approx(-expected.mean(), rel=1e-5)

    model, labels = vbll(network(2, "bernoulli")), (NUMBERS > 0).astype(int)
    mean, variance = moments(model)
    expected = (labels * mean - np.logaddexp(0, mean + variance / 2)).sum(axis=1)
    assert step(model, labels)["nll"] == pytest.approx(-expected.mean(), rel=1e-5)


@pytest.mark.statistical
def test_the_bound_is_the_mean_over_draws():
    """1,000 draws: the mean NLL is normal, and fails by chance at 5 standard errors with probability 6e-7."""
    model = vbll(network())
    nll = step(model, NUMBERS)["nll"]
    samples = model.posterior_predictive(X, num_samples=1000).samples.astype(np.float64)
    of_draws = -scipy.stats.norm.logpdf(NUMBERS, samples, NOISE).sum(axis=2).mean(axis=1)
    assert abs(of_draws.mean() - nll) < 5 * of_draws.std() / np.sqrt(1000)


def test_hidden_weights_and_deterministic_biases_are_points_and_are_trained():
    hidden = DenseFlipout(4, activation="tanh", name="hidden", kernel_prior={"name": "normal", "scale": 1.0})
    bayesian = network(2, hidden=[hidden], use_bias=True, bias_posterior="mean_field_normal")
    model = vbll(bayesian, name="copy")
    assert isinstance(model, LastLayerModel)
    assert way_of(model) == "vbll"
    before = weight_distributions(model)
    assert "hidden/kernel/scale" not in before
    for name, value in before.items():
        np.testing.assert_allclose(value, weight_distributions(bayesian)[name], rtol=1e-6)
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    model.fit(X, NUMBERS, batch_size=ROWS, verbose=0)
    moved = {name for name, value in weight_distributions(model).items() if not np.array_equal(value, before[name])}
    assert moved == set(before)


def test_a_saved_model_is_trained_on_the_bound_again(tmp_path):
    model = vbll(network())
    terms = step(model, NUMBERS)
    model.save(tmp_path / "vbll.keras")
    loaded = keras.saving.load_model(tmp_path / "vbll.keras")
    assert step(loaded, NUMBERS) == pytest.approx(terms, rel=1e-6)


def test_what_has_no_bound_is_refused():
    with pytest.raises(ValueError, match=r"must be those of one Bayesian dense layer.* 'last', is DenseFlipout"):
        vbll(network(activation="tanh"))
    with pytest.raises(ValueError, match="The layers drop stay random"):
        vbll(network(hidden=[MCDropout(0.5, name="drop")]))
    with pytest.raises(TypeError, match="`vbll` takes a VariationalModel"):
        vbll(keras.Sequential())
    x = keras.Input((3,))
    random = DenseFlipout(2, name="last")(DenseFlipout(2, name="hidden")(x))
    with pytest.raises(ValueError, match="Only the last layer can be random, but hidden are too"):
        LastLayerModel(x, random)
    with pytest.raises(ValueError, match=r"StudentT.* has no expectation over normal outputs"):
        step(vbll(network(likelihood={"name": "student_t", "df": 4.0, "scale": 1.0})), NUMBERS)
    with pytest.raises(ValueError, match="single targets that are missing"):
        step(vbll(network(likelihood={**NORMAL, "missing": "nan"})), NUMBERS)
    with pytest.raises(ValueError, match="The last layer, 'last', has an activity regularizer"):
        vbll(network(activity_regularizer="l2"))
    model = vbll(network())
    with pytest.raises(ValueError, match=r"`objective` of a LastLayerModel must be 'elbo', but got 'pac_m'"):
        model.objective = "pac_m"
    assert model.objective == tfp_bnn.objectives.Elbo()


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (lambda last, x: 10.0 * last(x), "The last layer, '.*', is Multiply"),
        (lambda last, x: last(x) + x, "The last layer, '.*', is Add"),
        (lambda last, x: last(last(x)), "The last layer, 'last', is used below as well"),
    ],
    ids=["product", "sum", "twice"],
)
def test_outputs_that_are_not_those_of_one_layer_are_refused(outputs, message):
    x = keras.Input((3,))
    outputs = outputs(DenseFlipout(3, name="last"), x)
    for make in (LastLayerModel, lambda *graph: vbll(tfp_bnn.VariationalModel(*graph))):
        with pytest.raises(ValueError, match=message):
            make(x, outputs)


def test_a_last_layer_may_have_been_called_elsewhere():
    """Its first inputs are those of another graph."""
    last, x = DenseFlipout(2, name="last"), keras.Input((3,))
    last(keras.Input((3,)))
    step(vbll(tfp_bnn.VariationalModel(x, last(x), likelihood=NORMAL)), NUMBERS)


def test_the_copy_keeps_what_is_known_and_what_is_frozen():
    model = network(likelihood="normal", use_bias=True)
    model.target_units, model.inputs_expected = ["mm", "kg"], tfp_bnn.ExpectedInputs.of(X)
    model.likelihood_weights["log_scale"].trainable = False
    model.layers[-1].bias.trainable = False
    copy = vbll(model)
    assert (copy.target_units, copy.inputs_expected) == (model.target_units, model.inputs_expected)
    assert not copy.likelihood_weights["log_scale"].trainable
    assert not copy.layers[-1].bias.trainable


def test_the_copy_knows_its_inputs_by_their_names():
    inputs = {name: keras.Input((3,), name=name) for name in "ab"}
    last = DenseFlipout(2, name="last")(keras.layers.Add()([*inputs.values()]))
    copy = vbll(tfp_bnn.VariationalModel(inputs, last, likelihood=NORMAL, seed=0))
    given = dict.fromkeys("abc", X)
    with pytest.raises(ValueError, match="'c'"):
        copy.posterior_predictive(given, num_samples=2)

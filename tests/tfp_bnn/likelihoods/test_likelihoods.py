"""Likelihoods against SciPy: densities, means, refusals."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.special
import scipy.stats
import tensorflow as tf

from tfp_bnn.likelihoods import LIKELIHOODS, Bernoulli, Categorical, Likelihood, Normal

NUM_EXAMPLES = 7
# Values of arguments without a default.
REQUIRED = {"ordinal": {"num_classes": 4}, "joint": {"heads": {"class": "categorical", "value": "normal"}}}


def random_outputs(*shape, seed=0, scale=2.0):
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def softplus(x):
    return np.logaddexp(0.0, np.asarray(x, np.float64))


# === All likelihoods ===


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_every_likelihood_has_a_docstring_and_a_config(name, check_spec):
    check_spec(LIKELIHOODS, name, **REQUIRED.get(name, {}))


@pytest.mark.parametrize("scale", ["learned", "per_example", 0.5])
def test_configs_of_the_normal(scale):
    likelihood = LIKELIHOODS.get({"name": "normal", "scale": scale, "initial_scale": 2.0})
    assert likelihood.get_config() == {"scale": scale, "initial_scale": 2.0}
    assert Normal.from_config(likelihood.get_config()) == likelihood


def test_there_are_likelihoods():
    assert {"categorical", "bernoulli", "normal"} <= {*LIKELIHOODS}
    assert all(issubclass(LIKELIHOODS[name], Likelihood) for name in LIKELIHOODS)
    ours = [name for name in LIKELIHOODS if LIKELIHOODS.package_of(name) == "tfp_bnn"]
    assert [_snake_case(LIKELIHOODS[name].__name__) for name in ours] == ours
    assert {LIKELIHOODS[name].task for name in LIKELIHOODS} == {"classification", "regression", "joint"}


def test_the_guide_lists_every_likelihood_with_its_calibration():
    guide = (Path(__file__).parents[3] / "docs" / "likelihoods.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| (\w*) ?\|$", guide, re.MULTILINE))
    ours = [name for name in LIKELIHOODS if LIKELIHOODS.package_of(name) == "tfp_bnn"]
    assert rows == {name: LIKELIHOODS[name].calibrator or "" for name in ours}


@pytest.mark.parametrize("name", ["categorical", "bernoulli"])
def test_discrete_likelihoods_learn_nothing(name, add_weight):
    likelihood = LIKELIHOODS.get(name)
    assert likelihood.add_weights(add_weight) == {}
    assert likelihood.parameters({}) == {}
    likelihood.assign_parameters({}, {})


def test_unknown_names_and_arguments_are_refused():
    with pytest.raises(ValueError, match="Unknown argument of the likelihood 'categorical': 'scale'"):
        LIKELIHOODS.get({"name": "categorical", "scale": 1.0})
    with pytest.raises(ValueError, match="Did you mean 'bernoulli'"):
        LIKELIHOODS.get("bernouli")


# === Categorical ===


@pytest.fixture
def labels():
    return np.random.default_rng(1).integers(4, size=NUM_EXAMPLES)


def test_categorical_log_prob_equals_scipy(labels):
    logits = random_outputs(NUM_EXAMPLES, 4)
    one_hot = np.eye(4)[labels]
    expected = scipy.stats.multinomial.logpmf(one_hot, 1, scipy.special.softmax(logits.astype(np.float64), axis=1))
    found = Categorical().log_prob(labels, logits, {})
    assert found.dtype == tf.float32
    assert found.shape == (NUM_EXAMPLES,)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.float32])
@pytest.mark.parametrize("form", ["integers", "column", "one_hot"])
def test_forms_of_labels_agree(labels, form, dtype):
    logits = random_outputs(NUM_EXAMPLES, 4)
    y = {"integers": labels, "column": labels[:, None], "one_hot": np.eye(4)[labels]}[form].astype(dtype)
    Categorical().check_targets(y, 4)
    found = Categorical().log_prob(tf.constant(y), tf.constant(logits), {})
    np.testing.assert_array_equal(found, Categorical().log_prob(labels, logits, {}))


def test_soft_labels_average_the_log_probs():
    logits = random_outputs(NUM_EXAMPLES, 4)
    soft = np.random.default_rng(1).dirichlet(np.ones(4), size=NUM_EXAMPLES).astype(np.float32)
    Categorical().check_targets(soft, 4)
    expected = (soft * scipy.special.log_softmax(logits.astype(np.float64), axis=1)).sum(axis=1)
    np.testing.assert_allclose(Categorical().log_prob(soft, logits, {}), expected, rtol=1e-5)


def test_two_classes_with_labels_in_a_column(labels):
    binary, logits = labels % 2, random_outputs(NUM_EXAMPLES, 2)
    column = Categorical().log_prob(binary[:, None], logits, {})
    np.testing.assert_array_equal(column, Categorical().log_prob(binary, logits, {}))


def test_the_distribution_of_the_categorical_agrees_with_log_prob(labels):
    logits = random_outputs(NUM_EXAMPLES, 4)
    found = Categorical().distribution(logits, {}).log_prob(labels)
    np.testing.assert_allclose(found, Categorical().log_prob(labels, logits, {}), rtol=1e-5)


def test_extreme_logits_stay_finite():
    logits = np.array([[1e4, -1e4], [-1e4, 1e4]], np.float32)
    np.testing.assert_allclose(Categorical().log_prob(np.array([0, 0]), logits, {}), [0.0, -2e4])
    np.testing.assert_allclose(Bernoulli().log_prob(np.ones(2), logits[:, :1], {}), [0.0, -1e4])
    for likelihood in (Categorical(), Bernoulli()):
        for part in (likelihood.entropy, likelihood.aleatoric, likelihood.epistemic):
            np.testing.assert_allclose(part(np.stack([logits, logits]), {}), 0.0, atol=1e-6)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("wrong", [4, -1])
def test_labels_out_of_range_stop_a_step(wrong, compiled):
    def call(y, logits):
        return Categorical().log_prob(y, logits, {})

    call = tf.function(call, autograph=False) if compiled else call
    message = "expected integers from 0 to 3, because the model has 4 outputs"
    with pytest.raises(tf.errors.InvalidArgumentError if compiled else ValueError, match=message):
        call(tf.constant([0, wrong]), tf.zeros((2, 4)))


# === Bernoulli ===


@pytest.mark.parametrize("shape", [(NUM_EXAMPLES,), (NUM_EXAMPLES, 1), (NUM_EXAMPLES, 3)])
def test_bernoulli_log_prob_equals_scipy(shape):
    logits = random_outputs(NUM_EXAMPLES, shape[1] if len(shape) == 2 else 1)
    y = np.random.default_rng(1).integers(2, size=shape)
    Bernoulli().check_targets(y, logits.shape[1])
    expected = scipy.stats.bernoulli.logpmf(y.reshape(logits.shape), scipy.special.expit(logits.astype(np.float64)))
    found = Bernoulli().log_prob(y, logits, {})
    assert found.shape == (NUM_EXAMPLES,)
    np.testing.assert_allclose(found, expected.sum(axis=1), rtol=1e-5)


# === Normal ===


@pytest.mark.parametrize("shape", [(NUM_EXAMPLES,), (NUM_EXAMPLES, 1), (NUM_EXAMPLES, 3)])
@pytest.mark.parametrize("scale", [0.3, "learned", "per_example"])
def test_normal_log_prob_equals_scipy(scale, shape, add_weight):
    num_targets = shape[1] if len(shape) == 2 else 1
    likelihood = Normal(scale, initial_scale=0.7)
    weights = likelihood.add_weights(add_weight)
    assert set(weights) == ({"log_scale"} if scale == "learned" else set())
    outputs = random_outputs(NUM_EXAMPLES, 2 * num_targets if scale == "per_example" else num_targets)
    y = random_outputs(*shape, seed=1)
    likelihood.check_targets(y, outputs.shape[1])
    sigma = {"learned": 0.7, "per_example": 1e-6 + softplus(outputs[:, num_targets:])}.get(scale, scale)
    expected = scipy.stats.norm.logpdf(y.reshape(NUM_EXAMPLES, num_targets), outputs[:, :num_targets], sigma).sum(
        axis=1
    )
    found = likelihood.log_prob(y, outputs, weights)
    assert found.shape == (NUM_EXAMPLES,)
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_array_equal(likelihood.mean(outputs), outputs[:, :num_targets])


def test_the_learned_scale_is_learned(learned):
    likelihood, weights = learned
    outputs = random_outputs(NUM_EXAMPLES, 2)
    y = outputs + random_outputs(NUM_EXAMPLES, 2, seed=1)
    best = float(np.sqrt(np.mean((y - outputs) ** 2)))
    for factor, sign in ((0.5, 1.0), (1.0, 0.0), (2.0, -1.0)):
        likelihood.assign_parameters(weights, {"scale": np.float32(factor * best)})
        with tf.GradientTape() as tape:
            log_prob = tf.reduce_sum(likelihood.log_prob(y, outputs, weights))
        gradient = float(tape.gradient(log_prob, weights["log_scale"].value))
        assert np.sign(np.round(gradient, 3)) == sign


def test_the_learned_scale_in_natural_units(learned):
    likelihood, weights = learned
    np.testing.assert_allclose(likelihood.parameters(weights)["scale"], 0.7, rtol=1e-6)
    likelihood.assign_parameters(weights, {"scale": np.float32(2.5)})
    parameters = likelihood.parameters(weights)
    assert parameters["scale"].dtype == np.float32
    np.testing.assert_allclose(parameters["scale"], 2.5, rtol=1e-6)
    for bad in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="The likelihood scale must be finite and at least"):
            likelihood.assign_parameters(weights, {"scale": bad})
    assert Normal(0.5).parameters({}) == {}


def test_extreme_per_example_scales_stay_finite():
    outputs = tf.Variable([[0.0, -1000.0], [0.0, 1000.0]])
    with tf.GradientTape() as tape:
        log_prob = Normal("per_example").log_prob(np.zeros(2), outputs, {})
    assert np.isfinite(log_prob).all()
    np.testing.assert_allclose(log_prob, scipy.stats.norm.logpdf(0.0, 0.0, [1e-6, 1000.0]), rtol=1e-4)
    assert np.isfinite(tape.gradient(log_prob, outputs)).all()


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), True, "learn", None])
def test_scales_out_of_range_are_refused(value):
    message = f"must be a number > 0, 'learned' or 'per_example', but got {value!r}."
    with pytest.raises(ValueError, match=re.escape(message)):
        Normal(value)
    with pytest.raises(ValueError, match=re.escape(f"must be a finite number larger than 0, but got {value!r}.")):
        Normal(initial_scale=value)


# === What metrics receive ===


def test_means_are_probabilities():
    outputs = random_outputs(5, NUM_EXAMPLES, 4)
    probabilities = Categorical().mean(outputs)
    np.testing.assert_allclose(probabilities, scipy.special.softmax(outputs, axis=-1), rtol=1e-5)
    np.testing.assert_allclose(tf.reduce_sum(probabilities, -1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(Bernoulli().mean(outputs), scipy.special.expit(outputs), rtol=1e-5)


@pytest.mark.parametrize("likelihood", [Categorical(), Bernoulli(), Normal(1.0), Normal("per_example")], ids=repr)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_all_is_computed_in_float32(likelihood, dtype):
    outputs = tf.cast(random_outputs(3, NUM_EXAMPLES, 2), dtype)
    y = np.zeros((NUM_EXAMPLES, likelihood.mean(outputs).shape[-1]), np.float32)
    if isinstance(likelihood, Categorical):
        y[:, 0] = 1.0
    assert likelihood.log_prob(y, outputs[0], {}).dtype == tf.float32
    assert likelihood.mean(outputs).dtype == tf.float32
    for part in (likelihood.entropy, likelihood.aleatoric, likelihood.epistemic):
        assert part(outputs, {}).dtype == tf.float32
    assert likelihood.quantiles(outputs, {}, [0.1, 0.9]).dtype == np.float32


# === Targets that do not fit ===

ZEROS = np.zeros(3)
REFUSED = {
    "one_class": (Categorical(), ZEROS, 1, "needs the logits of at least 2 classes, but the model has 1 output"),
    "label_too_large": (
        Categorical(),
        np.array([0, 4, 5]),
        4,
        "from 0 to 3, because the model has 4 outputs, but 2 of 3 labels are not; the first is 4 in row 1",
    ),
    "label_negative": (Categorical(), np.array([0, 1, -1]), 4, "1 of 3 labels are not; the first is -1 in row 2"),
    "label_fractional": (
        Categorical(),
        np.array([0.0, 1.5, 1.0]),
        4,
        "1 of 3 labels are not; the first is 1.5 in row 1",
    ),
    "label_nan": (Categorical(), np.array([np.nan, 1.0, 1.0]), 4, "1 of 3 labels are not; the first is nan in row 0"),
    "column_too_large": (Categorical(), np.array([[0], [9]]), 4, "1 of 2 labels are not; the first is 9 in row 1"),
    "wide": (Categorical(), np.zeros((3, 5)), 4, "Labels of shape (3, 5) do not fit a model with 4 outputs"),
    "rank_3": (Categorical(), np.zeros((3, 4, 1)), 4, "Labels of shape (3, 4, 1) do not fit a model with 4 outputs"),
    "rows_of_zeros": (Categorical(), np.zeros((3, 4)), 4, "rows sum to 0 to 0"),
    "two_hot": (Categorical(), np.ones((3, 4)), 4, "rows sum to 4 to 4"),
    "negative_soft_label": (Categorical(), np.array([[1.5, -0.5]]), 2, "the least value is -0.5"),
    "bernoulli_two": (Bernoulli(), np.array([1, 2]), 1, "expects values in [0, 1], but got values from 1 to 2"),
    "bernoulli_signs": (Bernoulli(), np.array([1, -1]), 1, "expects values in [0, 1], but got values from -1 to 1"),
    "bernoulli_flat": (Bernoulli(), ZEROS, 2, "Targets of shape (3,) do not fit a model with 2 target(s)"),
    "normal_flat": (Normal(), ZEROS, 2, "Targets of shape (3,) do not fit a model with 2 target(s)"),
    "normal_wide": (Normal(), np.zeros((3, 2)), 1, "expected the shape (batch, 1) or (batch,)"),
    "normal_rank_3": (Normal(), np.zeros((3, 2, 1)), 2, "Targets of shape (3, 2, 1) do not fit"),
    "normal_scalar": (Normal(), np.zeros(()), 1, "Targets of shape () do not fit"),
    "per_example_odd": (Normal("per_example"), ZEROS, 3, "needs two outputs for each target"),
    "per_example_wide": (Normal("per_example"), np.zeros((3, 2)), 2, "do not fit a model with 1 target(s)"),
}


@pytest.mark.parametrize(("likelihood", "y", "num_outputs", "message"), REFUSED.values(), ids=REFUSED)
def test_targets_that_do_not_fit_are_refused(likelihood, y, num_outputs, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        likelihood.check_targets(y, num_outputs)


@pytest.mark.parametrize(
    ("likelihood", "y", "num_outputs"),
    [
        (Categorical(), np.zeros((3, 5)), 4),
        (Categorical(), np.zeros((3, 4, 1)), 4),
        (Bernoulli(), ZEROS, 2),
        (Normal(1.0), ZEROS, 2),
        (Normal(1.0), np.zeros((3, 2)), 1),
        (Normal("per_example"), ZEROS, 3),
        (Normal("per_example"), np.zeros((3, 2)), 2),
    ],
)
def test_shapes_that_do_not_fit_never_broadcast(likelihood, y, num_outputs):
    with pytest.raises(ValueError, match=r"fit a model with|needs two outputs"):
        likelihood.log_prob(y, np.zeros((3, num_outputs), np.float32), {})


@pytest.mark.parametrize(
    ("likelihood", "y", "num_outputs"),
    [
        (Categorical(), np.array([0, 3]), 4),
        (Categorical(), np.array([0.0, 3.0]), 4),
        (Categorical(), np.array([False, True]), 2),
        (Categorical(), np.array([[0], [3]], np.uint8), 4),
        (Categorical(), np.array([[0.5, 0.5], [1.0, 0.0]]), 2),
        (Bernoulli(), np.array([0, 1]), 1),
        (Bernoulli(), np.array([False, True]), 1),
        (Bernoulli(), np.array([[0.0, 0.5], [1.0, 0.3]]), 2),
        (Normal(), ZEROS, 1),
        (Normal(), np.zeros((3, 2)), 2),
        (Normal("per_example"), ZEROS, 2),
        (Normal("per_example"), np.zeros((3, 2)), 4),
    ],
)
def test_targets_that_fit(likelihood, y, num_outputs, add_weight):
    likelihood.check_targets(y, num_outputs)
    weights = likelihood.add_weights(add_weight)
    log_prob = likelihood.log_prob(tf.constant(y), tf.zeros((len(y), num_outputs)), weights)
    assert log_prob.shape == (len(y),)
    assert np.isfinite(log_prob).all()


@pytest.mark.parametrize("likelihood", [Categorical(), Bernoulli(), Normal(1.0)], ids=repr)
def test_targets_of_an_unknown_number_of_axes_are_refused(likelihood):
    step = tf.function(
        lambda y, outputs: likelihood.log_prob(y, outputs, {}),
        input_signature=[tf.TensorSpec(None), tf.TensorSpec((None, 2))],
        autograph=False,
    )
    with pytest.raises(ValueError, match=r"number of axes of the targets is not known.*tf\.ensure_shape"):
        step(tf.zeros((3, 2)), tf.zeros((3, 2)))


@pytest.mark.parametrize("scale", [0.5, "learned", "per_example"])
def test_the_noise_of_a_calibrated_normal_is_widened(scale, add_weight):
    likelihood = Normal(scale, initial_scale=0.7)
    weights = likelihood.add_weights(add_weight)
    outputs = random_outputs(3, NUM_EXAMPLES, 2)
    plain, wide = (likelihood.distribution(outputs, {**weights, **more}).stddev() for more in ({}, {"widening": 1.5}))
    np.testing.assert_allclose(wide, 1.5 * plain, rtol=1e-6)


def _snake_case(name):
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()

"""The functions of an exported model give what `posterior_predictive` gives, whatever the batch."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import distributions as tfd

import tfp_bnn
from tfp_bnn.export.saved_model import served_functions
from tfp_bnn.export.served_draws import _nan_elsewhere
from tfp_bnn.layers import Convolution1DFlipout, DenseFlipout, DenseReparameterization, MCDropout

ROWS, DRAWS = 7, 6
X = np.random.default_rng(0).normal(size=(ROWS, 4)).astype(np.float32)
ALL = {"mean", "entropy", "aleatoric", "epistemic", "lower", "upper"}
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def network(likelihood="categorical", outputs=3, layer=DenseFlipout, **kwargs):
    x = keras.Input((4,))
    return tfp_bnn.VariationalModel(x, layer(outputs)(x), likelihood=likelihood, seed=0, **kwargs)


def served(model, **kwargs):
    return served_functions(model, num_samples=DRAWS, **kwargs)[0]


def expected(predictive, level=0.9):
    lower, upper = predictive.interval(level)
    moments = {name: getattr(predictive, name)() for name in ("mean", "entropy", "aleatoric", "epistemic")}
    return {**moments, "lower": lower, "upper": upper}


def assert_answers(answer, predictive, names=frozenset(ALL), level=0.9):
    assert set(answer) == set(names)
    wanted = expected(predictive, level)
    for name, values in answer.items():
        np.testing.assert_allclose(values, wanted[name], **TOLERANCE, err_msg=name)


# The answers of others are compared where they are calibrated, or are heads.
@pytest.mark.parametrize(
    ("likelihood", "outputs", "names"),
    [
        ("categorical", 3, ALL),
        pytest.param({"name": "ordinal", "num_classes": 3}, 1, ALL, marks=pytest.mark.slow),
        ({"name": "normal", "scale": "per_example"}, 2, ALL),
        pytest.param({"name": "laplace", "scale": 0.5}, 1, ALL - {"entropy"}, marks=pytest.mark.slow),
        ("negative_binomial", 2, ALL - {"entropy", "lower", "upper"}),
        pytest.param(
            {"name": "mixture_normal", "num_components": 2},
            6,
            ALL - {"entropy", "lower", "upper"},
            marks=pytest.mark.slow,
        ),
    ],
    # The order within a set differs between processes.
    ids=lambda value: None if isinstance(value, set) else str(value),
)
def test_every_output_is_that_of_the_predictive_and_others_are_left_out(likelihood, outputs, names):
    model = network(likelihood, outputs)
    answer = served(model)["serving_default"]
    predictive = model.posterior_predictive(X, DRAWS)
    whole = answer(X)
    assert_answers(whole, predictive, names)
    one_by_one = [answer(X[row : row + 1]) for row in range(ROWS)]
    for name, values in whole.items():
        np.testing.assert_allclose(np.concatenate([row[name] for row in one_by_one]), values, **TOLERANCE, err_msg=name)


def test_what_is_left_out_is_said():
    _, description = served_functions(network("poisson", 1), num_samples=DRAWS)
    assert description.startswith(f"The answers are those of {DRAWS} draws. Left out: entropy, lower, upper")


def test_the_seed_is_an_input_with_a_default():
    model = network()
    functions = served(model, seed=3)
    assert_answers(functions["predict"](X, 11), model.posterior_predictive(X, DRAWS, seed=11))
    for answer in (functions["predict"](X), functions["serving_default"](X), functions["serving_default"](X)):
        assert_answers(answer, model.posterior_predictive(X, DRAWS, seed=3))
    np.testing.assert_array_equal(functions["serve"](X), functions["predict"](X)["mean"])


def test_draws_and_the_plug_in_mean():
    model = network(calibration={"name": "temperature", "temperature": 3.0})
    functions = served(model)
    samples = model.posterior_predictive(X, DRAWS, seed=5).samples
    np.testing.assert_allclose(functions["draws"](X, 5)["samples"], np.moveaxis(samples, 0, 1), **TOLERANCE)
    # It is never calibrated.
    np.testing.assert_allclose(functions["mean"](X)["mean"], model.plug_in_predictive(X).mean(), **TOLERANCE)


@pytest.mark.parametrize(
    ("likelihood", "calibration", "calibrated"),
    [
        ("bernoulli", {"name": "temperature", "temperature": 3.0}, True),
        pytest.param(
            {"name": "normal", "initial_scale": 2.0}, {"name": "scale", "scale": 2.0}, True, marks=pytest.mark.slow
        ),
        ("bernoulli", {"name": "temperature", "temperature": 3.0}, False),
    ],
)
def test_the_calibration_is_applied_unless_told_not_to(likelihood, calibration, calibrated):
    model = network(likelihood, calibration=calibration)
    answer = served(model, calibrated=calibrated)["serving_default"](X)
    assert_answers(answer, model.posterior_predictive(X, DRAWS, calibrated=calibrated))


def test_the_level_of_the_interval_can_be_chosen():
    model = network()
    assert_answers(served(model, level=0.5)["serving_default"](X), model.posterior_predictive(X, DRAWS), level=0.5)


def test_many_draws_of_numbers_have_an_entropy_too():
    model = network("normal", 1)
    functions, _ = served_functions(model, num_samples=200)
    assert_answers(functions["serving_default"](X), model.posterior_predictive(X, 200))


def test_a_point_estimate_has_one_draw():
    model = tfp_bnn.inference.map_estimate(network())
    assert_answers(served(model)["serving_default"](X), model.posterior_predictive(X, DRAWS))
    assert served(model)["draws"](X)["samples"].shape == (ROWS, 1, 3)


def test_dropout_masks_are_drawn():
    x = keras.Input((4,))
    model = tfp_bnn.VariationalModel(x, DenseFlipout(3)(MCDropout(0.5)(x)), seed=0)
    model = tfp_bnn.inference.mc_dropout(model)
    answer = served(model)["serving_default"](X)
    assert_answers(answer, model.posterior_predictive(X, DRAWS))
    assert np.min(answer["epistemic"]) > 1e-4


@pytest.mark.parametrize("draws_per_member", [None, pytest.param(2, marks=pytest.mark.slow)])
def test_members_of_an_ensemble_keep_the_noise_they_learned(draws_per_member):
    models = [network("normal", 1) for _ in range(2)]
    for member, scale in zip(models, (0.5, 2.0), strict=True):
        member.likelihood.assign_parameters(member.likelihood_weights, {"scale": np.float32(scale)})
    model = tfp_bnn.inference.ensemble(models, draws_per_member)
    functions = served(model)
    assert_answers(functions["predict"](X, 4), model.posterior_predictive(X, DRAWS, seed=4))
    np.testing.assert_allclose(functions["mean"](X)["mean"], model.plug_in_predictive(X).mean(), **TOLERANCE)


def test_outputs_of_heads_are_named_after_them():
    x = keras.Input((4,))
    outputs = {"class": DenseFlipout(3)(x), "value": DenseFlipout(1)(x)}
    model = tfp_bnn.VariationalModel(x, outputs, likelihood={"class": "categorical", "value": "poisson"}, seed=0)
    functions = served(model)
    answer, predictive = functions["serving_default"](X), model.posterior_predictive(X, DRAWS)
    of_class = {name.removeprefix("class/"): value for name, value in answer.items() if name.startswith("class/")}
    of_value = {name.removeprefix("value/"): value for name, value in answer.items() if name.startswith("value/")}
    assert len(answer) == len(of_class) + len(of_value)
    assert_answers(of_class, predictive["class"])
    assert_answers(of_value, predictive["value"], ALL - {"entropy", "lower", "upper"})
    assert set(functions["serve"](X)) == {"class", "value"}


@pytest.mark.parametrize("likelihood", ["categorical", pytest.param("normal", marks=pytest.mark.slow)])
def test_every_position_has_an_answer(likelihood):
    x = keras.Input((None, 2))
    model = tfp_bnn.VariationalModel(x, Convolution1DFlipout(3, 1)(x), likelihood=likelihood, seed=0)
    steps = X.reshape(ROWS, 2, 2)
    assert_answers(served(model)["serving_default"](steps), model.posterior_predictive(steps, DRAWS))


def test_several_inputs_keep_their_structure():
    x = {"left": keras.Input((4,), name="left"), "right": keras.Input((4,), name="right")}
    model = tfp_bnn.VariationalModel(x, DenseFlipout(3)(keras.layers.Subtract()(list(x.values()))), seed=0)
    inputs = {"left": X, "right": 2.0 * X}
    assert_answers(served(model)["serving_default"](inputs), model.posterior_predictive(inputs, DRAWS))


class Net(tfp_bnn.VariationalMixin, keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.top = DenseReparameterization(3)

    def call(self, inputs, training=None):
        return self.top(inputs, training=training)


def test_a_subclass_is_exported_after_its_first_call():
    model = Net(seed=0)
    signature = [keras.InputSpec(shape=(None, 4), dtype="float32")]
    with pytest.raises(ValueError, match="is not built, so its weights are not known"):
        served(model, input_signature=signature)
    model(X[:2])
    np.testing.assert_array_equal(served(model, input_signature=signature)["serve"](X), served(model)["serve"](X))
    assert_answers(served(model)["serving_default"](X), model.posterior_predictive(X, DRAWS))


def test_nan_is_answered_too_where_the_number_of_axes_is_not_known():
    specs = [tf.TensorSpec([None], tf.bool), tf.TensorSpec(None, tf.float32)]
    answer = tf.function(_nan_elsewhere, specs, autograph=False)
    for shape in ((2,), (2, 3), (2, 3, 4)):
        expected = np.ones(shape, np.float32)
        expected[1] = np.nan
        np.testing.assert_array_equal(answer([True, False], np.ones(shape, np.float32)), expected)


class SampledMoments(tfp_bnn.likelihoods.Likelihood):
    """Its moments are those of sampled targets, which depend on the other rows of a batch."""

    def distribution(self, outputs, weights):
        return tfd.Independent(tfd.LogitNormal(outputs, 1.0), reinterpreted_batch_ndims=1)


class SampledVariance(SampledMoments):
    def mean(self, outputs, weights=None):
        return tf.sigmoid(outputs)


@pytest.mark.usefixtures("registrations_undone")
def test_what_depends_on_other_rows_is_never_exported():
    tfp_bnn.likelihoods.LIKELIHOODS.register("sampled_variance")(SampledVariance)
    model = network(SampledVariance(), 1)
    answer = served(model)["serving_default"](X)
    assert_answers(answer, model.posterior_predictive(X, DRAWS), {"mean", "epistemic", "lower", "upper"})


@pytest.mark.usefixtures("registrations_undone")
def test_a_mean_that_depends_on_other_rows_is_refused():
    tfp_bnn.likelihoods.LIKELIHOODS.register("sampled_moments")(SampledMoments)
    with pytest.raises(ValueError, match=r"SampledMoments.*cannot be exported: its mean is not made of"):
        served(network(SampledMoments(), 1))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_row_that_is_not_finite_is_answered_with_nan_whatever_the_network_makes_of_it(value):
    """`MaxPooling2D` drops NaN, or leaves the last column of an odd number out."""
    image, row = keras.Input((3, 3, 1), name="image"), keras.Input((4,), name="row")
    y = keras.layers.Flatten()(keras.layers.MaxPooling2D(2)(image))
    model = tfp_bnn.VariationalModel([image, row], DenseFlipout(3)(keras.layers.Concatenate()([y, row])), seed=0)
    images = np.random.default_rng(1).normal(size=(ROWS, 3, 3, 1)).astype(np.float32)
    for name, function in served(model).items():
        seed = (5,) if name in ("predict", "draws") else ()
        expected = keras.tree.map_structure(np.array, function([images, X], *seed))
        damaged = images.copy()
        damaged[2, 2, 2, 0] = value
        rows = X.copy()
        rows[4, 0] = value
        for answer, whole in zip(*map(keras.tree.flatten, (function([damaged, rows], *seed), expected)), strict=True):
            assert np.isnan(answer[2]).all(), name
            assert np.isnan(answer[4]).all(), name
            np.testing.assert_array_equal(np.delete(answer, [2, 4], 0), np.delete(whole, [2, 4], 0), err_msg=name)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"num_samples": 0}, "`num_samples` must be an integer >= 1"),
        ({"seed": 0.5}, "`seed` must be an integer"),
        ({"level": 1.0}, "`level` must be a number between 0 and 1"),
        ({"input_signature": [keras.InputSpec(shape=(None, 4))]}, "Expected a shape and a dtype for each input"),
    ],
)
def test_bad_arguments_are_refused(argument, message):
    with pytest.raises(ValueError, match=message):
        served_functions(network(), **argument)


def test_weights_that_are_not_finite_are_refused():
    model = network()
    model.variational_layers[0].weights[0].assign(np.full((4, 3), np.nan))
    with pytest.raises(ValueError, match="NaN or infinite"):
        served(model)


class InPython(keras.layers.Layer):
    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, inputs):
        return tf.ensure_shape(tf.py_function(lambda x: x, [inputs], tf.float32), inputs.shape)


class WithoutGraph(keras.layers.Layer):
    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, inputs):
        return inputs if inputs.numpy().any() else -inputs


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (InPython(name="in_python"), "it calls Python functions.*in_python"),
        (WithoutGraph(name="eager_only"), "its call fails as a graph.*WithoutGraph"),
    ],
)
def test_a_layer_that_only_runs_in_python_is_named(layer, message):
    model = tfp_bnn.VariationalSequential([keras.Input((4,)), layer, DenseFlipout(3)], seed=0)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        served(model)


def laplace(network):
    return tfp_bnn.inference.laplace(network, X, X[:, :2], prior_precision=1.0)


def mean_field(network):
    """Every draw has its own noise."""
    prior = {"name": "normal", "scale": 1.0}
    return tfp_bnn.inference.mean_field(network, X, X[:, :2], num_steps=1, plain_prior=prior, verbose=0)


@pytest.mark.slow
@pytest.mark.parametrize(("find", "draws"), [(laplace, DRAWS), (mean_field, DRAWS), (mean_field, 1)])
def test_a_posterior_beside_its_network_takes_a_seed_too(find, draws):
    x = keras.Input((4,))
    y = DenseReparameterization(2, kernel_posterior="delta")(x)
    network = tfp_bnn.VariationalModel(x, y, likelihood="normal", seed=0)
    network.num_examples = ROWS
    model = find(network)
    functions, _ = served_functions(model, num_samples=draws)
    assert_answers(functions["predict"](X, 4), model.posterior_predictive(X, draws, seed=4))
    np.testing.assert_allclose(functions["mean"](X)["mean"], model.plug_in_predictive(X).mean(), **TOLERANCE)

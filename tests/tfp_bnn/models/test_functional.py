"""The model classes: how they train, what they reject, where their noise comes from."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_bnn
from tfp_bnn.core.noise import Noise, noise_scope
from tfp_bnn.layers import DenseFlipout, DenseReparameterization

from .networks import KINDS, N, Net, X, Y, functional, one_layer, pipeline, sequential

WARMUP = {"name": "linear_warmup", "steps": 7}


@pytest.fixture(autouse=True)
def _global_seed():
    keras.utils.set_random_seed(0)


def lowest(y_true, y_pred):
    return tf.reduce_min(y_pred)


def highest(y_true, y_pred):
    return tf.reduce_max(y_pred)


# === Training ===


@pytest.mark.parametrize(
    "kind", [functional, *(pytest.param(kind, marks=pytest.mark.slow) for kind in (sequential, Net))]
)
@pytest.mark.slow
def test_every_kind_of_model_trains(kind):
    model = kind(likelihood="categorical", seed=0)
    model.compile(keras.optimizers.Adam(0.1), metrics=["accuracy", lowest, highest])
    history = model.fit(X, Y, batch_size=32, epochs=12, verbose=0).history
    assert set(history) == {"loss", "nll", "kl", "elbo", "beta", "accuracy", "lowest", "highest"}
    assert np.isfinite(list(history.values())).all()
    assert history["loss"][-1] < 0.8 * history["loss"][0]
    assert history["accuracy"][-1] > history["accuracy"][0] + 0.1
    # Metrics receive probabilities.
    assert min(history["lowest"]) >= 0.0
    assert 0.5 < max(history["highest"]) <= 1.0
    predicted = model.posterior_predictive(X, num_samples=20).mean()
    assert np.mean(predicted.argmax(axis=1) == Y) > 0.75
    if kind is functional:
        logs = model.evaluate(X, Y, return_dict=True, verbose=0)
        assert set(logs) == set(history)
        # Under one draw of the weights.
        assert logs["accuracy"] > 0.6


def test_metrics_of_binary_classification_receive_probabilities():
    # Logits of 5 or more: as probabilities they are all close to 1.
    layer = DenseReparameterization(1, kernel_initializer="zeros", bias_initializer=keras.initializers.Constant(5.0))
    model = one_layer(layer, likelihood="bernoulli", seed=0)
    model.compile(keras.optimizers.SGD(0.0), metrics=["AUC", "binary_accuracy", lowest, highest])
    labels = (X[:, 0] > 0).astype(np.float32)
    logs = model.fit(X, labels[:, None], verbose=0).history
    assert 0.9 < logs["lowest"][0] <= logs["highest"][0] < 1.0
    assert logs["binary_accuracy"][0] == pytest.approx(labels.mean(), abs=1e-6)
    assert 0.0 <= logs["AUC"][0] <= 1.0


def test_metrics_of_regression_receive_means():
    posterior = {"name": "mean_field_normal", "initial_scale": 1e-5}
    layer = DenseReparameterization(2, kernel_posterior=posterior)
    model = one_layer(layer, likelihood={"name": "normal", "scale": "per_example"}, seed=0)
    model.compile(keras.optimizers.SGD(0.0), metrics=["mae"])
    targets = X @ np.array([1.0, -2.0, 0.5, 0.0], np.float32)
    mean = X @ np.asarray(layer.kernel)[:, :1]
    # Two outputs, a mean and a scale, but one target.
    expected = np.abs(mean[:, 0] - targets).mean()
    model.num_examples = N
    logs = model.evaluate(X, targets[:, None], return_dict=True, verbose=0)
    assert logs["mae"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
def test_regression_learns_its_scale():
    rng = np.random.default_rng(1)
    x = rng.uniform(-1, 1, (400, 1)).astype(np.float32)
    y = 3.0 * x + rng.normal(0.0, 0.2, (400, 1)).astype(np.float32)
    model = tfp_bnn.VariationalSequential([keras.Input((1,)), DenseFlipout(1)], likelihood="normal", seed=0)
    model.compile(keras.optimizers.Adam(0.1), metrics=["mae"])
    history = model.fit(x, y, batch_size=20, epochs=12, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert model.likelihood.parameters(model.likelihood_weights)["scale"] == pytest.approx(0.2, abs=0.03)
    # The mean absolute value of N(0, 0.2^2) is 0.16.
    assert history["mae"][-1] == pytest.approx(0.16, abs=0.03)


@pytest.mark.slow
def test_mixed_precision_trains(request):
    policy = keras.config.dtype_policy()
    request.addfinalizer(lambda: keras.config.set_dtype_policy(policy))
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = one_layer(DenseFlipout(3), seed=0)
    model.compile(keras.optimizers.Adam(0.05), metrics=["accuracy"])
    history = model.fit(X, Y, batch_size=32, epochs=5, verbose=0).history
    assert np.isfinite(list(history.values())).all()
    assert history["loss"][-1] < history["loss"][0]
    assert {variable.dtype for variable in model.variables if "kernel" in variable.path} == {"float32"}
    assert model.kl().dtype == tf.float32
    assert model(X).dtype == tf.bfloat16
    predictive = model.posterior_predictive(X, num_samples=3)
    assert predictive.mean().dtype == np.float32
    np.testing.assert_allclose(predictive.mean().sum(axis=1), 1.0, rtol=1e-5)


@pytest.mark.slow
def test_nested_layers_are_found_once():
    shared = DenseFlipout(4, name="shared")
    inner = keras.Sequential([keras.Input((4,)), shared, Net(units=4, name="net")], name="inner")
    x = keras.Input((4,))
    h = inner(shared(x))
    model = tfp_bnn.VariationalModel(x, functional()(keras.layers.Add()([h, inner(h)])), seed=0)
    # In the order of the network, each where it is met first.
    assert [layer.units for layer in model.variational_layers] == [4, 8, 4, 8, 3]
    assert model.variational_layers[0] is shared
    assert len({id(layer) for layer in model.variational_layers}) == 5
    expected = sum(float(layer.kl()) for layer in model.variational_layers)
    assert float(model.kl()) == pytest.approx(expected, rel=1e-6)
    model.compile(keras.optimizers.Adam(0.01), run_eagerly=True)
    model.num_examples = N
    logs = model.train_on_batch(X, Y, return_dict=True)
    assert logs["loss"] - logs["nll"] == pytest.approx(logs["kl"] / N, rel=1e-4)
    # All take their noise from the outer model.
    first, second = (model.posterior_predictive(X[:3], 2, seed=1).samples for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_stack_can_grow_and_shrink():
    model = sequential(seed=0)
    assert model.posterior_predictive(X, 2).samples.shape == (2, N, 3)
    model.add(keras.layers.Dense(5))
    assert model.output_shape == (None, 5)
    assert model.posterior_predictive(X, 2).samples.shape == (2, N, 5)
    assert isinstance(model.pop(), keras.layers.Dense)
    assert model.posterior_predictive(X, 2).samples.shape == (2, N, 3)
    assert model.plug_in_predictive(X).samples.shape == (1, N, 3)


def test_a_shared_scale_goes_with_the_last_layer_that_has_it():
    prior = {"name": "normal", "hyperprior": "half_cauchy", "shared": "s"}
    model = sequential(seed=0)
    before, variables = set(model.kl_by_layer()), len(model.variables)
    model.add(DenseFlipout(2, kernel_prior=prior, name="top"))
    assert set(model.kl_by_layer()) == before | {"top", "prior/s"}
    top = model.pop()
    assert (set(model.kl_by_layer()), len(model.variables)) == (before, variables)
    model.add(top)
    assert set(model.kl_by_layer()) == before | {"top", "prior/s"}


# === Noise ===


@pytest.fixture(scope="module")
def trained():
    """A compiled model that is set back to its start by `load_weights(start)`, noise included."""
    keras.utils.set_random_seed(3)
    model = one_layer(DenseFlipout(3, bias_posterior="mean_field_normal"), seed=5)
    model.compile(keras.optimizers.SGD(0.05))
    return model


@pytest.mark.slow
def test_training_is_reproducible_and_blind_to_validation(trained, tmp_path):
    start = tmp_path / "start.weights.h5"
    trained.num_examples = N
    trained.save_weights(start)

    def weights(**kwargs):
        trained.load_weights(start)
        history = trained.fit(X, Y, batch_size=40, epochs=2, shuffle=False, verbose=0, **kwargs).history
        return [*trained.get_weights(), *(history[key] for key in ("loss", "nll", "kl", "elbo"))]

    alone = weights()
    validations = [{}, {"validation_data": (X[:50], Y[:50])}, {"validation_data": pipeline(X, Y), "validation_freq": 2}]
    for kwargs in validations:
        for array, same in zip(weights(**kwargs), alone, strict=True):
            np.testing.assert_array_equal(array, same)
    trained.load_weights(start)
    trained.evaluate(X, Y, verbose=0)
    trained.predict(X, verbose=0)
    trained.posterior_predictive(X, 2)
    trained(X)
    trained.kl()
    history = trained.fit(X, Y, batch_size=40, epochs=2, shuffle=False, verbose=0).history
    assert history["loss"] == alone[-4]


def test_the_seed_determines_the_weights():
    final = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(0)
        model = functional(seed=seed)
        model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
        model.num_examples = N
        for _ in range(2):
            model.train_on_batch(X, Y)
        final.append(np.concatenate([np.ravel(array) for array in model.get_weights()]))
    np.testing.assert_array_equal(final[0], final[1])
    assert np.abs(final[0] - final[2]).max() > 1e-4


def test_without_a_seed_the_global_one_counts():
    draws = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        model = one_layer(DenseReparameterization(3, kernel_initializer="zeros"))
        draws.append(model(X).numpy())
    np.testing.assert_array_equal(draws[0], draws[1])
    assert np.abs(draws[0] - draws[2]).max() > 1e-3


@pytest.mark.parametrize("seed", [None, 7])
@pytest.mark.parametrize("training", [False, True])
def test_layers_of_the_same_shape_and_seed_draw_different_noise(seed, training):
    x = keras.Input((4,))
    layers = [
        DenseReparameterization(3, seed=seed, use_bias=False, kernel_initializer="zeros", name=name) for name in "ab"
    ]
    model = tfp_bnn.VariationalModel(x, keras.layers.Concatenate()([layer(x) for layer in layers]), seed=0)
    units = np.eye(4, dtype=np.float32)
    for outputs in (model(units, training=training), model.posterior_predictive(units, 1).samples[0]):
        first, second = np.split(np.asarray(outputs), 2, axis=1)
        assert np.abs(first - second).min() > 1e-6


def test_the_seed_of_a_layer_is_of_no_account_in_a_model():
    # It is for layers outside of a variational model, which brings its own.
    draws = []
    for layer_seed, seed in ((None, 0), (1, 0), (2, 0), (2, 1)):
        model = one_layer(DenseReparameterization(3, seed=layer_seed, kernel_initializer="zeros"), seed=seed)
        draws.append((model(X).numpy().tobytes(), model.posterior_predictive(X, 1, seed=seed).samples.tobytes()))
    assert draws[0] == draws[1] == draws[2]
    assert draws[3][0] != draws[0][0]
    assert draws[3][1] != draws[0][1]


@pytest.mark.parametrize("layer_class", [DenseFlipout, DenseReparameterization])
def test_one_draw_serves_a_batch_and_the_next_batch_has_another(layer_class):
    model = one_layer(layer_class(3, kernel_initializer="zeros"), seed=0)
    same_rows = np.tile(X[:1], (8, 1))
    by_batch = model.predict(same_rows, batch_size=4, verbose=0).reshape(2, 4, 3)
    for batch in by_batch:
        np.testing.assert_allclose(batch, np.tile(batch[:1], (4, 1)), rtol=1e-6)
    assert np.abs(by_batch[0, 0] - by_batch[1, 0]).max() > 1e-3
    again = model.predict(same_rows, batch_size=4, verbose=0).reshape(2, 4, 3)
    assert np.abs(by_batch - again).max() > 1e-3
    calls = {model(same_rows).numpy().tobytes() for _ in range(3)}
    assert len(calls) == 3


def test_evaluation_changes_between_calls():
    model = one_layer(DenseReparameterization(3), seed=0, num_examples=N)
    model.compile("sgd", run_eagerly=True)
    losses = {model.evaluate(X, Y, batch_size=N, return_dict=True, verbose=0)["nll"] for _ in range(3)}
    assert len(losses) == 3


def test_the_plug_in_prediction_is_that_of_the_means():
    model = functional(seed=0)
    hidden, top = model.variational_layers
    logits = np.maximum(X @ np.asarray(hidden.kernel), 0.0) @ np.asarray(top.kernel)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    predictive = model.plug_in_predictive(X)
    assert predictive.num_samples == 1
    np.testing.assert_allclose(predictive.mean(), expected, atol=1e-6)
    np.testing.assert_array_equal(model.plug_in_predictive(X).mean(), predictive.mean())
    np.testing.assert_allclose(model.plug_in_predictive(X, batch_size=7).mean(), predictive.mean(), atol=1e-6)
    assert predictive.epistemic().max() == pytest.approx(0.0, abs=1e-6)


def test_layers_in_a_call_share_the_noise_that_is_given():
    model = functional(seed=0)
    noise = Noise(tf.constant([4, 2], tf.int64))
    np.testing.assert_array_equal(model.call_with_noise(X, noise), model.call_with_noise(X, noise))
    # A scope that is already open is not replaced.
    with noise_scope({id(layer): noise for layer in model.variational_layers}):
        first, second = model(X).numpy(), model(X).numpy()
    np.testing.assert_array_equal(first, second)


# === Cloning ===


@pytest.mark.parametrize("kind", KINDS)
def test_a_clone_keeps_what_the_model_is(kind):
    likelihood = {"name": "normal", "scale": "learned", "initial_scale": 0.3}
    model = kind(likelihood=likelihood, beta_schedule=WARMUP, seed=11, name="original")
    model.calibration = tfp_bnn.calibration.Scale(1.5)
    model.class_names, model.target_units = ["a", "b"], ("kg",)
    model.inputs_expected = tfp_bnn.ExpectedInputs.of(X)
    clone = keras.models.clone_model(model)
    assert type(clone) is type(model)
    assert clone.name == "original"
    assert clone.likelihood == model.likelihood == tfp_bnn.likelihoods.LIKELIHOODS.get(likelihood)
    assert clone.beta_schedule == model.beta_schedule == tfp_bnn.schedules.SCHEDULES.get(WARMUP)
    assert clone.seed == 11
    assert clone.calibration == tfp_bnn.calibration.Scale(1.5)
    assert (clone.class_names, clone.target_units) == (("a", "b"), ("kg",))
    assert clone.inputs_expected == model.inputs_expected
    assert clone.get_config() == model.get_config()
    for built in (model, clone):
        built(X[:1])
    assert [variable.shape for variable in clone.variables] == [variable.shape for variable in model.variables]
    ours, theirs = ({id(variable) for variable in built.variables} for built in (model, clone))
    assert not ours & theirs
    assert {type(layer) for layer in clone.variational_layers} == {DenseFlipout, DenseReparameterization}


@pytest.mark.parametrize("found", ["0 to 255", [0.0, 255.0], {"low": [0.0]}, {}])
def test_expected_inputs_of_another_form_are_refused_when_the_model_is_made(found):
    with pytest.raises(ValueError, match=r"^Expected inputs: .*'low', 'high', 'mean'"):
        functional(inputs_expected=found)


def test_the_config_is_json():
    for kind in KINDS:
        json.dumps(kind(likelihood="normal", beta_schedule=WARMUP, calibration="scale").get_config())
        assert kind().get_config()["calibration"] is None

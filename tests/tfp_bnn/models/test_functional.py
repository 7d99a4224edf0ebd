"""The model classes: how they train, what they refuse, where their noise comes from."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_bnn
from tfp_bnn.core.noise import Noise, noise_scope
from tfp_bnn.layers import Convolution2DReparameterization, DenseFlipout, DenseReparameterization

N = 96
X = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 0)
WARMUP = {"name": "linear_warmup", "steps": 7}


@pytest.fixture(autouse=True)
def _global_seed():
    keras.utils.set_random_seed(0)


@keras.saving.register_keras_serializable(package="test_models")
class Net(tfp_bnn.VariationalMixin, keras.Model):
    """A subclass, whose inputs and outputs are known once it is called."""

    def __init__(self, units=3, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.hidden = DenseFlipout(8, activation="relu")
        self.top = DenseReparameterization(units)

    def call(self, inputs, training=None):
        return self.top(self.hidden(inputs, training=training), training=training)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def functional(units=3, **kwargs):
    x = keras.Input((4,))
    h = DenseFlipout(8, activation="relu")(x)
    return tfp_bnn.VariationalModel(x, DenseReparameterization(units)(h), **kwargs)


def sequential(units=3, **kwargs):
    layers = [DenseFlipout(8, activation="relu"), DenseReparameterization(units)]
    return tfp_bnn.VariationalSequential([keras.Input((4,)), *layers], **kwargs)


def sequential_without_input(units=3, **kwargs):
    layers = [DenseFlipout(8, activation="relu"), DenseReparameterization(units)]
    return tfp_bnn.VariationalSequential(layers, **kwargs)


KINDS = [functional, sequential, sequential_without_input, Net]


def one_layer(layer, **kwargs):
    return tfp_bnn.VariationalSequential([keras.Input((4,)), layer], **kwargs)


def lowest(y_true, y_pred):
    return tf.reduce_min(y_pred)


def highest(y_true, y_pred):
    return tf.reduce_max(y_pred)


def pipeline(x, y, batch_size=32):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size)


# === Training ===


@pytest.mark.parametrize("kind", [functional, *(pytest.param(kind, marks=pytest.mark.slow) for kind in (sequential, Net))])
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
    # All of them take their noise from the outer model.
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


# === Noise ===


@pytest.fixture(scope="module")
def trained():
    """A compiled model that is set back to its start by `load_weights(start)`, noise included."""
    keras.utils.set_random_seed(3)
    model = one_layer(DenseFlipout(3, bias_posterior="mean_field_normal"), seed=5)
    model.compile(keras.optimizers.SGD(0.05))
    return model


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
    clone = keras.models.clone_model(model)
    assert type(clone) is type(model)
    assert clone.name == "original"
    assert clone.likelihood == model.likelihood == tfp_bnn.likelihoods.LIKELIHOODS.get(likelihood)
    assert clone.beta_schedule == model.beta_schedule == tfp_bnn.schedules.SCHEDULES.get(WARMUP)
    assert clone.seed == 11
    assert clone.calibration == tfp_bnn.calibration.Scale(1.5)
    assert clone.get_config() == model.get_config()
    for built in (model, clone):
        built(X[:1])
    assert [variable.shape for variable in clone.variables] == [variable.shape for variable in model.variables]
    ours, theirs = ({id(variable) for variable in built.variables} for built in (model, clone))
    assert not ours & theirs
    assert {type(layer) for layer in clone.variational_layers} == {DenseFlipout, DenseReparameterization}


def test_the_config_is_json():
    for kind in KINDS:
        json.dumps(kind(likelihood="normal", beta_schedule=WARMUP, calibration="scale").get_config())
        assert kind().get_config()["calibration"] is None


# === Refusals ===


class TwoOutputs(tfp_bnn.VariationalMixin, keras.Model):
    def __init__(self, as_dict=False, **kwargs):
        super().__init__(**kwargs)
        self.dense = DenseFlipout(2)
        self.as_dict = as_dict

    def call(self, inputs, training=None):
        outputs = self.dense(inputs, training=training)
        return {"a": outputs, "b": outputs} if self.as_dict else (outputs, outputs)


class Wrapping(tfp_bnn.VariationalMixin, keras.Model):
    def __init__(self, wrap, **kwargs):
        super().__init__(**kwargs)
        self.dense = DenseFlipout(3)
        self.wrap = wrap

    def call(self, inputs, training=None):
        return self.wrap(self.dense(inputs, training=training))


@pytest.mark.parametrize("metrics", [None, ["accuracy"]])
@pytest.mark.parametrize("as_dict", [True, False])
def test_several_outputs_are_refused(metrics, as_dict):
    x = keras.Input((4,))
    with pytest.raises(ValueError, match="The model has 2 outputs, but one likelihood describes one"):
        tfp_bnn.VariationalModel(x, [DenseFlipout(2)(x), DenseFlipout(3)(x)])
    model = TwoOutputs(as_dict=as_dict)
    model.compile("adam", metrics=metrics)
    with pytest.raises(ValueError, match="The model has 2 outputs, but one likelihood describes one"):
        model.fit(X, Y, verbose=0)


def test_one_output_in_a_list_is_one_output():
    x = keras.Input((4,))
    model = tfp_bnn.VariationalModel([x], [DenseFlipout(3)(x)], seed=0)
    model.compile("adam", run_eagerly=True)
    assert np.isfinite(model.fit(X, Y, verbose=0).history["loss"]).all()
    assert model.posterior_predictive(X, 2).mean().shape == (N, 3)


def test_one_output_in_a_dict_is_told_so():
    x = keras.Input((4,))
    outputs = DenseFlipout(3)(x)
    message = "The output of the model is a tensor in a dict, but a likelihood describes the tensor itself"
    with pytest.raises(ValueError, match=message):
        tfp_bnn.VariationalModel(x, {"logits": outputs})
    with pytest.raises(ValueError, match="The model has 2 outputs, but one likelihood describes one"):
        tfp_bnn.VariationalModel(x, {"a": outputs, "b": DenseFlipout(3)(x)})
    for wrap, kind in ((lambda tensor: {"logits": tensor}, "dict"), (lambda tensor: [tensor], "list")):
        model = Wrapping(wrap)
        model.compile("adam", run_eagerly=True)
        model.num_examples = N
        for use in (model.fit, model.evaluate):
            with pytest.raises(ValueError, match=f"is a tensor in a {kind}, but.*Give the tensor alone"):
                use(X, Y, verbose=0)
        for predict in (model.posterior_predictive, model.plug_in_predictive):
            with pytest.raises(ValueError, match=f"is a tensor in a {kind}, but"):
                predict(X)


def test_predictions_of_several_outputs_are_refused():
    for as_dict in (True, False):
        with pytest.raises(ValueError, match="The model has 2 outputs, but one likelihood describes one"):
            TwoOutputs(as_dict=as_dict).posterior_predictive(X, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_is_refused(kind):
    model = kind()
    model.compile("adam", loss="mse")
    with pytest.raises(ValueError, match=r"compiled with loss='mse'.*Categorical.*Compile without `loss`"):
        model.fit(X, Y, verbose=0)
    with pytest.raises(ValueError, match=r"compiled with loss='mse'.*Compile without `loss`"):
        model.evaluate(X, Y, verbose=0)
    with pytest.raises(ValueError, match="compiled with loss='mse'"):
        model.evaluate(pipeline(X, Y), verbose=0)
    model.num_examples = N
    for use in (model.train_on_batch, model.test_on_batch):
        with pytest.raises(ValueError, match="compiled with loss='mse'"):
            use(X, Y)


def test_a_layer_with_its_own_kl_weight_is_refused():
    message = r"The layer 'weighted' has kl_weight=0.01.*Remove `kl_weight`"
    x = keras.Input((4,))
    for build in (
        lambda layer: tfp_bnn.VariationalModel(x, layer(x)),
        lambda layer: tfp_bnn.VariationalModel(x, keras.Sequential([keras.Input((4,)), layer])(x)),
        lambda layer: tfp_bnn.VariationalSequential([layer]),
    ):
        with pytest.raises(ValueError, match=message):
            build(DenseFlipout(3, kl_weight=0.01, name="weighted"))
    # A subclass and a growing stack are complete when they are fitted.
    subclass = Net()
    subclass.top = DenseFlipout(3, kl_weight=0.01, name="weighted")
    stack = tfp_bnn.VariationalSequential([keras.Input((4,))])
    stack.add(DenseFlipout(3, kl_weight=0.01, name="weighted"))
    for model in (subclass, stack):
        model.compile("adam")
        with pytest.raises(ValueError, match=message):
            model.fit(X, Y, verbose=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"likelihood": "categorial"}, r"Unknown likelihood 'categorial'\. Did you mean 'categorical'\?"),
        ({"likelihood": {"name": "normal", "scal": 1.0}}, "Did you mean 'scale'"),
        ({"likelihood": {"name": "normal", "scale": -1.0}}, "must be a number > 0"),
        ({"beta_schedule": "linear_warm"}, "Did you mean 'linear_warmup'"),
        ({"beta_schedule": {"name": "constant", "beta": -1.0}}, "finite number >= 0"),
        ({"num_examples": 0}, "must be an integer >= 1"),
        ({"seed": 1.5}, "`seed` must be an integer or None"),
        ({"seed": True}, "`seed` must be an integer or None"),
        ({"calibration": "temperatur"}, "Did you mean 'temperature'"),
        ({"calibration": {"name": "temperature", "temperature": 0.0}}, "must be a number from 0.01 to 100"),
        ({"calibration": "scale"}, "does not fit the likelihood Categorical"),
    ],
)
@pytest.mark.parametrize("kind", [functional, Net])
def test_bad_arguments_are_refused(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        kind(**arguments)
    with pytest.raises(TypeError, match="Cannot make a likelihood from 3"):
        kind(likelihood=3)


NAN = np.where(np.arange(N)[:, None] == 70, np.float32(np.nan), X)
BAD_ARRAYS = [
    (X, np.where(np.arange(N) == 5, 3, Y), r"expected integers from 0 to 2.*1 of 96 labels are not.*row 5"),
    (X, Y - 1, "Labels out of range"),
    (NAN, Y, r"`x` has 4 values that are NaN or infinite.*index \(70, 0\)"),
    (X, np.where(np.arange(N) == 9, np.inf, Y), r"`y` has 1 values"),
    (X[:, :3], Y, r"`x` has the shape \(96, 3\), but the model takes \('batch', 4\)"),
    (X[None], Y[None], "but the model takes"),
    (X[:0], Y[:0], "`x` is empty"),
    (X, None, "`y` is missing"),
    (X, Y[:-1], r"`x` has 96 rows, but `y` has the shape \(95,\)"),
    (X, np.zeros((N, 4)), "do not fit a model with 3 outputs"),
    (X, np.ones((N, 3)), "sum to 1"),
]


def recompiled(compiled):
    """A model that was trained for a step; the learned prior scale has a gradient from the KL alone."""
    prior = {"name": "normal", "empirical_bayes": True}
    model = one_layer(DenseFlipout(3, kernel_prior=prior), seed=0)
    model.compile(keras.optimizers.Adam(0.1), run_eagerly=not compiled)
    model.fit(X, Y, batch_size=N, verbose=0)
    return model


@pytest.fixture(scope="module", params=[True, False], ids=["compiled", "eager"])
def careful(request):
    keras.utils.set_random_seed(0)
    return recompiled(request.param)


def test_bad_arrays_are_refused_before_the_first_step(careful):
    before = [*careful.get_weights(), np.asarray(careful.optimizer.iterations)]
    for x, y, message in BAD_ARRAYS:
        for refusing in (careful.fit, careful.evaluate):
            with pytest.raises(ValueError, match=message):
                refusing(x, y, verbose=0)
        with pytest.raises(ValueError, match=message):
            careful.train_on_batch(x, y)
        with pytest.raises(ValueError, match=message):
            careful.fit(X, Y, validation_data=(x, y), verbose=0)
    with pytest.raises(ValueError, match="`y` is missing"):
        careful.fit(X, Y, validation_data=(X,), verbose=0)
    for array, same in zip([*careful.get_weights(), careful.optimizer.iterations], before, strict=True):
        np.testing.assert_array_equal(array, same)


BAD_BATCHES = {
    "nan": (NAN, Y, "^The inputs of a batch have NaN or infinite values"),
    "nan target": (X, np.where(np.arange(N) == 9, np.nan, Y), "^The targets of a batch have NaN or infinite values"),
    "label": (X, np.where(np.arange(N) == 5, 3, Y), "^Labels out of range: expected integers from 0 to 2.*to 3"),
    "negative": (X, Y - 1, "^Labels out of range.*from -1 to 1"),
}


@pytest.mark.parametrize("case", BAD_BATCHES)
def test_bad_batches_of_a_pipeline_leave_the_weights_as_they_are(careful, case):
    x, y, message = BAD_BATCHES[case]

    def state():
        # Without the iteration and the learning rate.
        return [*careful.get_weights(), *(variable.numpy() for variable in careful.optimizer.variables[2:])]

    before = state()
    with pytest.raises(ValueError, match=message):
        careful.evaluate(pipeline(x, y, N), verbose=0)
    # A step that now and then gets through would show.
    for _ in range(5):
        with pytest.raises(ValueError, match=message):
            careful.fit(pipeline(x, y, N), verbose=0)
    for array, same in zip(state(), before, strict=True):
        np.testing.assert_array_equal(array, same)
    # And it trains on with sound data.
    assert np.isfinite(careful.fit(pipeline(X, Y, N), verbose=0).history["loss"]).all()


def test_pipelines_without_examples_or_targets_are_refused(careful):
    with pytest.raises(ValueError, match="The training set is empty"):
        careful.fit(pipeline(X[:0], Y[:0]), verbose=0)
    with pytest.raises(ValueError, match="Targets are missing"):
        careful.fit(tf.data.Dataset.from_tensor_slices(X).batch(N), verbose=0)


def test_a_subclass_finds_bad_labels_in_its_first_step():
    # Before it is built, it does not know its number of outputs.
    model = Net(seed=0)
    model.compile("adam", run_eagerly=True)
    with pytest.raises(ValueError, match=r"Labels out of range: expected integers from 0 to 2"):
        model.fit(X, Y + 1, verbose=0)
    with pytest.raises(ValueError, match=r"`x` has 4 values"):
        model.fit(NAN, Y, verbose=0)


def test_targets_of_regression_are_not_broadcast():
    model = one_layer(DenseReparameterization(2), likelihood="normal")
    model.compile("adam", run_eagerly=True)
    for targets in (X[:, 0], X[:, :1], X[:, :3]):
        with pytest.raises(ValueError, match=r"expected the shape \(batch, 2\)"):
            model.fit(X, targets, verbose=0)
        with pytest.raises(ValueError, match=r"expected the shape \(batch, 2\)"):
            model.fit(pipeline(X, targets), verbose=0)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [(1, 2), (2, 1)])
def test_one_compiled_model_takes_targets_of_either_rank(ranks):
    # Keras would trace its step again for targets of any rank, which neither likelihoods nor metrics take.
    model = one_layer(DenseReparameterization(1), likelihood="normal", seed=0)
    model.compile(keras.optimizers.SGD(1e-3), metrics=["mae"])
    targets = {1: X[:, 0], 2: X[:, :1]}
    first, second = (targets[rank] for rank in ranks)
    model.fit(X, first, validation_data=(X, second), batch_size=N, verbose=0)
    logs = model.fit(X, second, validation_data=pipeline(X, first), batch_size=N, verbose=0).history
    assert np.isfinite(list(logs.values())).all()
    model.train_on_batch(X, first)
    model.test_on_batch(X, second)
    model.fit(pipeline(X, second, N), verbose=0)
    # And the compiled step stays when the rank does.
    step = model.train_function
    model.fit(X, second, batch_size=N, verbose=0)
    assert model.train_function is step


def test_one_compiled_model_takes_labels_of_either_form():
    model = one_layer(DenseReparameterization(3), seed=0)
    model.compile(keras.optimizers.SGD(1e-3))
    for labels in (Y, np.eye(3)[Y], Y[:, None]):
        for x, y in ((X, labels.astype(np.float32)), (pipeline(X, labels, N), None)):
            assert np.isfinite(
                model.fit(x, y, batch_size=N if y is not None else None, verbose=0).history["loss"]
            ).all()


def test_images_of_another_size_are_refused():
    layers = [keras.Input((6, 6, 1)), Convolution2DReparameterization(2, 3), keras.layers.Flatten(), DenseFlipout(3)]
    model = tfp_bnn.VariationalSequential(layers)
    model.compile("adam")
    for shape in ((N, 6, 6), (N, 5, 6, 1), (N, 6, 6, 3)):
        with pytest.raises(ValueError, match=r"but the model takes \('batch', 6, 6, 1\)"):
            model.fit(np.zeros(shape), Y, verbose=0)

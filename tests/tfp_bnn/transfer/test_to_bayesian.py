"""A deterministic network becomes a Bayesian one of the same function, with MOPED's prior and posterior."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import tfp_bnn
from tfp_bnn import layers as ours
from tfp_bnn.core.noise import NoNoise
from tfp_bnn.transfer.to_bayesian import to_bayesian
from tfp_bnn.transfer.twins import TWINS

from .deterministic import L, images, mlp, nested_models, plug_in, randomized, stack


def image_net():
    return stack(
        keras.Input((8, 8, 2)),
        L.Conv2D(4, 3, padding="same", groups=2, use_bias=False, name="conv"),
        L.BatchNormalization(),
        L.ReLU(6.0),
        L.DepthwiseConv2D(3, strides=2, depth_multiplier=2, depthwise_regularizer="l2", name="depthwise"),
        L.SeparableConv2D(4, 2, depth_multiplier=2, name="separable"),
        L.Conv2DTranspose(3, 3, strides=2, name="transposed"),
        L.Dropout(0.5),
        L.GlobalAveragePooling2D(),
        L.Dense(3, activation="softmax", name="head"),
    )


def volume_net():
    layers = (L.Conv3D(2, 2, name="conv"), L.Reshape((18, 3)), L.Conv1D(3, 3, padding="causal", dilation_rate=2))
    return stack(keras.Input((4, 4, 4, 1)), *layers, L.Flatten(), L.Dense(1, activation="sigmoid"))


def shared_layers():
    x = keras.Input((4,))
    twice = L.Dense(4, activation="relu", name="twice")
    h = keras.ops.concatenate([twice(twice(x)), x[:, 1:3]], axis=-1) + 0.5
    return randomized(keras.Model(x, L.Dense(2, activation="softmax", name="head")(h), name="net"))


def nested_model_called_twice():
    # Keras cannot load a model that is nested in two others, as in `nested_models`.
    x, a = keras.Input((4,)), keras.Input((4,))
    inner = keras.Sequential([L.Dense(4, activation="tanh", name="dense"), L.BatchNormalization()], name="inner")
    middle = keras.Model(a, inner(a) + L.Dense(4, name="dense_of_middle")(a), name="middle")
    return randomized(keras.Model(x, L.Dense(2, activation="softmax", name="head")(middle(middle(x))), name="net"))


def several_inputs():
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    h = L.Concatenate()([L.Dense(4, name="of_a")(a), L.Dense(4, name="of_b")(b)])
    return randomized(keras.Model({"a": a, "b": b}, L.Dense(2, activation="softmax")(h), name="net"))


def recurrent():
    return stack(
        keras.Input((5,), dtype="int32"),
        L.Embedding(10, 4, mask_zero=True, name="embedding"),
        L.LSTM(3, return_sequences=True, name="sequences"),
        L.LSTM(3, name="last_state"),
        L.Dense(2, activation="softmax", name="head"),
    )


CASES = {
    "mlp": (mlp, images(4), 2),
    "images": (image_net, images(8, 8, 2), 5),
    "volumes": (volume_net, images(4, 4, 4, 1), 3),
    "shared layers": (shared_layers, images(4), 2),
    "nested models": (nested_models, images(4), 3),
    "nested model called twice": (nested_model_called_twice, images(4), 3),
    "several inputs": (several_inputs, {"a": images(3), "b": images(2)}, 3),
    "recurrent": (recurrent, np.array([[1, 2, 9, 0, 0], [3, 4, 5, 6, 7]]), 4),
}


@pytest.mark.parametrize("name", CASES)
def test_the_function_at_the_posterior_mean_is_the_given_one(name):
    make, x, number = CASES[name]
    net = make()
    model = to_bayesian(net)
    assert isinstance(model, tfp_bnn.VariationalModel)
    assert model.name == "net"
    assert len(model.variational_layers) == number
    np.testing.assert_allclose(plug_in(model, x), net(x), atol=1e-5, rtol=0)
    # A Sequential does not count its input as a layer.
    as_functional = net if hasattr(net, "operations") else keras.Model(net.inputs, net.outputs)
    assert [layer.name for layer in model.layers] == [layer.name for layer in as_functional.layers]


def test_every_twin_is_the_flipout_layer_where_there_is_one():
    found = {cls: twin.__name__ for cls, twin in TWINS.items()}
    by_name = {cls.__name__: found.pop(cls) for cls in list(found) if not found[cls].endswith("Flipout")}
    assert set(by_name) == {
        "Embedding",
        "LayerNormalization",
        "GroupNormalization",
        "FilterResponseNormalization",
    }
    assert all(twin == f"{name}Reparameterization" for name, twin in by_name.items())
    flipout = {name for name in ours.__all__ if name.endswith("Flipout") and not name.startswith(("Conv1", "Conv2"))}
    assert set(found.values()) >= {name for name in flipout if "olution" in name}
    for cls, twin in TWINS.items():
        # They hold the weights of their cell themselves.
        assert issubclass(twin, cls) or cls in (L.LSTM, L.GRU)


@pytest.mark.parametrize("name", CASES)
def test_the_given_model_is_not_changed_and_shares_nothing(name):
    make, x, _ = CASES[name]
    net = make()
    net.compile("adam", "mse")
    before, config = [np.asarray(variable).copy() for variable in net.variables], net.to_json()
    nodes = [(len(layer._inbound_nodes), len(layer._outbound_nodes)) for layer in net.layers]
    outputs = np.asarray(net(x))
    model = to_bayesian(net)
    for weight in model.trainable_variables:
        weight.assign(weight + 1.0)
    assert net.to_json() == config
    assert [(len(layer._inbound_nodes), len(layer._outbound_nodes)) for layer in net.layers] == nodes
    assert net.compiled
    for variable, value in zip(net.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    np.testing.assert_array_equal(net(x), outputs)
    assert not {id(variable) for variable in net.variables} & {id(variable) for variable in model.variables}


def test_prior_and_posterior_are_those_of_moped():
    net = mlp()
    kernel = np.asarray(net.get_layer("hidden").kernel).copy()
    kernel[0, :2] = [0.0, 0.004]
    net.get_layer("hidden").kernel.assign(kernel)
    model = to_bayesian(net, delta=0.2, scale_floor=0.002)
    weight = model.get_layer("hidden").variational_weights["kernel"]
    np.testing.assert_array_equal(weight.prior.mean(), kernel)
    np.testing.assert_array_equal(weight.prior.stddev(), np.ones_like(kernel))
    np.testing.assert_array_equal(weight.mean, kernel)
    scale = np.maximum(0.2 * np.abs(kernel), 0.002)
    assert scale[0, 0] == scale[0, 1] == np.float32(0.002)
    np.testing.assert_allclose(weight.posterior.stddev(), scale, rtol=1e-5)
    # The paper's rho = log(exp(delta |w|) - 1), above the floor; ours has the float32 epsilon under the softplus.
    rho = np.log(np.expm1(0.2 * np.abs(kernel.astype(np.float64))), where=kernel != 0, out=np.zeros(kernel.shape))
    ours_rho = np.asarray(next(v for v in weight.variables if "untransformed" in v.name))
    np.testing.assert_allclose(ours_rho[1:], rho[1:], rtol=1e-3)
    s = scale.astype(np.float64)
    kl = (-np.log(s) + s**2 / 2 - 0.5).sum()
    np.testing.assert_allclose(model.get_layer("hidden").kl(), kl, rtol=1e-5)


def test_biases_are_deterministic_and_copied():
    net = mlp()
    head = to_bayesian(net).get_layer("head")
    assert set(head.variational_weights) == {"kernel"}
    np.testing.assert_array_equal(head.bias, net.get_layer("head").bias)


@pytest.mark.parametrize(
    ("prior", "loc", "scale"),
    [
        ("default", 0.0, 1.0),
        ({"name": "normal", "scale": 0.3}, 0.0, 0.3),
        (tfp_bnn.priors.Normal(0.5), 0.0, 0.5),
        ({"name": "informed", "initial_scale": 0.1}, None, 0.1),
    ],
)
def test_another_prior_keeps_the_posterior_of_moped(prior, loc, scale):
    net = mlp()
    weight = to_bayesian(net, prior=prior).get_layer("head").variational_weights["kernel"]
    kernel = np.asarray(net.get_layer("head").kernel)
    np.testing.assert_allclose(weight.prior.mean(), kernel if loc is None else np.full_like(kernel, loc))
    np.testing.assert_allclose(weight.prior.stddev(), np.full_like(kernel, scale))
    np.testing.assert_allclose(weight.posterior.stddev(), np.maximum(0.1 * np.abs(kernel), 1e-3), rtol=1e-5)


def test_a_prior_that_the_layers_share_is_one():
    prior = {"name": "normal", "empirical_bayes": True, "shared": "all"}
    assert list(to_bayesian(mlp(), prior=prior).shared_priors) == ["all"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nested model called twice", "recurrent"])
def test_a_saved_model_has_the_same_prior_and_predictions(name, tmp_path):
    make, x, _ = CASES[name]
    model = to_bayesian(make(), seed=3)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert len(loaded.variational_layers) == len(model.variational_layers)
    for before, after in zip(model.variational_layers, loaded.variational_layers, strict=True):
        for role, weight in before.variational_weights.items():
            parameters = after.variational_weights[role].parameters()
            assert np.abs(parameters["prior_loc"]).min() > 0
            for key, value in weight.parameters().items():
                np.testing.assert_array_equal(parameters[key], value)
    samples = [net.posterior_predictive(x, num_samples=2).samples for net in (model, loaded)]
    np.testing.assert_array_equal(*samples)


@pytest.mark.slow
def test_a_step_of_training_moves_posterior_and_moving_mean_but_not_prior_or_frozen_layers():
    net = mlp()
    net.get_layer("hidden").trainable = False
    model = to_bayesian(net, seed=0)
    hidden, head = model.get_layer("hidden"), model.get_layer("head")
    assert not hidden.trainable
    (normalization,) = [layer for layer in model.layers if isinstance(layer, L.BatchNormalization)]
    np.testing.assert_array_equal(normalization.moving_mean, net.layers[1].moving_mean)
    before = {layer: layer.variational_weights["kernel"].parameters() for layer in (hidden, head)}
    model.compile(keras.optimizers.Adam(0.01))
    history = model.fit(images(4), np.array([0, 1, 2]), verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    after = {layer: layer.variational_weights["kernel"].parameters() for layer in (hidden, head)}
    for key in ("loc", "scale"):
        assert (after[head][key] != before[head][key]).all()
        np.testing.assert_array_equal(after[hidden][key], before[hidden][key])
    np.testing.assert_array_equal(after[head]["prior_loc"], before[head]["prior_loc"])
    assert (np.asarray(normalization.moving_mean) != np.asarray(net.layers[1].moving_mean)).all()


def test_a_frozen_model_stays_frozen_layer_by_layer():
    net = nested_model_called_twice()
    net.trainable = False
    net.get_layer("head").trainable = True
    assert {variable.path for variable in to_bayesian(net).trainable_variables} == {
        "head/kernel_loc",
        "head/kernel_untransformed_scale",
        "head/bias",
    }


def test_explicit_arguments_of_a_call_are_kept():
    x = keras.Input((4, 3))
    h = L.MultiHeadAttention(2, 3)(L.Dense(3)(x), x, use_causal_mask=True)
    net = randomized(keras.Model(x, L.Dense(2, activation="softmax")(h[:, 1])))
    model, inputs = to_bayesian(net), images(4, 3)
    np.testing.assert_allclose(plug_in(model, inputs), net(inputs), atol=1e-5)
    later = np.concatenate([inputs[:, :2], 0 * inputs[:, 2:]], axis=1)
    np.testing.assert_array_equal(plug_in(model, later), plug_in(model, inputs))


def test_sparse_and_optional_inputs_stay_so():
    x, other = keras.Input((4,), sparse=True), keras.Input((4,), optional=True, name="other")
    model = to_bayesian(keras.Model([x, other], L.Dense(2, activation="softmax")(x)))
    assert model.network.inputs[0].sparse
    assert model.get_layer("other").optional


def test_what_a_layer_keeps_and_what_the_prior_takes_the_place_of():
    options = {"kernel_regularizer": "l2", "bias_regularizer": "l1", "kernel_constraint": "max_norm"}
    net = stack(keras.Input((4,)), L.Dense(2, activation="softmax", activity_regularizer="l2", **options))
    layer = to_bayesian(net).layers[-1]
    assert layer.kernel_regularizer is None
    assert isinstance(layer.bias_regularizer, keras.regularizers.L1)
    assert isinstance(layer.activity_regularizer, keras.regularizers.L2)
    assert isinstance(layer.kernel_constraint, keras.constraints.MaxNorm)


def softmax_layer(x):
    return L.Softmax(name="end")(L.Dense(3)(x))


def activation_layer(x):
    return L.Activation("softmax", dtype="float32", name="end")(L.Dense(3)(x))


def operation(x):
    return keras.ops.softmax(L.Dense(3)(x))


def identity_after(x):
    return L.Activation("linear")(L.Identity()(L.Dense(3, activation="softmax")(x)))


def nested_head(x):
    return keras.Sequential([L.Dense(3), L.Dense(3, activation="softmax")], name="top")(x)


@pytest.mark.parametrize("end", [softmax_layer, activation_layer, operation, identity_after, nested_head])
@pytest.mark.parametrize("layers", [None, ["body"]])
def test_a_softmax_at_the_end_is_taken_off(end, layers):
    x = keras.Input((4,))
    net = randomized(keras.Model(x, end(L.Dense(4, name="body")(x)), name="net"))
    model = to_bayesian(net, layers)
    inputs = images(4)
    assert model.likelihood == tfp_bnn.likelihoods.Categorical()
    logits = np.asarray(model.call_with_noise(inputs, NoNoise()))
    assert logits.min() < 0
    np.testing.assert_allclose(keras.ops.softmax(logits), net(inputs), atol=1e-5)
    np.testing.assert_allclose(model.plug_in_predictive(inputs).mean(), net(inputs), atol=1e-5)


@pytest.mark.parametrize("end", [L.Dense(1, activation="sigmoid"), L.Activation("sigmoid")])
def test_a_sigmoid_at_the_end_makes_a_bernoulli_likelihood(end):
    net = stack(keras.Input((4,)), L.Dense(1), end)
    model = to_bayesian(net)
    assert model.likelihood == tfp_bnn.likelihoods.Bernoulli()
    inputs = images(4)
    np.testing.assert_allclose(model.plug_in_predictive(inputs).mean(), net(inputs), atol=1e-5)


@pytest.mark.parametrize("activation", [None, "sigmoid", "softmax"])
def test_means_of_a_regression_keep_their_activation(activation):
    net = stack(keras.Input((4,)), L.Dense(2, activation=activation))
    model = to_bayesian(net, likelihood="normal")
    inputs = images(4)
    np.testing.assert_allclose(model.plug_in_predictive(inputs).mean(), net(inputs), atol=1e-5)


def test_logits_need_a_likelihood():
    net = stack(keras.Input((4,)), L.Dense(2))
    with pytest.raises(ValueError, match=r"not in softmax or sigmoid.*likelihood='categorical'"):
        to_bayesian(net)
    model = to_bayesian(net, likelihood="categorical")
    np.testing.assert_allclose(model.call_with_noise(images(4) * 0 + 1, NoNoise())[0], net(np.ones((1, 4)))[0], 1e-5)


@pytest.mark.parametrize(
    ("end", "likelihood", "message"),
    [
        (L.Dense(1), "categorical", "at least 2 classes.*has 1 output.*bernoulli"),
        (L.Dense(1, activation="softmax"), None, "at least 2 classes"),
        (
            L.Dense(3, activation="sigmoid"),
            "categorical",
            "ends in the sigmoid of .*, which implies likelihood='bernoulli'",
        ),
        (
            L.Dense(3, activation="softmax"),
            "bernoulli",
            "ends in the softmax of .*, which implies likelihood='categorical'",
        ),
        (L.Dense(3), {"name": "normal", "scale": "per_example"}, "two outputs for each target"),
        (L.Dense(3), "categorial", "Did you mean 'categorical'"),
    ],
)
def test_a_likelihood_that_does_not_fit_the_end_is_refused(end, likelihood, message):
    end = type(end).from_config(end.get_config())
    with pytest.raises(ValueError, match=message):
        to_bayesian(stack(keras.Input((4,)), end), likelihood=likelihood)


def called_twice():
    x = keras.Input((3,))
    end = L.Dense(3, activation="softmax", name="end")
    return keras.Model(x, end(end(x)))


def reshaped():
    return keras.Sequential([keras.Input((4,)), L.Dense(4, activation="softmax", name="end"), L.Reshape((2, 2))])


def other_axis():
    return keras.Sequential([keras.Input((4, 3)), L.Dense(2), L.Softmax(axis=1, name="end")])


@pytest.mark.parametrize(
    ("make", "message"),
    [(called_twice, "called 2 times"), (reshaped, "changes the shape"), (other_axis, "axis is 1")],
)
def test_a_softmax_that_cannot_be_taken_off_is_refused(make, message):
    with pytest.raises(ValueError, match=f"softmax of 'end' cannot be removed.*{message}.*copy the weights"):
        to_bayesian(make())

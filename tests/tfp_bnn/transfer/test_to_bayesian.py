"""A deterministic network becomes a Bayesian one of the same function, with MOPED's prior and posterior."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_bnn
from tfp_bnn import layers as ours
from tfp_bnn.core.noise import Noise, NoNoise
from tfp_bnn.transfer.to_bayesian import TWINS, to_bayesian

L = keras.layers


def images(*shape, rows=3):
    return np.random.default_rng(0).normal(size=(rows, *shape)).astype(np.float32)


def randomized(model):
    """All weights random, so that no moving mean is 0 and no bias is."""
    rng = np.random.default_rng(1)
    for variable in model.weights:
        value = rng.normal(size=variable.shape) / np.sqrt(max(1, np.prod(variable.shape[:-1])))
        variable.assign(np.abs(value) + 0.5 if "variance" in variable.name else value)
    return model


def stack(*layers):
    return randomized(keras.Sequential(layers, name="net"))


def plug_in(model, x):
    """What the likelihood makes of the outputs with all weights at their posterior means."""
    return np.asarray(model.likelihood.mean(model.call_with_noise(x, NoNoise())))


def mlp():
    head = L.Dense(3, activation="softmax", name="head")
    return stack(keras.Input((4,)), L.Dense(5, activation="tanh", name="hidden"), L.BatchNormalization(), head)


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


def nested_models():
    x = keras.Input((4,))
    inner = keras.Sequential([L.Dense(4, activation="tanh", name="dense"), L.BatchNormalization()], name="inner")
    a = keras.Input((4,))
    middle = keras.Model(a, inner(a) + L.Dense(4, name="dense_of_middle")(a), name="middle")
    h = middle(inner(x))
    return randomized(keras.Model(x, L.Dense(2, activation="softmax", name="dense")(middle(h)), name="net"))


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
    assert found.pop(L.Embedding) == "EmbeddingReparameterization"
    assert all(name.endswith("Flipout") for name in found.values())
    flipout = {name for name in ours.__all__ if name.endswith("Flipout") and not name.startswith(("Conv1", "Conv2"))}
    assert set(found.values()) >= {name for name in flipout if "olution" in name}
    for cls, twin in TWINS.items():
        # LSTMFlipout holds the weights of its cell itself.
        assert issubclass(twin, cls) or cls is L.LSTM


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


# === The end of the model ===


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
            "ends in the sigmoid of .*, which goes with likelihood='bernoulli'",
        ),
        (
            L.Dense(3, activation="softmax"),
            "bernoulli",
            "ends in the softmax of .*, which goes with likelihood='categorical'",
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
    with pytest.raises(ValueError, match=f"softmax of 'end' cannot be taken off.*{message}.*copy the weights"):
        to_bayesian(make())


# === Which layers ===


def names_of(model):
    return [layer.name for layer in model.variational_layers]


def test_only_the_named_layers_become_bayesian():
    net = nested_models()
    assert names_of(to_bayesian(net, "last")) == ["dense"]
    assert names_of(to_bayesian(net, ["dense_of_middle"])) == ["dense_of_middle"]
    # One layer, wherever it is named.
    model = to_bayesian(net, ["middle/dense_of_middle", "inner/dense"])
    assert sorted(names_of(model)) == ["dense", "dense_of_middle"]
    assert type(model.get_layer("dense")) is L.Dense
    x = images(4)
    np.testing.assert_allclose(plug_in(model, x), net(x), atol=1e-5)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["heads"], "Unknown layer 'heads'. Did you mean 'head'"),
        (["batch"], "'batch' \\(BatchNormalization\\) has no Bayesian twin.*Dense, Conv1D"),
        (["dropped"], "'dropped' \\(LSTM\\) has no Bayesian twin.*unless with dropout"),
        (["own"], "'own' \\(OwnDense\\) has no Bayesian twin"),
        ("head", r"must be a list of names.*Use \['head'\]"),
        ([], "`layers` is empty"),
    ],
)
def test_layers_that_cannot_be_are_refused(layers, message):
    class OwnDense(L.Dense):
        def call(self, inputs):
            return super().call(inputs) ** 2

    net = keras.Sequential(
        [
            keras.Input((4, 2)),
            L.BatchNormalization(name="batch"),
            L.LSTM(3, dropout=0.1, name="dropped"),
            OwnDense(3, name="own"),
            L.Dense(2, activation="softmax", name="head"),
        ]
    )
    assert names_of(to_bayesian(net)) == ["head"]
    with pytest.raises(ValueError, match=message):
        to_bayesian(net, layers)


def test_a_name_of_several_layers_needs_a_path():
    parts = [keras.Sequential([L.Dense(2, name="twin")], name=name) for name in "ab"]
    net = keras.Sequential([keras.Input((2,)), *parts, L.Softmax()])
    with pytest.raises(ValueError, match=r"Several layers are named 'twin'.*\['a/twin', 'b/twin'\]"):
        to_bayesian(net, ["twin"])
    model = to_bayesian(net, ["b/twin"])
    assert model.variational_layers == [model.get_layer("b").get_layer("twin")]


def test_a_model_in_which_nothing_would_be_bayesian_is_refused():
    net = keras.Sequential([keras.Input((4,)), L.BatchNormalization(name="batch"), L.Softmax(name="end")])
    with pytest.raises(ValueError, match=r"batch \(BatchNormalization\), end \(Softmax\)"):
        to_bayesian(net)


# === Bad input ===


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = L.Dense(2, activation="softmax", name="dense")

    def call(self, inputs):
        return self.dense(inputs)


def test_a_subclassed_model_is_refused_and_the_advice_works():
    net = Subclassed()
    x = images(4)
    outputs = net(x)
    with pytest.raises(ValueError, match=r"subclassed model \(Subclassed\).*keras.Model\(x, model.call\(x\)\)"):
        to_bayesian(net)
    inputs = keras.Input((4,))
    model = to_bayesian(keras.Model(inputs, net.call(inputs)))
    np.testing.assert_allclose(plug_in(model, x), outputs, atol=1e-5)


def test_a_functional_model_with_a_call_of_its_own_is_refused():
    class Doubling(keras.Model):
        def call(self, inputs, training=None, mask=None):
            return 2 * super().call(inputs, training=training, mask=mask)

    x = keras.Input((4,))
    with pytest.raises(ValueError, match=r"subclassed model \(Doubling\)"):
        to_bayesian(Doubling(x, L.Dense(2)(x)))


def test_models_that_are_not_built_or_bayesian_already_or_of_several_outputs_are_refused():
    with pytest.raises(ValueError, match="not built"):
        to_bayesian(keras.Sequential([L.Dense(2, activation="softmax")]))
    model = to_bayesian(mlp())
    with pytest.raises(ValueError, match="is a VariationalModel, and Bayesian already"):
        to_bayesian(model)
    x = keras.Input((4,))
    with pytest.raises(ValueError, match="has 2 outputs"):
        to_bayesian(keras.Model(x, [L.Dense(2)(x), L.Dense(2)(x)]))
    with pytest.raises(TypeError, match="takes a Functional or Sequential Keras 3 model, but got 'net'"):
        to_bayesian("net")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"delta": 0.0}, "`delta` of `to_bayesian` must be a finite number larger than 0, but got 0.0"),
        ({"delta": -0.1}, "got -0.1"),
        ({"delta": np.nan}, "got nan"),
        ({"scale_floor": 0}, "`scale_floor` of `to_bayesian` must be"),
        ({"prior": "mopped"}, "Unknown prior 'mopped'. Did you mean 'moped'"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        to_bayesian(mlp(), **arguments)


def test_a_prior_without_a_kl_is_refused():
    with pytest.raises(TypeError, match="improper"):
        to_bayesian(mlp(), prior="flat")


def test_weights_that_are_not_finite_are_refused_by_name():
    net = mlp()
    net.get_layer("hidden").kernel.assign(np.full((4, 5), np.nan))
    with pytest.raises(ValueError, match="kernel of the layer 'hidden' cannot be a posterior mean"):
        to_bayesian(net)


def test_a_layer_that_its_config_does_not_say_is_refused_by_name():
    net = stack(keras.Input((4,)), L.Lambda(lambda x: x, name="code"), L.Dense(2, activation="softmax"))
    with pytest.raises(ValueError, match="layer 'code' \\(Lambda\\) cannot be copied"):
        to_bayesian(net)


# === Precision, and a real network ===


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float64"])
def test_dtype_policies_are_kept(policy):
    net = stack(
        keras.Input((4,)),
        L.Dense(5, activation="tanh", dtype=policy),
        L.BatchNormalization(dtype=policy),
        L.Dense(3, dtype=policy, activation="softmax"),
    )
    model = to_bayesian(net)
    assert [layer.dtype_policy.name for layer in model.layers[1:]] == [policy] * 3
    assert model.layers[1].variational_weights["kernel"].mean.dtype == "float32"
    x = images(4)
    outputs = keras.ops.cast(net(x), "float32")
    np.testing.assert_allclose(plug_in(model, x), outputs, atol=1e-5 if policy == "float64" else 1e-2)


@pytest.mark.slow
def test_mobilenet_converts_and_matches():
    options = {"weights": None, "input_shape": (32, 32, 3), "classes": 10, "alpha": 0.35}
    keras.utils.set_random_seed(0)
    net = keras.applications.MobileNetV2(**options)
    rng = np.random.default_rng(0)
    for layer in net.layers:
        if isinstance(layer, L.BatchNormalization):
            # With those of a new network, all signals die out on the way and any two such networks agree.
            layer.moving_mean.assign(rng.normal(size=layer.moving_mean.shape) * 0.1)
            layer.moving_variance.assign(np.full(layer.moving_variance.shape, 0.01))
    model = to_bayesian(net)
    x = images(32, 32, 3)
    assert np.ptp(net(x), axis=0).max() > 0.1
    assert {type(layer).__name__ for layer in model.variational_layers} == {
        "Convolution2DFlipout",
        "DepthwiseConvolution2DFlipout",
        "DenseFlipout",
    }
    np.testing.assert_allclose(plug_in(model, x), net(x), atol=1e-5)


@pytest.mark.slow
def test_mobilenet_trains_a_step_saves_and_loads(tmp_path):
    options = {"weights": None, "input_shape": (32, 32, 3), "classes": 10, "alpha": 0.35}
    model = to_bayesian(keras.applications.MobileNetV2(**options), seed=0)
    before = [layer.variational_weights["kernel"].parameters() for layer in model.variational_layers]
    # Compiling a step of so many layers takes longer than all the rest.
    model.compile(keras.optimizers.Adam(1e-3), run_eagerly=True)
    history = model.fit(images(32, 32, 3, rows=8), np.arange(8), verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for layer, twin, start in zip(model.variational_layers, loaded.variational_layers, before, strict=True):
        after, found = layer.variational_weights["kernel"].parameters(), twin.variational_weights["kernel"].parameters()
        assert (after["loc"] != start["loc"]).any()
        np.testing.assert_array_equal(after["prior_loc"], start["loc"])
        for key, value in after.items():
            np.testing.assert_array_equal(found[key], value)
    x, noise = images(32, 32, 3), Noise(tf.constant([0, 1], tf.int32))
    np.testing.assert_array_equal(model.call_with_noise(x, noise), loaded.call_with_noise(x, noise))

"""A Bayesian network becomes a plain Keras model of the posterior means."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import tfp_bnn
from tfp_bnn import layers as ours
from tfp_bnn.core.noise import NoNoise
from tfp_bnn.layers.stochastic import StochasticLayer
from tfp_bnn.transfer.to_bayesian import to_bayesian
from tfp_bnn.transfer.to_deterministic import to_deterministic

L = keras.layers


def inputs(*shape):
    return np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)


def randomized(model):
    rng = np.random.default_rng(1)
    for variable in model.weights:
        if variable.dtype == "float32":
            value = rng.normal(size=variable.shape) / np.sqrt(max(1, np.prod(variable.shape[:-1])))
            variable.assign(np.abs(value) + 0.5 if "variance" in variable.name else value)
    return model


def sequential(*layers, **arguments):
    return randomized(tfp_bnn.VariationalSequential(layers, name="net", **arguments))


def means(model, x):
    return np.asarray(model.call_with_noise(x, NoNoise()))


def convolutions():
    return sequential(
        keras.Input((8, 8, 2)),
        ours.Convolution2DReparameterization(4, 3, groups=2, bias_posterior="mean_field_normal", name="conv"),
        L.BatchNormalization(),
        ours.DepthwiseConvolution2DFlipout(3, activation="relu"),
        ours.SeparableConvolution2DFlipout(4, 2, depth_multiplier=2),
        ours.Convolution2DTransposeFlipout(3, 3, strides=2, use_bias=False),
        ours.MCDropout(0.5, noise_shape=(None, 1, 1, None)),
        L.GlobalAveragePooling2D(),
        ours.DenseLocalReparameterization(3),
    )


def posteriors():
    families = ("low_rank_normal", "radial", "delta")
    hidden = [ours.DenseReparameterization(4, kernel_posterior=name, activation="tanh") for name in families]
    return sequential(keras.Input((4,)), *hidden, ours.DenseFlipout(3))


def recurrent():
    layers = [ours.EmbeddingReparameterization(10, 4, mask_zero=True), ours.LSTMFlipout(3), ours.DenseFlipout(2)]
    return sequential(keras.Input((5,), dtype="int32"), *layers)


def functional():
    x, a = keras.Input((4,)), keras.Input((4,))
    twice = ours.DenseFlipout(4, activation="relu", name="twice")
    inner = keras.Model(a, ours.DenseFlipout(4, bias_posterior="mean_field_normal")(a) * 2.0, name="inner")
    outputs = ours.DenseFlipout(2, name="head")(inner(twice(twice(x))))
    return randomized(tfp_bnn.VariationalModel(x, outputs, name="net"))


CASES = {
    "convolutions": (convolutions, inputs(8, 8, 2)),
    "posteriors": (posteriors, inputs(4)),
    "recurrent": (recurrent, np.array([[1, 2, 9, 0, 0], [3, 4, 5, 6, 7]])),
    "functional": (functional, inputs(4)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_function_is_that_of_the_posterior_means(name):
    make, x = CASES[name]
    model = make()
    before = [np.asarray(variable).copy() for variable in model.variables]
    net = to_deterministic(model)
    assert type(net).__module__.startswith("keras.")
    assert net.name == "net"
    assert [layer.name for layer in net.layers if not isinstance(layer, L.InputLayer)] == [
        layer.name for layer in model.layers if not isinstance(layer, L.InputLayer)
    ]
    assert not any(isinstance(layer, StochasticLayer) for layer in net._flatten_layers())
    np.testing.assert_allclose(net(x), means(model, x), atol=1e-5, rtol=0)
    assert not {id(variable) for variable in net.variables} & {id(variable) for variable in model.variables}
    for variable in net.weights:
        variable.assign(variable + 1.0)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_layers_become_their_keras_twins():
    net = to_deterministic(convolutions())
    assert [type(layer).__name__ for layer in net.layers[1:]] == [
        "Conv2D",
        "BatchNormalization",
        "DepthwiseConv2D",
        "SeparableConv2D",
        "Conv2DTranspose",
        "Dropout",
        "GlobalAveragePooling2D",
        "Dense",
    ]
    assert net.layers[6].noise_shape == (None, 1, 1, None)


@pytest.mark.parametrize("activation", ["softmax", None])
def test_there_and_back_is_the_same_function(activation):
    x = keras.Input((6, 6, 2))
    h = L.BatchNormalization()(L.Conv2D(3, 3, activation="relu", trainable=False)(x))
    outputs = L.Dense(3, activation=activation)(L.Flatten()(L.SeparableConv2D(2, 2)(h)))
    net = randomized(keras.Model(x, outputs, name="net"))
    back = to_deterministic(to_bayesian(net, likelihood="categorical"), probabilities=activation is not None)
    images = inputs(6, 6, 2)
    np.testing.assert_allclose(back(images), net(images), atol=1e-6, rtol=0)
    for layer in net.layers[1:]:
        twin = back.get_layer(layer.name)
        assert type(twin) is type(layer)
        assert twin.trainable == layer.trainable
        for value, expected in zip(twin.get_weights(), layer.get_weights(), strict=True):
            np.testing.assert_array_equal(value, expected)


def test_probabilities_are_those_of_the_likelihood():
    x = inputs(4)
    for likelihood, units in (("categorical", 3), ("bernoulli", 1)):
        model = sequential(keras.Input((4,)), ours.DenseFlipout(units), likelihood=likelihood)
        net = to_deterministic(model, probabilities=True)
        np.testing.assert_allclose(net(x), model.plug_in_predictive(x).mean(), atol=1e-6)
        # It trains on like any Keras model.
        net.compile("sgd", "mse")
        net.fit(x, np.zeros((3, units)), verbose=0)
    model = sequential(keras.Input((4,)), ours.DenseFlipout(1), likelihood="normal")
    np.testing.assert_allclose(to_deterministic(model)(x), model.plug_in_predictive(x).mean(), atol=1e-6)
    with pytest.raises(ValueError, match="`probabilities` is for models with the likelihood 'categorical'"):
        to_deterministic(model, probabilities=True)


def test_a_plain_model_of_our_layers_is_taken_too():
    net = keras.Sequential([keras.Input((4,)), ours.DenseFlipout(2, name="head"), L.ReLU()], name="net")
    plain = to_deterministic(net)
    assert type(plain.get_layer("head")) is L.Dense
    head = net.get_layer("head")
    np.testing.assert_array_equal(plain.get_layer("head").kernel, head.variational_weights["kernel"].mean)
    with pytest.raises(ValueError, match="but 'net' has None"):
        to_deterministic(net, probabilities=True)


def test_random_layers_without_a_twin_are_refused_by_name():
    x, groups = keras.Input((4,)), keras.Input((), dtype="int32")
    layer = ours.HierarchicalDenseReparameterization(2, num_groups=3, name="grouped")
    model = tfp_bnn.VariationalModel([x, groups], layer([x, groups]))
    with pytest.raises(ValueError, match=r"no deterministic Keras layer for 'grouped' \(HierarchicalDense"):
        to_deterministic(model)

    class OwnDense(ours.DenseFlipout):
        def transform(self, estimator, inputs, noise):
            return super().transform(estimator, inputs, noise) ** 2

    with pytest.raises(ValueError, match=r"'own' \(OwnDense\)"):
        to_deterministic(keras.Sequential([keras.Input((4,)), OwnDense(2, name="own")]))

    class OwnWrapper(L.TimeDistributed):
        pass

    wrapper = OwnWrapper(ours.DenseFlipout(2, name="inside"), name="wrapper")
    with pytest.raises(ValueError, match=r"'inside' \(DenseFlipout\) within 'wrapper' \(OwnWrapper\)"):
        to_deterministic(keras.Sequential([keras.Input((3, 4)), wrapper]))


def test_models_without_a_graph_are_refused():
    with pytest.raises(ValueError, match="not built"):
        to_deterministic(tfp_bnn.VariationalSequential([ours.DenseFlipout(2)]))

    class Net(tfp_bnn.VariationalMixin, keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(ValueError, match=r"`to_deterministic` rebuilds .* subclassed model \(Net\)"):
        to_deterministic(Net())
    with pytest.raises(TypeError, match="but got 3"):
        to_deterministic(3)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16", "float64"])
def test_dtype_policies_are_kept(policy):
    model = sequential(keras.Input((4,)), ours.DenseFlipout(3, dtype=policy))
    (layer,) = to_deterministic(model).layers[1:]
    assert layer.dtype_policy.name == policy
    mean = np.asarray(model.layers[0].variational_weights["kernel"].mean)
    tolerance = 2**-8 if policy == "bfloat16" else 0
    np.testing.assert_allclose(np.asarray(layer.kernel, np.float32), mean, rtol=tolerance)

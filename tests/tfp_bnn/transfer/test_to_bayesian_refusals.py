"""Which layers become Bayesian, models that are refused, precision, and a real network."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfp_bnn.core.noise import Noise
from tfp_bnn.transfer.to_bayesian import to_bayesian

from .deterministic import L, images, mlp, nested_models, plug_in, stack

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
        (["dropped"], "'dropped' \\(LSTM\\) has no Bayesian twin.*unless they use dropout"),
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
    with pytest.raises(ValueError, match="is a VariationalModel, which is already Bayesian"):
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
    x = images(32, 32, 3, rows=16)
    assert np.ptp(net(x), axis=0).max() > 0.1
    assert {type(layer).__name__ for layer in model.variational_layers} == {
        "Convolution2DFlipout",
        "DepthwiseConvolution2DFlipout",
        "DenseFlipout",
    }
    np.testing.assert_allclose(plug_in(model, x), net(x), atol=1e-5)


@pytest.mark.thorough
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

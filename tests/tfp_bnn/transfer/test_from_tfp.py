"""A `tf_keras` model of `tfp.layers`, and what `from_tfp` makes of it."""

from __future__ import annotations

import re
from pathlib import Path

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
import tf_keras

import tfp_bnn
from tfp_bnn.core.noise import NoNoise
from tfp_bnn.transfer.from_tfp import from_tfp

from .tfp_models import assert_same, of_one, old, outputs_at_the_mean, randomize, tfd, tfpl

# What Keras 2 says of itself when TFP makes its layers.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`layer.add_variable` is deprecated:UserWarning"),
    pytest.mark.filterwarnings("ignore:The initializer RandomNormal is unseeded:UserWarning"),
]
NUM_DRAWS = 2000
FALSE_FAILURE_RATE = 1e-6
# A layer of TFP, and the shape of one example.
TFP_LAYERS = {
    "DenseFlipout": (lambda: tfpl.DenseFlipout(4, activation="tanh"), (3,)),
    "DenseReparameterization": (lambda: tfpl.DenseReparameterization(4, activation=tf.nn.relu), (3,)),
    "DenseLocalReparameterization": (lambda: tfpl.DenseLocalReparameterization(4), (3,)),
    "Convolution1DFlipout": (lambda: tfpl.Convolution1DFlipout(3, 2, activation="relu"), (5, 2)),
    "Convolution1DReparameterization": (lambda: tfpl.Convolution1DReparameterization(3, 2, dilation_rate=2), (5, 2)),
    "Convolution2DFlipout": (lambda: tfpl.Convolution2DFlipout(3, (3, 2), padding="same", strides=(2, 1)), (5, 4, 2)),
    "Convolution2DReparameterization": (lambda: tfpl.Convolution2DReparameterization(3, (3, 2)), (5, 4, 2)),
    "Convolution3DFlipout": (lambda: tfpl.Convolution3DFlipout(2, 2, padding="same"), (3, 2, 3, 2)),
    "Convolution3DReparameterization": (lambda: tfpl.Convolution3DReparameterization(2, 2), (3, 2, 3, 2)),
}
KERAS_LAYERS = {
    "Activation": (("elu",), {}, (3,)),
    "AveragePooling2D": ((), {}, (4, 4, 2)),
    "BatchNormalization": ((), {"axis": 2}, (4, 3)),
    "Conv1D": ((3, 2), {"padding": "causal"}, (5, 2)),
    "Conv2D": ((4, (3, 2)), {"strides": (2, 1), "groups": 2, "activation": "relu"}, (5, 5, 2)),
    "Conv2DTranspose": ((3, 2), {"strides": 2}, (3, 3, 2)),
    "Conv3D": ((3, 2), {}, (3, 3, 3, 2)),
    "Dense": ((3,), {"kernel_regularizer": "l2", "kernel_constraint": "non_neg"}, (4,)),
    "DepthwiseConv2D": ((2,), {"depth_multiplier": 2}, (4, 4, 2)),
    "Dropout": ((0.5,), {}, (3,)),
    "Flatten": ((), {}, (4, 2)),
    "GRU": ((3,), {}, (4, 2)),
    "GaussianNoise": ((0.5,), {}, (3,)),
    "GlobalAveragePooling2D": ((), {}, (4, 4, 2)),
    "LSTM": ((3,), {"return_sequences": True}, (4, 2)),
    "LayerNormalization": ((), {}, (4, 3)),
    "LeakyReLU": ((0.2,), {}, (3,)),
    "MaxPooling1D": ((), {}, (4, 2)),
    "Normalization": ((), {}, (3,)),
    "PReLU": ((), {}, (3,)),
    "Rescaling": ((1 / 255, -0.5), {}, (3,)),
    "Reshape": (((2, -1),), {}, (4, 3)),
    "SeparableConv2D": ((3, 2), {}, (4, 4, 2)),
    "SpatialDropout2D": ((0.5,), {}, (4, 4, 2)),
    "UpSampling2D": ((), {}, (2, 2, 2)),
    "ZeroPadding2D": ((1,), {}, (2, 2, 2)),
}


@pytest.mark.parametrize("name", TFP_LAYERS)
def test_every_layer_of_tfp_keeps_its_mean_variance_kl_and_function(name):
    make, shape = TFP_LAYERS[name]
    theirs = of_one(make(), shape)
    ours = from_tfp(theirs, likelihood="normal")
    assert type(ours) is tfp_bnn.VariationalModel
    assert type(ours.layers[-1]) is getattr(tfp_bnn.layers, name)
    x = np.random.default_rng(1).normal(size=(2, *shape)).astype(np.float32)
    assert_same(theirs, ours, x)


@pytest.mark.parametrize("name", KERAS_LAYERS)
def test_other_layers_keep_their_weights_and_function(name):
    args, kwargs, shape = KERAS_LAYERS[name]
    theirs = of_one(getattr(old, name)(*args, name="it", **kwargs), shape)
    if name == "Normalization":
        theirs.get_layer("it").adapt(np.random.default_rng(0).normal(size=(9, *shape)))
    ours = from_tfp(theirs, likelihood="normal")
    twin = ours.network.get_layer("it")
    assert type(twin) is getattr(keras.layers, name)
    x = np.random.default_rng(1).normal(size=(2, *shape)).astype(np.float32)
    np.testing.assert_allclose(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
    for key in ("regularizer", "constraint"):
        assert bool(getattr(twin, f"kernel_{key}", None)) == (name == "Dense")


def test_integer_inputs_of_an_embedding_stay_integers():
    inputs = old.Input((4,), dtype="int32")
    hidden = old.LSTM(3)(old.Embedding(5, 2)(inputs))
    theirs = randomize(tf_keras.Model(inputs, tfpl.DenseFlipout(2)(hidden)))
    ours = from_tfp(theirs, likelihood="normal")
    assert ours.inputs[0].dtype == "int32"
    assert_same(theirs, ours, np.array([[0, 1, 2, 3], [4, 4, 0, 1]], np.int32))


def lenet():
    return randomize(
        tf_keras.Sequential(
            [
                old.Input((8, 8, 1), dtype="uint8", name="pixels"),
                old.Rescaling(1 / 255),
                tfpl.Convolution2DFlipout(3, 3, activation="relu", name="conv"),
                old.BatchNormalization(),
                old.MaxPooling2D(),
                old.Flatten(),
                old.Dropout(0.3),
                old.Dense(5, "tanh", name="features", trainable=False),
                tfpl.DenseReparameterization(3, name="logits"),
            ],
            name="lenet",
        )
    )


def test_a_network_is_rebuilt_whole_and_the_given_one_is_not_changed(tmp_path):
    theirs = lenet()
    x = np.random.default_rng(0).integers(0, 255, (5, 8, 8, 1)).astype(np.uint8)
    before = [np.copy(value) for value in theirs.get_weights()]
    nodes = [len(layer.inbound_nodes) for layer in theirs.layers]
    # Under deterministic operations, which other tests switch on, there is none until it is set.
    tf.random.set_global_generator(tf.random.Generator.from_seed(0))
    state = tf.random.get_global_generator().state.numpy()
    ours = from_tfp(
        theirs, num_examples=60, beta_schedule={"name": "constant", "beta": 0.5}, seed=3, likelihood="categorical"
    )
    assert [len(layer.inbound_nodes) for layer in theirs.layers] == nodes
    np.testing.assert_array_equal(tf.random.get_global_generator().state, state)
    for value, unchanged in zip(theirs.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, unchanged)
    assert (ours.name, ours.num_examples, ours.seed, ours.beta_schedule.beta) == ("lenet", 60, 3, 0.5)
    assert [layer.name for layer in ours.layers][1:] == [layer.name for layer in theirs.layers]
    assert not ours.network.get_layer("features").trainable
    path = tmp_path / "ours.keras"
    ours.save(path)
    loaded = keras.saving.load_model(path)
    np.testing.assert_array_equal(
        loaded.posterior_predictive(x, num_samples=3).mean(), ours.posterior_predictive(x, num_samples=3).mean()
    )
    assert_same(theirs, ours, x)


@pytest.mark.slow
def test_what_was_rebuilt_can_be_trained():
    ours = from_tfp(lenet(), likelihood="categorical")
    ours.compile("adam", metrics=["accuracy"])
    frozen = np.asarray(ours.network.get_layer("features").kernel)
    scale = np.asarray(ours.network.get_layer("conv").kernel_posterior.stddev())
    history = ours.fit(np.zeros((6, 8, 8, 1), np.uint8), np.arange(6) % 3, verbose=0)
    assert np.isfinite(history.history["elbo"][0])
    assert ours.num_examples == 6
    assert (np.asarray(ours.network.get_layer("conv").kernel_posterior.stddev()) != scale).any()
    np.testing.assert_array_equal(ours.network.get_layer("features").kernel, frozen)


def test_a_graph_with_branches_shared_layers_and_a_nested_model_is_kept():
    inner_input = old.Input((3,))
    inner = tf_keras.Model(inner_input, tfpl.DenseFlipout(4, name="within")(inner_input), name="inner")
    one, two = old.Input((3,), name="one"), old.Input((3,), name="two")
    shared = tfpl.DenseReparameterization(4, activation="tanh", name="shared")
    h = old.Concatenate()([shared(one), shared(two), old.Add(name="sum")([inner(one), shared(one)])])
    theirs = randomize(tf_keras.Model([one, two], tfpl.DenseFlipout(2, name="last")(h), name="graph"))
    ours = from_tfp(theirs, likelihood="normal")
    assert set(ours.kl_by_layer()) == {"shared", "within", "last"}
    rng = np.random.default_rng(0)
    assert_same(theirs, ours, [rng.normal(size=(4, 3)).astype(np.float32) for _ in range(2)])


def test_inputs_by_name_are_kept():
    inputs = {name: old.Input((2,), name=name) for name in ("b", "a")}
    theirs = randomize(tf_keras.Model(inputs, tfpl.DenseFlipout(2)(old.Subtract()([inputs["b"], inputs["a"]]))))
    rng = np.random.default_rng(0)
    x = {name: rng.normal(size=(4, 2)).astype(np.float32) for name in inputs}
    assert_same(theirs, from_tfp(theirs, likelihood="normal"), x)


@pytest.mark.parametrize("call", [lambda x: old.Dropout(0.5)(x, training=True), lambda x: old.Dropout(0.5)(x, True)])
def test_dropout_that_is_on_in_prediction_stays_on(call):
    inputs = old.Input((50,))
    ours = from_tfp(tf_keras.Model(inputs, call(inputs)), likelihood="normal")
    assert isinstance(ours.layers[-1], tfp_bnn.layers.MCDropout)
    assert set(ours.predict(np.ones((1, 50), np.float32), verbose=0).ravel()) == {0.0, 2.0}


def test_a_sequential_that_was_built_late_is_rebuilt():
    theirs = tf_keras.Sequential([tfpl.DenseFlipout(4, activation="relu"), tfpl.DenseFlipout(2)])
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    theirs(x)
    ours = from_tfp(randomize(theirs), likelihood="normal")
    assert ours.input_shape == (None, 3)
    assert_same(theirs, ours, x)


# The likelihood that is asked for, the one expected, and the layers.
HEADS = {
    "softmax": (None, "categorical", lambda: [tfpl.DenseFlipout(3, activation=tf.nn.softmax)]),
    "softmax of a plain layer": ("categorical", "categorical", lambda: [old.Dense(3, "softmax")]),
    "layer softmax": (None, "categorical", lambda: [tfpl.DenseFlipout(3), old.Softmax()]),
    "activation softmax": (None, "categorical", lambda: [tfpl.DenseFlipout(3), old.Activation("softmax")]),
    "layer softmax of axis 1": (None, "categorical", lambda: [tfpl.DenseFlipout(3), old.Softmax(1)]),
    "linear after it": (None, "categorical", lambda: [old.Dense(3, "softmax"), old.Activation("linear")]),
    "sigmoid": (None, "bernoulli", lambda: [tfpl.DenseReparameterization(2, activation="sigmoid")]),
    "nested": (None, "bernoulli", lambda: [tf_keras.Sequential([old.Input((3,)), old.Dense(1, "sigmoid")])]),
    "bounded regression": ("normal", "normal", lambda: [tfpl.DenseReparameterization(2, activation="sigmoid")]),
    "regression": ("normal", "normal", lambda: [tfpl.DenseReparameterization(2)]),
}


@pytest.mark.parametrize("name", HEADS)
def test_predictive_probabilities_are_the_outputs_of_the_given_model(name):
    asked, expected, make = HEADS[name]
    theirs = randomize(tf_keras.Sequential([old.Input((3,)), *make()]))
    ours = from_tfp(theirs, likelihood=asked)
    assert ours.likelihood == tfp_bnn.likelihoods.LIKELIHOODS.get(expected)
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    own = ours.plug_in_predictive(x).mean()
    np.testing.assert_allclose(own, outputs_at_the_mean(theirs, x), atol=1e-5)
    is_logits = np.abs(np.asarray(ours.call_with_noise(x, NoNoise())) - own).max() > 0.01
    assert is_logits == (expected != "normal")


def test_logits_stay_logits():
    theirs = of_one(tfpl.DenseFlipout(3))
    ours = from_tfp(theirs, likelihood="categorical")
    x = np.ones((2, 3), np.float32)
    own = ours.plug_in_predictive(x).mean()
    np.testing.assert_allclose(own, tf.nn.softmax(outputs_at_the_mean(theirs, x)), atol=1e-5)


def test_float64_parameters_become_float32():
    theirs = tf_keras.Sequential([old.Input((3,), dtype="float64"), tfpl.DenseFlipout(2, dtype="float64")])
    ours = from_tfp(theirs, likelihood="normal")
    assert ours(np.ones((1, 3))).dtype == tf.float64
    layer = theirs.layers[0]
    np.testing.assert_allclose(ours.kl(), tfd.kl_divergence(layer.kernel_posterior, layer.kernel_prior), rtol=1e-5)


def test_the_library_does_not_import_keras_2():
    imports = re.compile(r"^\s*(import|from) tf_keras", flags=re.MULTILINE)
    sources = list(Path(tfp_bnn.__file__).parent.rglob("*.py"))
    assert sources
    assert not [path for path in sources if imports.search(path.read_text("utf-8"))]


@pytest.mark.statistical
@pytest.mark.slow
def test_draws_of_the_outputs_have_the_moments_of_tfp(draw_outputs):
    """2,000 draws each; false-failure rate 1e-6 over 8 elements and both moments: normal and F quantiles.

    Each output is normal: a difference of means has twice the known variance / 2,000, a ratio of variances an F
    distribution.
    """
    layer = tfpl.DenseFlipout(
        4, bias_posterior_fn=tfpl.default_mean_field_normal_fn(), bias_prior_fn=tfpl.default_multivariate_normal_fn
    )
    theirs = of_one(layer)
    x = np.random.default_rng(1).normal(size=(2, 3)).astype(np.float32)
    own = draw_outputs(from_tfp(theirs, likelihood="normal").layers[-1], x, NUM_DRAWS, training=False)

    @tf.function(autograph=False)
    def draw_theirs():
        return tf.map_fn(lambda _: layer(x), tf.range(NUM_DRAWS), fn_output_signature=tf.float32)

    tf.random.set_seed(0)
    draws = draw_theirs().numpy()
    variance = x**2 @ layer.kernel_posterior.variance().numpy() + layer.bias_posterior.variance().numpy()
    tail = FALSE_FAILURE_RATE / (4 * variance.size)
    difference = own.mean(axis=0, dtype=np.float64) - draws.mean(axis=0, dtype=np.float64)
    np.testing.assert_array_less(np.abs(difference) / np.sqrt(2 * variance / NUM_DRAWS), scipy.stats.norm.isf(tail))
    ratio = own.var(axis=0, dtype=np.float64) / draws.var(axis=0, dtype=np.float64)
    bound = scipy.stats.f.isf(tail, NUM_DRAWS - 1, NUM_DRAWS - 1)
    np.testing.assert_array_less(np.maximum(ratio, 1 / ratio), bound)

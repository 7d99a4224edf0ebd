"""A `tf_keras` model of `tfp.layers`, and what `from_tfp` makes of it."""

from __future__ import annotations

import re
from pathlib import Path

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras

import tfp_bnn
from tfp_bnn.core.noise import NoNoise
from tfp_bnn.transfer.from_tfp import from_tfp

tfd, tfpl, old = tfp.distributions, tfp.layers, tf_keras.layers

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


def randomize(model, seed=0):
    """Gives all variables values that differ; scales from 0.002 to 1.3."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        low, high = (-6.0, 1.0) if "untransformed_scale" in variable.name else (-1.0, 1.0)
        # Variances are positive.
        low = 0.1 if "variance" in variable.name else low
        variable.assign(tf.cast(rng.uniform(low, high, variable.shape), variable.dtype))
    return model


def of_one(layer, shape=(3,)):
    return randomize(tf_keras.Sequential([old.Input(shape), layer]))


def bayesian(model):
    """The layers of TFP in a `tf_keras` model, by name, each once."""
    layers = [layer for layer in model._flatten_layers() if hasattr(layer, "kernel_posterior")]
    return {layer.name: layer for layer in layers}


def outputs_at_the_mean(model, *inputs):
    """The outputs of a `tf_keras` model once all its posteriors are as narrow as they can be; it is spoilt by that."""
    for variable in model.variables:
        if "untransformed_scale" in variable.name:
            variable.assign(tf.fill(variable.shape, -100.0))
    return model(*inputs).numpy()


def assert_same(theirs, ours, inputs):
    """Compares means, standard deviations, priors, KL, and the outputs at the mean; spoils `theirs`."""
    twins = {layer.name: layer for layer in ours.variational_layers}
    assert twins.keys() == bayesian(theirs).keys()
    kl = 0.0
    for name, layer in bayesian(theirs).items():
        twin = twins[name]
        assert type(twin).__name__.replace("Convolution", "Conv") == type(layer).__name__
        for weight in ("kernel", "bias"):
            posterior, prior = (getattr(layer, f"{weight}_{role}") for role in ("posterior", "prior"))
            if posterior is None:
                assert twin.bias is None
            elif prior is None:
                np.testing.assert_array_equal(getattr(twin, weight), posterior.mean())
            else:
                for role, distribution in {"posterior": posterior, "prior": prior}.items():
                    own = getattr(twin, f"{weight}_{role}")
                    assert own.event_shape == distribution.event_shape
                    np.testing.assert_array_equal(own.mean(), distribution.mean())
                    np.testing.assert_allclose(own.stddev(), distribution.stddev(), rtol=2e-6)
                kl += tfd.kl_divergence(posterior, prior)
    np.testing.assert_allclose(ours.kl(), kl, rtol=1e-5)
    own = ours.call_with_noise(inputs, NoNoise())
    np.testing.assert_allclose(own, outputs_at_the_mean(theirs, inputs), rtol=1e-5, atol=1e-5)


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


@pytest.mark.parametrize(
    ("make", "likelihood", "message"),
    [
        (lambda: of_dense(), None, "ends with 'it', not in softmax or sigmoid.*'normal' for regression"),
        (lambda: of_dense(activation="sigmoid"), "categorical", "the sigmoid of 'it'.*likelihood='bernoulli'"),
        (lambda: of_dense(activation="softmax"), "bernoulli", "the softmax of 'it'.*likelihood='categorical'"),
        (lambda: of_one(old.Softmax(2, name="it"), (3, 4, 5)), "bernoulli", "the softmax of 'it'"),
        (lambda: of_one(old.Softmax(2, name="it"), (3, 4, 5)), None, "softmax of 'it' cannot be removed.*axis is 2"),
        (lambda: shared_head(), None, "softmax of 'it' cannot be removed.*called 2 times"),
    ],
)
def test_a_likelihood_that_does_not_fit_the_outputs_is_refused(make, likelihood, message):
    theirs = make()
    with pytest.raises(ValueError, match=f"(?s){message}"):
        from_tfp(theirs, likelihood=likelihood)


def test_float64_parameters_become_float32():
    theirs = tf_keras.Sequential([old.Input((3,), dtype="float64"), tfpl.DenseFlipout(2, dtype="float64")])
    ours = from_tfp(theirs, likelihood="normal")
    assert ours(np.ones((1, 3))).dtype == tf.float64
    layer = theirs.layers[0]
    np.testing.assert_allclose(ours.kl(), tfd.kl_divergence(layer.kernel_posterior, layer.kernel_prior), rtol=1e-5)


def normal(loc, scale):
    """A function that makes a normal prior, as TFP asks for it."""

    def make(dtype, shape, name, trainable, add_variable):
        return tfd.Independent(tfd.Normal(loc * tf.ones(shape), scale), len(shape))

    return make


def learned_scale(dtype, shape, name, trainable, add_variable):
    u = add_variable(
        name=f"{name}_untransformed_scale",
        shape=[],
        initializer=tf_keras.initializers.Constant(0.3),
        trainable=trainable,
    )
    return tfd.Independent(tfd.Normal(tf.zeros(shape), tfp.util.DeferredTensor(u, tf.exp)), len(shape))


def with_one_scale(kind, **arguments):
    """A function that makes a prior of another kind, centred and with the scale 0.5."""

    def make(dtype, shape, name, trainable, add_variable):
        return tfd.Independent(kind(**arguments, loc=tf.zeros(shape), scale=0.5), len(shape))

    return make


# TFP has the KL of few pairs in closed form.
SAMPLED = {"kernel_divergence_fn": lambda q, p, draw: q.log_prob(draw) - p.log_prob(draw)}
PRIORS = {
    "normal": (normal(0.0, 0.25), {"name": "normal", "scale": 0.25}),
    "shifted": (normal(0.5, 0.25), {"name": "informed"}),
    "many scales": (normal(0.0, [0.5, 1.0, 2.0, 0.25]), {"name": "informed"}),
    "learned": (learned_scale, {"name": "normal", "scale": float(np.exp(np.float32(0.3))), "empirical_bayes": True}),
}


@pytest.mark.parametrize("name", PRIORS)
def test_normal_priors_keep_their_kl(name):
    make, expected = PRIORS[name]
    layer = tfpl.DenseFlipout(4, kernel_prior_fn=make, bias_posterior_fn=tfpl.default_mean_field_normal_fn(),
                              bias_prior_fn=make)  # fmt: skip
    theirs = tf_keras.Sequential([old.Input((3,)), layer])
    ours = from_tfp(theirs, likelihood="normal")
    for prefix in ("kernel", "bias"):
        config = keras.saving.deserialize_keras_object(ours.layers[-1].get_config()[f"{prefix}_prior"]).get_config()
        assert {key: config[key] for key in expected if key != "name"} == pytest.approx(
            {key: value for key, value in expected.items() if key != "name"}
        )
    assert_same(theirs, ours, np.ones((2, 3), np.float32))


@pytest.mark.parametrize(
    ("name", "kind", "arguments"),
    [("laplace", tfd.Laplace, {}), ("cauchy", tfd.Cauchy, {}), ("student_t", tfd.StudentT, {"df": 4.0})],
)
def test_other_priors_of_one_scale_are_kept(name, kind, arguments):
    layer = tfpl.DenseReparameterization(
        4,
        kernel_prior_fn=with_one_scale(kind, **arguments),
        **SAMPLED,
    )
    ours = from_tfp(of_one(layer), likelihood="normal").layers[-1]
    assert ours.variational_weights["kernel"].prior_spec == tfp_bnn.priors.PRIORS.get(
        {"name": name, "scale": 0.5, **arguments}
    )
    w = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    np.testing.assert_allclose(ours.kernel_prior.log_prob(w), layer.kernel_prior.log_prob(w), rtol=1e-6)


def point(dtype, shape, name, trainable, add_variable):
    return tfpl.default_mean_field_normal_fn(is_singular=True)(dtype, shape, name, trainable, add_variable)


def test_points_with_a_prior_become_delta_and_without_one_maximum_likelihood():
    layer = tfpl.DenseReparameterization(4, kernel_posterior_fn=point, bias_prior_fn=normal(0.0, 0.5))
    theirs = of_one(layer)
    ours = from_tfp(theirs, likelihood="normal")
    posterior = ours.layers[-1].variational_weights["bias"].posterior_spec
    assert posterior == tfp_bnn.posteriors.POSTERIORS.get("delta")
    assert_same(theirs, ours, np.ones((2, 3), np.float32))
    layer.kernel_prior = layer.bias_prior = None
    ours = from_tfp(theirs, likelihood="normal")
    assert float(ours.kl()) == 0
    np.testing.assert_array_equal(ours.layers[-1].kernel_posterior.mean(), layer.kernel_posterior.mean())


def test_a_layer_without_bias_has_none():
    theirs = of_one(tfpl.DenseFlipout(4, bias_posterior_fn=None))
    assert_same(theirs, from_tfp(theirs, likelihood="normal"), np.ones((2, 3), np.float32))


def test_what_is_not_trained_of_a_posterior_stays_so():
    def means_only(dtype, shape, name, trainable, add_variable):
        loc = add_variable(name=f"{name}_loc", shape=shape, initializer="zeros", trainable=trainable)
        return tfd.Independent(tfd.Normal(loc, 0.1 * tf.ones(shape)), len(shape))

    theirs = of_one(tfpl.DenseFlipout(4, kernel_posterior_fn=means_only, bias_posterior_fn=None))
    ours = from_tfp(theirs, likelihood="normal")
    assert [variable.name for variable in ours.network.trainable_variables] == ["kernel_loc"]
    np.testing.assert_allclose(ours.layers[-1].kernel_posterior.stddev(), np.full((3, 4), 0.1), rtol=1e-6)


def test_a_frozen_layer_stays_frozen():
    ours = from_tfp(of_one(tfpl.DenseFlipout(4, trainable=False)), likelihood="normal")
    assert not ours.network.trainable_variables
    assert ours.layers[-1].variational_weights["kernel"].posterior_spec.trainable == "both"


def test_the_scaling_of_the_kl_is_left_to_the_model():
    layer = tfpl.DenseFlipout(4, kernel_divergence_fn=lambda q, p, _: tfd.kl_divergence(q, p) / 60000)
    theirs = of_one(layer)
    theirs(np.ones((2, 3), np.float32))
    ours = from_tfp(theirs, likelihood="normal")
    np.testing.assert_allclose(ours.kl() / 60000, sum(theirs.losses), rtol=1e-5)
    np.testing.assert_allclose(ours.kl(), tfd.kl_divergence(layer.kernel_posterior, layer.kernel_prior), rtol=1e-5)


def of_dense(layer=tfpl.DenseFlipout, **kwargs):
    return of_one(layer(4, name="it", **kwargs))


def called_with(training):
    inputs = old.Input((3,))
    return tf_keras.Model(inputs, old.BatchNormalization(name="it")(inputs, training=training))


DIFFERENCES = {
    "it: the prior of the kernel, which was trained, is fixed": lambda: of_dense(
        kernel_prior_fn=tfpl.default_mean_field_normal_fn()
    ),
    "it: the regularizers of its posteriors are left out": lambda: of_dense(
        kernel_posterior_fn=tfpl.default_mean_field_normal_fn(loc_regularizer=tf_keras.regularizers.L2(0.1))
    ),
    "it: the constraints of its posteriors are left out": lambda: of_dense(
        kernel_posterior_fn=tfpl.default_mean_field_normal_fn(loc_constraint=tf_keras.constraints.NonNeg())
    ),
    "it: the kernel gets a mean and a scale for every weight": lambda: of_dense(kernel_posterior_fn=learned_scale),
    "it: its call with training=False counts in prediction only": lambda: called_with(training=False),
}


@pytest.mark.parametrize("difference", DIFFERENCES)
def test_what_will_be_trained_in_another_way_is_told(difference):
    theirs = DIFFERENCES[difference]()
    with pytest.warns(UserWarning, match=difference):
        ours = from_tfp(theirs, likelihood="normal")
    assert_same(theirs, ours, np.ones((2, 3), np.float32))


def mixture(dtype, shape, name, trainable, add_variable):
    parts = tfd.Normal(tf.zeros([*shape, 2]), [1.0, 0.1])
    return tfd.Independent(tfd.MixtureSameFamily(tfd.Categorical(probs=[0.5, 0.5]), parts), len(shape))


def shifted_laplace(dtype, shape, name, trainable, add_variable):
    return tfd.Independent(tfd.Laplace(tf.ones(shape), 1.0), len(shape))


def two_outputs():
    inputs = old.Input((3,))
    return tf_keras.Model(inputs, [old.Dense(2)(inputs), old.Dense(2)(inputs)], name="it")


def shared_head():
    inputs = old.Input((3,))
    head = old.Dense(3, "softmax", name="it")
    return tf_keras.Model(inputs, head(head(inputs)))


class OwnDense(old.Dense):
    """A layer that only its user knows."""


class OwnModel(tf_keras.Model):
    """A subclass with a `call`."""

    def call(self, inputs):
        return inputs


# The message, and what is refused.
REFUSED = {
    "mixture": (
        r"'it' .*`kernel_prior` is .*MixtureSameFamily",
        lambda: of_dense(tfpl.DenseReparameterization, kernel_prior_fn=mixture, **SAMPLED),
    ),
    "many Laplace scales": (
        r"`kernel_prior` is .*several scales",
        lambda: of_dense(tfpl.DenseReparameterization, kernel_prior_fn=shifted_laplace, **SAMPLED),
    ),
    "posterior": (
        r"`kernel_posterior` is .*Laplace.*Expected a Normal or a Deterministic",
        lambda: of_one(
            tfpl.DenseReparameterization(
                4,
                kernel_posterior_fn=with_one_scale(tfd.Laplace),
                **SAMPLED,
            )
        ),
    ),
    "bias without prior": (
        r"`bias_prior` is None.*tf.zeros\(\[4\]\), 1.0\), 1\)",
        lambda: of_dense(bias_posterior_fn=tfpl.default_mean_field_normal_fn()),
    ),
    "not drawn": (
        r"`kernel_posterior_tensor_fn` is not `lambda d: d.sample\(\)`",
        lambda: of_dense(kernel_posterior_tensor_fn=lambda d: d.mean()),
    ),
    "flipout of a point": (
        r"'it' \(DenseFlipout\) .*flipout estimator does not exist for bias_posterior=Delta",
        lambda: of_dense(bias_prior_fn=normal(0.0, 1.0)),
    ),
    "activation of a user": (r"activation '<lambda>' is none of Keras 3", lambda: of_dense(activation=lambda x: 2 * x)),
    "activation that changed": (
        r"activation 'hard_sigmoid' is none of Keras 3",
        lambda: of_one(old.Dense(3, "hard_sigmoid")),
    ),
    "head of a distribution": (
        r"'it' \(OneHotCategorical\).*likelihood.*model.layers\[-2\].output",
        lambda: of_one(tfpl.OneHotCategorical(3, name="it")),
    ),
    "lambda": (
        r"'it' \(Lambda\).*tf_keras.* has no counterpart.*DenseFlipout.*ZeroPadding3D",
        lambda: of_one(old.Lambda(lambda x: x, name="it")),
    ),
    "other layer of TFP": (
        r"\(DenseVariational\) .*has no counterpart",
        lambda: of_one(tfpl.DenseVariational(2, normal_of_all, normal_of_all)),
    ),
    "own layer": (r"OwnDense has no counterpart", lambda: of_one(OwnDense(3))),
    "argument": (
        r"LSTM of Keras 3 does not take time_major=True",
        lambda: of_one(old.LSTM(3, time_major=True), (4, 3)),
    ),
    "training": (r"'it' \(BatchNormalization\).*training=True", lambda: called_with(training=True)),
    "two outputs": (r"'it' has 2 outputs.*model.outputs\[0\]", two_outputs),
    "not built": (
        r"'it' is not built.*model.build\(input_shape\)",
        lambda: tf_keras.Sequential([tfpl.DenseFlipout(2)], name="it"),
    ),
}


def normal_of_all(kernel_size, bias_size, dtype):
    """A layer that gives a distribution, as `tfp.layers.DenseVariational` asks for it."""
    zeros = tf.zeros(kernel_size + bias_size, dtype)
    return tfpl.DistributionLambda(lambda _: tfd.Independent(tfd.Normal(zeros, 1.0), 1))


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_counterpart_is_refused_with_what_to_do(name):
    message, make = REFUSED[name]
    theirs = make()
    with pytest.raises(ValueError, match=f"(?s){message}"):
        from_tfp(theirs, likelihood="normal")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]),
            "'Sequential', which is of Keras 3.*to_ba",
        ),
        (OwnModel, "a subclass of `tf_keras.Model` with a `call` of its own.*tf_keras.Model\\(inputs, model.call"),
        (lambda: tfpl.DenseFlipout(2), "of type '.*DenseFlipout'. Expected a built `tf_keras.Sequential`"),
        (lambda: "model.h5", "Got 'model.h5' of type 'str'. Expected a built"),
    ],
)
def test_other_objects_are_refused(make, message):
    given = make()
    with pytest.raises(TypeError, match=f"(?s){message}"):
        from_tfp(given)


def test_advice_for_the_head_of_a_distribution_works():
    theirs = randomize(
        tf_keras.Sequential([old.Input((3,)), tfpl.DenseFlipout(2), tfpl.IndependentNormal(1, name="head")])
    )
    with pytest.raises(ValueError, match=r"'head'.*Pass the model up to the layer before it"):
        from_tfp(theirs, likelihood="normal")
    upto = tf_keras.Model(theirs.inputs, theirs.layers[-2].output)
    ours = from_tfp(upto, likelihood={"name": "normal", "scale": "per_example"})
    x = np.ones((2, 3), np.float32)
    predictive = ours.plug_in_predictive(x)
    outputs_at_the_mean(upto, x)
    head = theirs(x)
    np.testing.assert_allclose(predictive.mean(), head.mean(), atol=1e-5)
    np.testing.assert_allclose(np.sqrt(predictive.aleatoric()), head.stddev(), rtol=1e-4)


def test_the_library_does_not_import_keras_2():
    imports = re.compile(r"^\s*(import|from) tf_keras", flags=re.MULTILINE)
    sources = list(Path(tfp_bnn.__file__).parent.rglob("*.py"))
    assert sources
    assert not [path for path in sources if imports.search(path.read_text("utf-8"))]


@pytest.mark.statistical
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

    @tf.function
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

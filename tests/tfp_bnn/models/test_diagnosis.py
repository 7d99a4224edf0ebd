"""Where a number stopped being finite: the layer is named, and a sound model is not accused."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_bnn
from tfp_bnn.core.layer_tree import seed_generators, sublayers
from tfp_bnn.layers import DenseFlipout, MCDropout
from tfp_bnn.models.diagnosis import has_finite_weights, non_finite_layer
from tfp_bnn.models.training_state import training_state

X = np.ones((5, 3), np.float32)


def make(likelihood: str = "categorical") -> tfp_bnn.VariationalModel:
    # With other initial weights all units of the first layer may be off, and nothing large reaches the others.
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    prior = {"name": "normal", "scale": 0.5, "empirical_bayes": True}
    x = DenseFlipout(4, activation="relu", name="first", kernel_prior=prior)(inputs)
    nested_in = keras.Input((4,))
    nested = keras.Model(nested_in, DenseFlipout(4, name="inner")(nested_in), name="nested")
    x = keras.layers.Dense(4, name="plain")(nested(x))
    return tfp_bnn.VariationalModel(inputs, DenseFlipout(2, name="last")(x), likelihood=likelihood, seed=0)


def poison(variable: keras.Variable, value: float = np.nan) -> None:
    array = np.array(variable.numpy())
    array[(-1,) * array.ndim] = value
    variable.assign(array)


@pytest.mark.slow
def test_a_sound_model_is_not_accused():
    for likelihood in ("categorical", "normal"):
        model = make(likelihood)
        assert has_finite_weights(model)
        assert non_finite_layer(model, X) is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("layer", ["first", "inner", "plain", "last"])
def test_weights(layer, value):
    model = make()
    (found,) = [variable for variable in model.trainable_variables if f"{layer}/kernel" in variable.path][:1]
    poison(found, value)
    assert not has_finite_weights(model)
    assert non_finite_layer(model, X) == f"the weights of the layer {layer!r}"


def test_the_first_of_several_is_named():
    model = make()
    for variable in reversed(model.trainable_variables):
        poison(variable)
    assert non_finite_layer(model, X) == "the weights of the layer 'first'"


@pytest.mark.parametrize("part", ["posterior", "prior"])
def test_the_scale_of_a_posterior_and_of_a_prior(part):
    model = make()
    (layer,) = [layer for layer in model.variational_layers if layer.name == "first"]
    scales = [variable for variable in layer.trainable_variables if "scale" in variable.path]
    (found,) = [variable for variable in scales if ("prior" in variable.path) == (part == "prior")]
    poison(found)
    assert not has_finite_weights(model)
    assert non_finite_layer(model, X) == "the weights of the layer 'first'"


def test_the_learned_scale_of_a_likelihood():
    model = make("normal")
    (scale,) = model.likelihood_weights.values()
    scale.assign(np.inf)
    assert not has_finite_weights(model)
    assert "the learned parameters of the likelihood Normal" in non_finite_layer(model, X)


def test_a_kl_that_overflows_though_every_weight_is_finite():
    model = make()
    (layer,) = [layer for layer in model.variational_layers if layer.name == "inner"]
    layer.kernel.assign(tf.fill(layer.kernel.shape, 3e38))
    assert has_finite_weights(model)
    assert non_finite_layer(model, X) == "the KL of the layer 'inner'"


def test_outputs_that_overflow():
    model = make()
    (layer,) = [layer for layer in model.network.layers if layer.name == "plain"]
    layer.kernel.assign(tf.fill(layer.kernel.shape, 3e38))
    layer.bias.assign(tf.fill(layer.bias.shape, 3e38))
    found = non_finite_layer(model, 1e6 * X)
    assert found == "the outputs of the layer 'plain'"
    assert has_finite_weights(model)


def test_sequential_networks_and_layers_that_are_used_twice():
    twice = DenseFlipout(3, name="twice")
    inputs = keras.Input((3,))
    shared = tfp_bnn.VariationalModel(inputs, DenseFlipout(2, name="last")(twice(twice(inputs))), seed=0)
    chain = keras.Sequential([keras.Input((3,)), DenseFlipout(3, name="twice"), DenseFlipout(2, name="last")])
    for model in (shared, tfp_bnn.VariationalSequential(chain.layers, seed=0)):
        assert non_finite_layer(model, X) is None
        (layer,) = [layer for layer in model.variational_layers if layer.name == "last"]
        layer.bias.assign(tf.fill(layer.bias.shape, np.inf))
        assert non_finite_layer(model, X) == "the weights of the layer 'last'"


@keras.saving.register_keras_serializable(package="test_diagnosis")
class NoisyCounter(keras.layers.Layer):
    """A layer of somebody else that draws and counts in every call, also in evaluation."""

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.generator = keras.random.SeedGenerator(3)
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False, name="calls")

    def call(self, inputs):
        self.calls.assign_add(1.0)
        return inputs + keras.random.normal(keras.ops.shape(inputs), seed=self.generator)


@pytest.fixture
def full_of_counters() -> tfp_bnn.VariationalModel:
    inferred = {"name": "normal", "hyperprior": "half_cauchy"}
    inputs = keras.Input((3,))
    x = DenseFlipout(4, name="own_scale", kernel_prior=inferred)(inputs)
    x = MCDropout(0.5, name="mc_dropout")(x)
    x = keras.layers.BatchNormalization(name="batch_norm")(x)
    x = NoisyCounter(name="counter")(keras.layers.Dropout(0.5, name="dropout")(x))
    outputs = DenseFlipout(2, name="shared_scale", kernel_prior={**inferred, "shared": "all"})(x)
    model = tfp_bnn.VariationalModel(inputs, outputs, seed=0)
    model.compile("adam")
    model.num_examples = 5
    model(X, training=True)
    return model


def everything(model: tfp_bnn.VariationalModel) -> dict[str, np.ndarray]:
    state = training_state(model)
    for layer in (model, *sublayers(model)):
        for index, generator in enumerate(seed_generators(layer)):
            state[f"{layer.name}/generator/{index}"] = np.asarray(generator.state).copy()
    for layer in model.stochastic_layers:
        for name, variable in layer._noise_streams.variables.items():
            state[f"{layer.name}/{name}"] = np.asarray(variable).copy()
    return state


@pytest.mark.parametrize("overflows", [False, True])
def test_nothing_in_the_model_moves(full_of_counters, overflows):
    model = full_of_counters
    x = np.full_like(X, np.inf) if overflows else X
    before = everything(model)
    assert {"dropout/generator/0", "counter/generator/0", "mc_dropout/evaluation_noise"} <= set(before)
    found = non_finite_layer(model, x)
    assert found == ("the outputs of the layer 'own_scale'" if overflows else None)
    after = everything(model)
    assert list(after) == list(before)
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)
    # The comparison would notice: one call outside of the check moves several of them.
    model(X)
    moved = {name for name, value in everything(model).items() if not np.array_equal(value, before[name])}
    assert {"counter/generator/0", "evaluation_noise"} <= moved

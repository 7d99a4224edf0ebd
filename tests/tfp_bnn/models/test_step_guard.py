"""A step with wrong numbers is refused on every device: eager, in a graph, and under XLA, which drops assertions."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_bnn
from tfp_bnn.core.checks import invalid_arguments_as_value_errors, require
from tfp_bnn.layers import (
    DenseFlipout,
    EmbeddingReparameterization,
    HierarchicalDenseReparameterization,
    LSTMFlipout,
)

from .networks import N, X, Y, pipeline

XLA = pytest.param({"jit_compile": True}, id="xla", marks=pytest.mark.slow)
SLOW_XLA = pytest.param({"jit_compile": True}, id="xla", marks=pytest.mark.thorough)
GRAPH = pytest.param({}, id="graph")
SLOW_GRAPH = pytest.param({}, id="graph", marks=pytest.mark.slow)
EAGER = pytest.param({"run_eagerly": True}, id="eager")


@keras.saving.register_keras_serializable(package="test_step_guard")
class InfiniteGradient(keras.layers.Layer):
    """Adds 0. The derivative at 0 is infinite."""

    def build(self, input_shape):
        self.root = self.add_weight(name="root", shape=(), initializer="zeros")

    def call(self, inputs):
        return inputs + tf.sqrt(tf.abs(tf.convert_to_tensor(self.root)))


class WithinAFunction(keras.layers.Layer):
    """Checks tensors that the step itself cannot use."""

    def call(self, inputs):
        @tf.function(autograph=False)
        def check(x):
            with tf.control_dependencies(require(tf.reduce_all(x < 100.0), "Too large is", tf.reduce_max(x), "in it.")):
                return tf.identity(x)

        return check(inputs)


def make(*layers, how=None, **kwargs):
    model = tfp_bnn.VariationalSequential([keras.Input((4,)), *layers, DenseFlipout(3)], seed=0)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), **(how or {}), **kwargs)
    model.num_examples = N
    return model


def state(model):
    return [np.asarray(variable) for variable in (*model.weights, *model.optimizer.variables)]


def assert_unchanged(model, before):
    for array, same in zip(state(model), before, strict=True):
        np.testing.assert_array_equal(array, same)


def spoiled(array, value, row=40):
    array = array.astype(np.float64 if np.isnan(value) else array.dtype)
    array[row] = value
    return array


BAD = {
    "inputs": (spoiled(X, np.nan).astype(np.float32), Y, "^The inputs of a batch have NaN or infinite values"),
    "targets": (X, spoiled(Y, np.nan), "^The targets of a batch have NaN or infinite values"),
    "labels": (X, spoiled(Y, 3), r"^Labels out of range: expected integers from 0 to 2, .* labels from 0 to 3 in it\."),
}


@pytest.mark.parametrize("how", [EAGER, GRAPH, SLOW_XLA])
def test_a_bad_batch_is_refused_and_leaves_everything_as_it_was(how):
    """Inputs, targets and labels, in each way to train and to evaluate on one compiled model."""
    model = make(keras.layers.BatchNormalization(), how=how)
    model.fit(pipeline(X, Y, N), verbose=0)
    before = state(model)
    for x, y, message in BAD.values():
        for use in (model.fit, model.evaluate):
            with pytest.raises(ValueError, match=message):
                use(pipeline(x, y, N), verbose=0)
        assert_unchanged(model, before)
    # And it goes on.
    history = model.fit(pipeline(X, Y, N), verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert np.isfinite(model.evaluate(pipeline(X, Y, N), verbose=0)).all()
    assert int(model.optimizer.iterations) == 2


@pytest.mark.parametrize("how", [EAGER, SLOW_GRAPH, SLOW_XLA])
def test_a_bad_batch_leaves_the_states_of_recurrent_layers_as_they_were(how):
    layers = [
        LSTMFlipout(2, stateful=True, return_sequences=True),
        keras.layers.Bidirectional(keras.layers.GRU(2, stateful=True)),
    ]
    inputs = keras.Input((1, 4), batch_size=N)
    model = tfp_bnn.VariationalSequential([inputs, *layers, DenseFlipout(3)], seed=0)
    model.compile("sgd", **how)
    model.fit(pipeline(X[:, None], Y, N), verbose=0)
    before = [np.asarray(variable) for layer in layers for variable in layer.states]
    assert len(before) == 4
    x, y, message = BAD["inputs"]
    for use in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match=message):
            use(pipeline(x[:, None], y, N), verbose=0)
        after = [np.asarray(variable) for layer in layers for variable in layer.states]
        np.testing.assert_array_equal(after, before)
    assert np.isfinite(model.fit(pipeline(X[:, None], Y, N), verbose=0).history["loss"]).all()


@pytest.mark.parametrize("value", [np.nan, -1.0])
def test_bad_sample_weights_are_refused(value):
    model = make(run_eagerly=True)
    weights = spoiled(np.ones(len(X)), value)
    for use in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match="sample weights of a batch have values that are NaN, infinite or below"):
            use(X, Y, sample_weight=weights, batch_size=N, verbose=0)


@pytest.mark.parametrize("how", [GRAPH, SLOW_XLA])
def test_labels_of_a_batch_that_no_check_before_the_step_has_seen(how, monkeypatch):
    model = make(how=how)
    monkeypatch.setattr(model, "_check_examples", lambda x, y: None)
    before = None
    for use in (model.train_on_batch, model.test_on_batch):
        with pytest.raises(ValueError, match=BAD["labels"][2]):
            use(*BAD["labels"][:2])
        before = before or state(model)
        assert_unchanged(model, before)
    assert int(model.optimizer.iterations) == 0


@pytest.mark.slow
@pytest.mark.parametrize("how", [GRAPH, SLOW_XLA])
def test_no_step_after_a_bad_batch_is_applied_in_one_execution_of_several(how):
    x, y, message = BAD["inputs"]
    several, single = make(how=how, steps_per_execution=6), make(how=how)
    single.set_weights(several.get_weights())
    # Row 40 is in the third of six batches.
    with pytest.raises(ValueError, match=message):
        several.fit(pipeline(x, y, 16), verbose=0)
    for rows in (slice(16), slice(16, 32)):
        single.train_on_batch(x[rows], y[rows])
    assert int(several.optimizer.iterations) == 2
    for ours, theirs in zip(several.trainable_weights, single.trainable_weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("how", [EAGER, GRAPH, XLA])
def test_gradients_that_are_not_finite_are_not_applied_though_the_loss_is(how):
    model = make(InfiniteGradient(), how=how)
    before = state(model)[: len(model.weights)]
    with pytest.raises(ValueError, match=r"^The gradients of a training step are NaN or infinite.* step before"):
        model.fit(pipeline(X, Y), verbose=0)
    assert np.isfinite(model.evaluate(X, Y, verbose=0)).all()
    assert int(model.optimizer.iterations) == 0
    for array, same in zip(state(model), before, strict=False):
        np.testing.assert_array_equal(array, same)


def test_a_scaled_loss_may_overflow_because_its_optimizer_leaves_such_steps_out():
    model = make()
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=3e38)
    model.compile(optimizer, run_eagerly=True)
    before = [np.asarray(variable) for variable in model.trainable_weights]
    model.fit(100 * X, Y, batch_size=N, verbose=0)
    for variable, same in zip(model.trainable_weights, before, strict=True):
        np.testing.assert_array_equal(variable, same)


@pytest.mark.thorough
def test_unknown_ids_and_groups_are_refused_under_xla():
    ids = keras.Input((2,), dtype="int32")
    words = keras.layers.Flatten()(EmbeddingReparameterization(5, 3, name="words")(ids))
    of_words = tfp_bnn.VariationalModel(ids, DenseFlipout(3)(words), seed=0)
    x, group = keras.Input((4,)), keras.Input((), dtype="int32")
    layer = HierarchicalDenseReparameterization(3, num_groups=2, name="schools")
    of_groups = tfp_bnn.VariationalModel([x, group], layer([x, group]), seed=0)
    known, unknown = np.zeros((8, 2), np.int32), np.full((8, 2), 7, np.int32)
    y = np.zeros(8, np.int64)
    for model, good, bad, message in (
        (of_words, known, unknown, "^The id 7 is not in the vocabulary of the layer words"),
        (of_groups, [X[:8], known[:, 0]], [X[:8], unknown[:, 0]], "^The group id 7 is unknown to the layer schools"),
    ):
        model.compile("sgd", jit_compile=True)
        model.fit(good, y, verbose=0)
        before = state(model)
        for use in (model.fit, model.evaluate):
            with pytest.raises(ValueError, match=message):
                use(bad, y, verbose=0)
        assert_unchanged(model, before)


@pytest.mark.slow
def test_a_step_that_nobody_watches_asserts():
    """That of a loop of one's own, where no host asks for a failure, would otherwise stop to train in silence."""
    model = make(InfiniteGradient())
    with pytest.raises(ValueError, match="The gradients of a training step"):
        model.train_step((tf.constant(X), tf.constant(Y)))
    step = tf.function(model.train_step)
    with pytest.raises(ValueError, match="The gradients of a training step"), invalid_arguments_as_value_errors():
        step((tf.constant(X), tf.constant(Y)))
    assert int(model.optimizer.iterations) == 0


@pytest.mark.slow
def test_a_check_within_another_function_is_an_assertion():
    model = make(WithinAFunction())
    model.train_on_batch(X, Y)
    before = state(model)
    with pytest.raises(ValueError, match=r"^Too large is 200 in it\.$"):
        model.train_on_batch(np.full_like(X, 200.0), Y)
    assert_unchanged(model, before)


def test_the_guard_is_no_weight_and_in_no_file():
    model = make()
    assert not [variable.path for variable in model.variables if "failure" in variable.path]

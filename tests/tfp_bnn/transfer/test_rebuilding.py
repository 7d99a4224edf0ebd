"""A graph is rebuilt with the same function, names, state and flags, but with new layers."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tfp_bnn.transfer.rebuilding import check_graph, operations, rebuild

L = keras.layers


def network():
    x = keras.Input((4,))
    twice = L.Dense(4, activation="relu", name="twice")
    inner = keras.Sequential([L.Dense(4, name="dense"), L.BatchNormalization(name="batch")], name="inner")
    return keras.Model(x, keras.ops.sum(inner(twice(twice(x))), axis=1, keepdims=True), name="net")


def test_each_layer_is_asked_for_once_and_made_anew():
    net, asked = network(), []
    new = rebuild(net, lambda operation: asked.append(operation.name)).model
    # The path of an operation that comes several times is given several times.
    assert asked == [path.rpartition("/")[2] for path, operation in operations(net) if operation.name != "inner"]
    assert [path for path, _ in operations(new)] == [path for path, _ in operations(net)]
    assert [path for path, _ in operations(net)] == ["twice", "inner", "inner/dense", "inner/batch", "sum"]
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    np.testing.assert_array_equal(new(x), net(x))
    assert not {id(found) for _, found in operations(net)} & {id(found) for _, found in operations(new)}


def test_a_replaced_layer_is_reported_with_the_original():
    net = network()
    ((old, new),) = rebuild(net, lambda layer: L.Dense(4, name="new") if layer.name == "twice" else None).replaced
    assert old is net.get_layer("twice")
    assert new.built
    assert len(new._inbound_nodes) == 2


def test_what_is_trainable_stays_so():
    net = network()
    net.trainable = False
    net.get_layer("inner").get_layer("batch").trainable = True
    new = rebuild(net).model
    flags = [(path, layer.trainable) for path, layer in operations(new) if isinstance(layer, L.Layer)]
    assert flags == [("twice", False), ("inner", False), ("inner/dense", False), ("inner/batch", True)]
    assert not new.trainable


def test_state_that_is_no_weight_is_copied():
    rng = np.random.default_rng(0)
    normalization = L.Normalization()
    normalization.adapt(rng.normal(3.0, 2.0, size=(20, 4)))
    dropout = L.Dropout(0.5, name="dropout")
    net = keras.Sequential([keras.Input((4,)), normalization, dropout])
    x = np.ones((2, 4), np.float32)
    net(x, training=True)
    new = rebuild(net).model
    np.testing.assert_array_equal(new(x), net(x))
    # The generator goes on where that of the original stands, and apart from it.
    np.testing.assert_array_equal(new(x, training=True), net(x, training=True))

    lookup = L.IntegerLookup()
    lookup.adapt(np.array([3, 5, 7]))
    vocabulary = keras.Sequential([keras.Input((3,), dtype="int64"), lookup])
    ids = np.array([[7, 3, 9]])
    np.testing.assert_array_equal(rebuild(vocabulary).model(ids), vocabulary(ids))


def test_a_compiled_model_is_not_compiled_again():
    net = network()
    net.compile("adam", "mse")
    assert not rebuild(net).model.compiled


def test_a_mask_goes_the_same_way():
    layers = [L.Embedding(10, 3, mask_zero=True), L.GRU(2)]
    net = keras.Sequential([keras.Input((4,), dtype="int32"), *layers])
    new = rebuild(net).model
    ids = np.array([[1, 2, 0, 0]])
    np.testing.assert_array_equal(new(ids), net(ids))
    assert (np.asarray(new(ids)) != np.asarray(new(np.array([[1, 2, 3, 0]])))).any()


def test_models_of_tf_keras_are_told_where_to_go():
    old = pytest.importorskip("tf_keras")
    with pytest.raises(TypeError, match=r"`to_bayesian` takes .* For models of tf_keras see `from_tfp`"):
        check_graph(old.Sequential(), "to_bayesian")

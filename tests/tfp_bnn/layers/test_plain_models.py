"""Bayesian layers in a model that is not a `VariationalModel`."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest

import tfp_bnn
from tfp_bnn.layers import DenseFlipout

X, Y = np.ones((4, 3), np.float32), np.ones((4, 1), np.float32)


def plain(**kwargs):
    layers = [keras.Input((3,)), DenseFlipout(2, name="hidden", **kwargs), DenseFlipout(1, **kwargs)]
    model = keras.Sequential(layers, name="net")
    model.compile("sgd", "mse", run_eagerly=True)
    return model


def test_training_without_any_kl_warns_once():
    model = plain()
    with pytest.warns(
        UserWarning, match=r"'net' \(Sequential\) trains the Bayesian layer 'hidden' without its KL"
    ) as seen:
        model.fit(X, Y, epochs=2, verbose=0)
    assert len(seen) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(X, Y, verbose=0)


@pytest.mark.parametrize("kl_weight", [0.25, 0.0])
def test_a_weight_of_the_kl_is_no_reason_to_warn(kl_weight):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain(kl_weight=kl_weight).fit(X, Y, verbose=0)


def test_the_kl_of_a_layer_counts_once_however_often_it_is_used():
    x, layer = keras.Input((4, 3)), DenseFlipout(3, kl_weight=0.5)
    wrapped = DenseFlipout(3, kl_weight=0.25)
    model = keras.Model(x, keras.layers.TimeDistributed(wrapped)(layer(layer(x))))
    for _ in range(2):
        model(np.ones((2, 4, 3), np.float32))
        assert len(model.losses) == 2
        expected = 0.5 * float(layer.kl()) + 0.25 * float(wrapped.kl())
        assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-6)


def test_only_training_warns():
    model = plain()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(X, verbose=0)
        model.evaluate(X, Y, verbose=0)
        DenseFlipout(2)(X, training=True)
        bayesian = tfp_bnn.VariationalSequential([keras.Input((3,)), DenseFlipout(1)], likelihood="normal")
        bayesian.compile("sgd", run_eagerly=True)
        bayesian.fit(X, Y, verbose=0)

"""`predict` says once that it is one draw; `predict_mean` is what it looks like."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest

import tfp_bnn
from tfp_bnn.layers import DenseFlipout

X = np.ones((4, 2), np.float32)


@pytest.fixture(autouse=True)
def _not_told(monkeypatch):
    monkeypatch.setattr("tfp_bnn.models.one_draw._told", False)


def model_of(**how):
    return tfp_bnn.VariationalSequential([keras.Input((2,)), DenseFlipout(3, name="logits", **how)], seed=0)


def test_predict_warns_once():
    model = model_of()
    with pytest.warns(tfp_bnn.OneDrawWarning, match="model.predict_mean"):
        model.predict(X, verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(X, verbose=0)


def test_a_model_without_randomness_is_not_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model_of(kernel_posterior="delta").predict(X, verbose=0)


def test_the_mean_is_that_of_the_predictive_with_names():
    model = model_of()
    model.class_names = ("a", "b", "c")
    predictive = model.posterior_predictive(X, 7, seed=2)
    np.testing.assert_array_equal(model.predict_mean(X, 7, seed=2), predictive.mean())
    assert predictive.calibrated_by(tfp_bnn.calibration.Temperature(2.0)).class_names == ("a", "b", "c")
    ((streamed, _),) = model.stream_predictive(X, num_samples=2)
    assert streamed.class_names == model.plug_in_predictive(X).class_names == ("a", "b", "c")


def test_a_model_is_one_line():
    model = model_of()
    assert repr(model) == (
        f"<VariationalSequential {model.name!r}: inputs (2,), outputs (3,), 6 Bayesian weights, "
        "likelihood 'categorical'>"
    )
    model.num_examples = 1200
    assert "N = 1,200" in repr(model)
    assert "not built" in repr(tfp_bnn.VariationalSequential([DenseFlipout(3)], name="net"))
    a, b = keras.Input((2,), name="a"), keras.Input((3,), name="b")
    two = tfp_bnn.VariationalModel({"a": a, "b": b}, DenseFlipout(1)(keras.layers.Concatenate()([a, b])))
    assert "inputs [(2,), (3,)], outputs (1,)" in repr(two)

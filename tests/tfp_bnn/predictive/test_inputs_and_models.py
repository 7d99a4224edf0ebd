"""The posterior predictive of bad arguments, of inputs of other types, and of models of other kinds."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_bnn
from tfp_bnn.layers import Convolution2DFlipout, DenseFlipout, DenseReparameterization

ROWS, SAMPLES = 30, 7
X = np.random.default_rng(0).normal(size=(ROWS, 4)).astype(np.float32)
WIDE = {"name": "mean_field_normal", "initial_scale": 0.7}


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    x = keras.Input((4,))
    return tfp_bnn.VariationalModel(x, DenseReparameterization(3, kernel_posterior=WIDE)(x), seed=0)


# === Arguments ===


@pytest.mark.parametrize("name", ["num_samples", "batch_size"])
@pytest.mark.parametrize("value", [0, -1, 2.0, True, "10"])
def test_sizes_that_are_no_positive_integers_are_refused(model, name, value):
    with pytest.raises(ValueError, match=rf"`{name}` must be an integer >= 1, but got"):
        model.posterior_predictive(X, **{name: value})


@pytest.mark.parametrize("seed", [None, 1.5, True, "0"])
def test_seeds_that_are_no_integers_are_refused(model, seed):
    # Without a seed there would be no noise: the plug-in prediction, many times over.
    with pytest.raises(ValueError, match="`seed` must be an integer"):
        model.posterior_predictive(X, 2, seed=seed)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (X[:0], r"`x` is empty: it has the shape \(0, 4\)"),
        (X[:, :3], r"`x` has the shape \(30, 3\), but the model takes \('batch', 4\)"),
        (X[0], r"`x` has the shape \(4,\), but the model takes \('batch', 4\).*batch axis"),
        (X[None], "but the model takes"),
        (np.where(X == X[2, 1], np.nan, X), r"`x` has 1 values .* index \(2, 1\)"),
        (np.where(X == X[2, 1], np.inf, X), "the first is inf"),
        (np.float32(1.0), "Expected an array.* batch axis first"),
    ],
)
def test_bad_inputs_are_refused(model, x, message):
    for predict in (model.posterior_predictive, model.plug_in_predictive):
        with pytest.raises(ValueError, match=message):
            predict(x)


@pytest.mark.parametrize("convert", [np.float64, np.float16, tf.constant])
def test_inputs_of_another_type_are_taken(model, convert):
    expected = model.posterior_predictive(X, 2).samples
    np.testing.assert_allclose(model.posterior_predictive(convert(X), 2).samples, expected, atol=2e-3)


def test_whole_numbers_are_taken(model):
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    expected = model.posterior_predictive(pixels.astype(np.float32), 2).samples
    np.testing.assert_allclose(model.posterior_predictive(pixels, 2).samples, expected, atol=1e-6)


# === Other models ===


class Net(tfp_bnn.VariationalMixin, keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.top = DenseFlipout(3, kernel_posterior=WIDE)

    def call(self, inputs, training=None):
        return self.top(inputs, training=training)


@pytest.mark.parametrize(
    "make",
    [
        Net,
        lambda: tfp_bnn.VariationalSequential([DenseFlipout(3, kernel_posterior=WIDE)]),
        lambda: tfp_bnn.VariationalSequential([keras.Input((4,)), DenseReparameterization(3, kernel_posterior=WIDE)]),
    ],
    ids=["subclass", "built by the call", "one layer"],
)
def test_small_models_of_every_kind(make):
    model = make()
    # The first prediction builds what is not built yet.
    predictive = model.posterior_predictive(X, SAMPLES)
    assert predictive.samples.shape == (SAMPLES, ROWS, 3)
    assert len(model.variational_layers) == 1
    assert len({draw.tobytes() for draw in predictive.samples}) == SAMPLES
    again = model.posterior_predictive(X, SAMPLES, batch_size=4)
    np.testing.assert_allclose(again.samples, predictive.samples, atol=1e-6)
    assert model.plug_in_predictive(X).samples.shape == (1, ROWS, 3)


def test_convolutions():
    layers = [
        keras.Input((6, 5, 2)),
        Convolution2DFlipout(2, 3, kernel_posterior=WIDE),
        keras.layers.Flatten(),
        DenseFlipout(2),
    ]
    model = tfp_bnn.VariationalSequential(layers, seed=0)
    images = np.random.default_rng(1).normal(size=(9, 6, 5, 2)).astype(np.float32)
    whole, parts = (model.posterior_predictive(images, 3, batch_size=size).samples for size in (9, 2))
    np.testing.assert_allclose(parts, whole, atol=1e-6)
    assert np.abs(whole[0] - whole[1]).max() > 1e-3


def test_a_model_without_bayesian_layers_is_sure():
    model = tfp_bnn.VariationalSequential([keras.Input((4,)), keras.layers.Dense(3)])
    predictive = model.posterior_predictive(X, SAMPLES)
    np.testing.assert_allclose(predictive.epistemic(), 0.0, atol=1e-6)

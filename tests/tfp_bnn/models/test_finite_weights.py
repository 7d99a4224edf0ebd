"""A model whose weights are not finite neither predicts nor is saved. ReLU turns NaN into 0, so outputs look fine."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import tfp_bnn
from tfp_bnn.layers import DenseFlipout

X = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
MESSAGE = "NaN or infinite are the weights of the layer 'hidden' of the model 'net'. "


def make():
    layers = [keras.Input((3,)), DenseFlipout(4, activation="relu", name="hidden"), DenseFlipout(2, name="logits")]
    return tfp_bnn.VariationalSequential(layers, seed=0, name="net")


def poison(model, value=np.nan):
    kernel = model.get_layer("hidden").kernel
    kernel.assign(np.full(kernel.shape, value, np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_it_does_not_predict(value):
    model, sound = make(), make()
    poison(model, value)
    joined = tfp_bnn.inference.ensemble([sound, model])
    for refused in (model, joined):
        with pytest.raises(ValueError, match=MESSAGE + "It cannot predict"):
            refused.posterior_predictive(X, 2)
        with pytest.raises(ValueError, match=MESSAGE + "It cannot predict"):
            refused.plug_in_predictive(X)


def test_statistics_of_normalization_are_weights_too():
    normalization = keras.layers.BatchNormalization(name="hidden")
    model = tfp_bnn.VariationalSequential([keras.Input((3,)), normalization, DenseFlipout(2)], name="net", seed=0)
    normalization.moving_mean.assign(np.full(3, np.nan))
    with pytest.raises(ValueError, match=MESSAGE):
        model.posterior_predictive(X, 2)


def test_it_is_not_saved_and_the_file_from_before_stays(tmp_path):
    model, files = make(), {"save": tmp_path / "model.keras", "save_weights": tmp_path / "model.weights.h5"}
    for method, path in files.items():
        getattr(model, method)(path)
    before = {path: path.read_bytes() for path in files.values()}
    poison(model)
    for method, path in files.items():
        with pytest.raises(ValueError, match=MESSAGE + "It is not saved"):
            getattr(model, method)(path)
    assert {path: path.read_bytes() for path in files.values()} == before
    with pytest.raises(ValueError, match="It is not saved"):
        keras.saving.save_model(model, tmp_path / "another.keras")


def test_a_checkpoint_of_fit_is_not_written(tmp_path):
    model = make()
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    spoil = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: poison(model))
    path = tmp_path / "model.keras"
    with pytest.raises(ValueError, match="It is not saved"):
        model.fit(X, np.zeros(6, int), callbacks=[spoil, keras.callbacks.ModelCheckpoint(path)], verbose=0)
    assert not path.exists()

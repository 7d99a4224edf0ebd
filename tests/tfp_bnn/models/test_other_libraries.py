"""Variational models in the hands of scikit-learn and keras-tuner, and in older file formats."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import cross_val_score

import tfp_bnn
from tfp_bnn.layers import DenseFlipout

X = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
LABELS = np.where(X[:, 0] > 0, "yes", "no")
# Keras' wrapper hands these to `fit`.
QUICKLY = {"epochs": 3, "verbose": 0, "batch_size": 60}


def classifier(X, y):
    x = keras.Input((X.shape[1],))
    model = tfp_bnn.VariationalModel(x, DenseFlipout(y.shape[1])(x), seed=0)
    model.compile(keras.optimizers.Adam(1.0), run_eagerly=True)
    return model


def regressor(X, y):
    x = keras.Input((X.shape[1],))
    model = tfp_bnn.VariationalModel(x, DenseFlipout(1)(x), likelihood="normal", seed=0)
    model.compile(keras.optimizers.Adam(1.0), run_eagerly=True)
    return model


@pytest.mark.slow
def test_the_wrappers_of_scikit_learn_take_a_variational_model():
    wrapped = keras.wrappers.SKLearnClassifier(classifier, fit_kwargs=QUICKLY).fit(X, LABELS)
    assert wrapped.score(X, LABELS) > 0.5
    assert set(wrapped.predict(X)) == {"yes", "no"}
    # What it holds is the model, whose predictive has the uncertainty.
    assert wrapped.model_.posterior_predictive(X[:2], 3).mean().shape == (2, 2)
    wrapped = keras.wrappers.SKLearnRegressor(regressor, fit_kwargs=QUICKLY).fit(X, X[:, 1])
    assert wrapped.predict(X).shape == (60,)


@pytest.mark.slow
def test_a_model_can_be_cloned_and_cross_validated_by_scikit_learn():
    wrapped = keras.wrappers.SKLearnClassifier(classifier, fit_kwargs=QUICKLY)
    assert len(cross_val_score(clone(wrapped), X, LABELS, cv=2, params=QUICKLY)) == 2
    instance = keras.wrappers.SKLearnClassifier(classifier(X, np.zeros((1, 2))), fit_kwargs=QUICKLY)
    assert instance.fit(X, LABELS).model_ is not instance.model
    assert instance.model_.likelihood == instance.model.likelihood


def test_a_model_has_a_loss_and_still_refuses_one():
    model = classifier(X, np.zeros((1, 2)))
    assert model.loss == "negative_elbo"
    model.compile("adam", loss="mse")
    assert model.loss == "mse"
    with pytest.raises(ValueError, match=r"compiled with loss='mse', but its loss is the negative ELBO"):
        model.fit(X, np.zeros(60), verbose=0)


# keras-tuner loads the weights of the best model into one whose optimizer has no variables yet, as for any model.
@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.slow
def test_keras_tuner_searches_variational_models(tmp_path):
    keras_tuner = pytest.importorskip("keras_tuner")

    def build(choices):
        x = keras.Input((4,))
        h = DenseFlipout(choices.Int("units", 2, 8))(x)
        model = tfp_bnn.VariationalModel(x, DenseFlipout(2)(h), seed=0)
        model.compile("adam", run_eagerly=True)
        return model

    y = (X[:, 0] > 0).astype(int)
    objective = keras_tuner.Objective("val_elbo", "max")
    tuner = keras_tuner.RandomSearch(build, objective, max_trials=2, directory=tmp_path, seed=0)
    tuner.search(X, y, validation_data=(X, y), verbose=0)
    assert len(tuner.oracle.trials) == 2
    assert tuner.get_best_models(1)[0].posterior_predictive(X[:2], 3).mean().shape == (2, 2)


@pytest.mark.parametrize("name", ["model.h5", "model.hdf5"])
def test_the_older_file_format_is_refused_with_advice(tmp_path, name):
    model = classifier(X, np.zeros((1, 2)))
    with pytest.raises(ValueError, match=r"cannot hold a Bayesian model. Use 'model\.keras'.*save_weights"):
        model.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
    model.save_weights(tmp_path / "model.weights.h5")
    model.load_weights(tmp_path / "model.weights.h5")

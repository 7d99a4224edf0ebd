"""`model.calibration`: what may be set, and what training does to it."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_bnn
from tfp_bnn.calibration import Scale, Temperature
from tfp_bnn.layers import DenseReparameterization
from tfp_bnn.likelihoods import Normal
from tfp_bnn.predictive import PosteriorPredictive

ROWS = 40
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 4)).astype(np.float32)


class Passing(tfp_bnn.VariationalMixin, keras.Model):
    """A network without noise whose outputs are its inputs, so a test chooses the outputs."""

    def call(self, inputs, training=None):
        return inputs


def network(likelihood, **kwargs):
    x = keras.Input((4,))
    return tfp_bnn.VariationalModel(x, DenseReparameterization(3)(x), likelihood=likelihood, seed=0, **kwargs)


def predictive_of(outputs, likelihood):
    """The raw predictive of outputs that the test chose, of shape `(S, n, outputs)`."""
    outputs = np.asarray(outputs, np.float32)
    return PosteriorPredictive(likelihood, {}, outputs, {}, outputs.shape)


@pytest.mark.parametrize("form", ["temperature", {"name": "temperature", "temperature": 1.0}, Temperature()], ids=repr)
def test_a_model_takes_a_name_a_config_or_an_object(form):
    model = Passing(likelihood="bernoulli", calibration=form)
    assert model.calibration == Temperature(1.0)
    model.calibration = None
    assert model.calibration is None
    model.calibration = form
    assert model.calibration == Temperature(1.0)


def test_a_calibration_of_another_task_is_refused():
    regression, classification = Passing(likelihood="normal"), Passing(likelihood="categorical")
    message = r"The calibration Temperature\(temperature=1.0\) does not fit the likelihood Normal.* for regression. Use"
    with pytest.raises(ValueError, match=f"{message} the calibration 'scale'"):
        regression.calibration = "temperature"
    with pytest.raises(ValueError, match=r"Scale.* does not fit .*Categorical.* classification.*'temperature'"):
        classification.calibration = Scale(2.0)
    with pytest.raises(ValueError, match=message):
        Passing(likelihood="normal", calibration="temperature")
    with pytest.raises(ValueError, match=message):
        predictive_of(np.zeros((1, 1, 1)), Normal(1.0)).calibrated_by(Temperature())
    with pytest.raises(ValueError, match="Did you mean 'temperature'"):
        classification.calibration = "temprature"
    with pytest.raises(TypeError, match=r"Cannot make a calibration from 2\.0"):
        classification.calibration = 2.0
    assert regression.calibration is classification.calibration is None


def test_training_takes_the_calibration_back():
    model = network("categorical", calibration=Temperature(2.0))
    with pytest.raises(ValueError, match=r"call `compile\(\)`"):
        model.fit(X, np.zeros(ROWS), verbose=0)
    model.compile("sgd", run_eagerly=True)
    y = RNG.integers(3, size=ROWS)
    with pytest.raises(ValueError, match="Labels out of range"):
        model.fit(X, y + 5, verbose=0)
    model.num_examples = ROWS
    model.evaluate(X, y, verbose=0)
    assert model.calibration == Temperature(2.0)
    message = r"calibrated, Temperature\(temperature=2.0\), but training changes .* is None now. Calibrate again"
    with pytest.warns(UserWarning, match=message):
        model.fit(X, y, verbose=0)
    assert model.calibration is None
    model.fit(X, y, verbose=0)
    model.calibration = Temperature(3.0)
    with pytest.warns(UserWarning, match=r"temperature=3.0"):
        model.train_on_batch(X, y)
    assert model.calibration is None


class Batches(keras.utils.PyDataset):
    def __init__(self, y):
        super().__init__()
        self._y = y

    def __len__(self):
        return 3

    def __getitem__(self, index):
        rows = slice(16 * index, 16 * index + 16)
        return X[rows], self._y[rows]


def test_validation_data_come_in_any_form_that_fit_takes():
    model = network("categorical")
    y = model.posterior_predictive(X, 1).sample(1)[0]
    expected = tfp_bnn.calibrate(model, X, y, num_samples=3)
    assert tfp_bnn.calibrate(model, Batches(y), num_samples=3) == expected
    assert tfp_bnn.calibrate(model, (batch for batch in Batches(y)), num_samples=3) == expected
    assert tfp_bnn.calibrate(model, tf.data.Dataset.from_tensor_slices((X, y)).batch(16), num_samples=3) == expected
    assert tfp_bnn.calibrate(model, X.tolist(), y.tolist(), num_samples=3) == expected
    with pytest.raises(ValueError, match="batches without targets"):
        tfp_bnn.calibrate(model, tf.data.Dataset.from_tensor_slices(X).batch(16))
    with pytest.raises(ValueError, match="`y` is missing"):
        tfp_bnn.calibrate(model, X)

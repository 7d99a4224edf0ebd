"""Training ends when the posterior predictive no longer improves, and with the weights at which it was best."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import tfp_bnn
from tfp_bnn import metrics
from tfp_bnn.callbacks import CalibrationEarlyStopping, measuring
from tfp_bnn.layers import DenseFlipout

# What happens between epochs is tested here.
pytestmark = pytest.mark.usefixtures("steps_run_eagerly")

SAMPLES = 3


class Drive(keras.callbacks.Callback):
    """Sets the means of the logits before an epoch ends: by how much the right class is favoured."""

    def __init__(self, strengths):
        super().__init__()
        self.strengths = strengths

    def on_epoch_end(self, epoch, logs=None):
        weight = self.model.network.get_layer("logits").variational_weights["kernel"]
        loc = self.strengths[epoch] * np.array([[-1, 1], [0, 0]], np.float32)
        weight.assign_parameters({**weight.parameters(), "loc": loc, "scale": np.full((2, 2), 0.1)})


def make():
    x = keras.Input((2,))
    model = tfp_bnn.VariationalModel(x, DenseFlipout(2, name="logits")(x), seed=0)
    model.compile("adam")
    return model


def strength(model):
    return float(np.asarray(model.network.get_layer("logits").variational_weights["kernel"].mean)[0, 1])


@pytest.mark.slow
@pytest.mark.parametrize("monitor", ["nll", "brier", "ece"])
def test_stops_after_patience_and_goes_back_to_the_best_weights(monitor, points):
    x, y = points
    strengths = [0.5, 2.0, -1.0, -2.0, -3.0, 5.0]
    model = make()
    stopping = CalibrationEarlyStopping(points, monitor=monitor, patience=2, num_samples=SAMPLES)
    history = model.fit(x, y, epochs=6, verbose=0, callbacks=[Drive(strengths), stopping]).history
    assert len(history[f"val_mc_{monitor}"]) == 4
    assert strength(model) == pytest.approx(2.0)
    predictive = model.posterior_predictive(x, num_samples=SAMPLES)
    score = {
        "nll": -predictive.log_prob(y).mean(),
        "brier": metrics.brier_score(y, predictive.mean()),
        "ece": metrics.expected_calibration_error(y, predictive.mean()),
    }[monitor]
    assert min(history[f"val_mc_{monitor}"]) == history[f"val_mc_{monitor}"][1] == pytest.approx(score, rel=1e-5)


@pytest.mark.slow
def test_the_last_weights_stay_where_the_best_are_not_wanted_and_small_gains_do_not_count(points):
    x, y = points
    model = make()
    stopping = CalibrationEarlyStopping(
        points, patience=1, min_delta=0.5, restore_best_weights=False, num_samples=SAMPLES, start_from_epoch=1
    )
    # The first epoch, by far the best, is not looked at; the third is better than the second by too little.
    model.fit(x, y, epochs=5, verbose=0, callbacks=[Drive([9.0, 0.5, 0.6, 0.7, 0.8]), stopping])
    assert strength(model) == pytest.approx(0.6)
    assert stopping.best_epoch == 1


@pytest.mark.slow
def test_the_best_weights_come_back_when_training_ends_by_itself(points):
    x, y = points
    model = make()
    stopping = CalibrationEarlyStopping(points, patience=9, num_samples=SAMPLES)
    model.fit(x, y, epochs=3, verbose=0, callbacks=[Drive([1.0, 3.0, -2.0]), stopping])
    assert strength(model) == pytest.approx(3.0)


@pytest.mark.slow
def test_callbacks_after_it_see_the_score(points, tmp_path):
    x, y = points
    path = tmp_path / "log.csv"
    stopping = CalibrationEarlyStopping(points, num_samples=SAMPLES, start_from_epoch=5)
    make().fit(x, y, epochs=2, verbose=0, callbacks=[stopping, keras.callbacks.CSVLogger(path)])
    head, *rows = path.read_text().splitlines()
    assert "val_mc_nll" in head.split(",")
    assert len(rows) == 2


def test_callbacks_with_the_same_rows_and_seed_measure_once(points, monkeypatch):
    model = make()
    calls = []
    predict = model.posterior_predictive
    monkeypatch.setattr(
        model, "posterior_predictive", lambda *args, **kwargs: calls.append(1) or predict(*args, **kwargs)
    )
    rows = [measuring.Rows(*(array.copy() for array in points)) for _ in range(2)]
    first = measuring.measure(model, rows[0], SAMPLES, 0)
    assert measuring.measure(model, rows[1], SAMPLES, 0) is first
    assert len(calls) == 1
    for other in ({"num_samples": 2, "seed": 0}, {"num_samples": SAMPLES, "seed": 1}):
        assert measuring.measure(model, rows[0], **other) is not first
    model.set_weights([weight + 1 for weight in model.get_weights()])
    assert measuring.measure(model, rows[0], SAMPLES, 0) is not first


def test_what_does_not_fit_is_refused_before_the_first_step(points):
    x, _ = points
    with pytest.raises(ValueError, match="`monitor` must be one of 'nll', 'ece', 'brier', but got 'loss'"):
        CalibrationEarlyStopping(points, monitor="loss")
    inputs = keras.Input((2,))
    model = tfp_bnn.VariationalModel(inputs, DenseFlipout(1)(inputs), likelihood="normal", seed=0)
    model.compile("adam")
    with pytest.raises(ValueError, match="monitor='ece' is for classification, but the model has the likelihood"):
        model.fit(x, x[:, 0], verbose=0, callbacks=[CalibrationEarlyStopping((x, x[:, 0]), "ece")])
    assert int(model.optimizer.iterations) == 0
